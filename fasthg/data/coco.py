"""COCO's keypoint JSON, as COCO, CVAT, Label Studio and Roboflow write it: images, annotations, categories.

A point is x, y, v: 0 is not labelled, 1 labelled and hidden, 2 visible; pixel j's centre has coordinate j. Crowds are
left out. Images lie beside the file, in `images/` beside it or beside its folder, or in a folder of the split's name.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import Container, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthg.data.coco_images import image_folder, relative, turn_labels
from fasthg.data.people import HALF_PIXEL, load_json, unreadable
from fasthg.data.reading import Labels, Reading, make_labels, make_skeleton
from fasthg.errors import FasthgError
from fasthg.pixels.skeleton import Skeleton

LOOKED_FOR = "a JSON with images, annotations and categories that have keypoints (COCO)"
_FOLDERS = (".", "annotations", "annot", "train", "valid", "val", "test")
_OF_VALIDATION = {"val", "valid", "validation", "test"}


def as_id(value: Any) -> str | None:
    """A number or name of an image or a category as text, since files mix 1, 1.0 and "1"; None for what is none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, (int, str)) else None


def is_crowd(annotation: dict[str, Any]) -> bool:
    """Whether an annotation is of a crowd, which is no subject."""
    return str(annotation.get("iscrowd") or 0).lower() not in ("0", "0.0", "false")


def stated_size(image: dict[str, Any]) -> tuple[int, int] | None:
    """Width and height of the image that labels were drawn on; None where the file does not say."""
    try:
        width, height = round(float(image["width"])), round(float(image["height"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return (width, height) if width > 0 < height else None


def image_name(image: dict[str, Any]) -> str:
    """An image's file name, also where a tool on Windows wrote it, or one that begins at `./`."""
    return str(PurePosixPath(str(image["file_name"]).replace("\\", "/")))


def listed_name(names: Container[str], image: str) -> str:
    """Which of a file's names stands for a dataset's image, which may have a folder before it; the longest that fits.

    Raises FasthgError where none does.
    """
    parts = image.split("/")
    found = next((name for i in range(len(parts)) if (name := "/".join(parts[i:])) in names), None)
    if found is None:
        raise FasthgError(f"image {image} is none of those that the truth lists; give results of its images")
    return found


def is_coco(path: Path) -> bool:
    """Whether a file is COCO's JSON with keypoints, or a folder holds one."""
    return bool(coco_files(path))


def is_coco_file(path: Path) -> bool:
    """Whether a path is one file of COCO's keypoints."""
    return path.is_file() and _has_keypoints(path)


def coco_files(path: Path) -> list[Path]:
    """The JSON files with COCO's keypoints: the file itself, or those of a folder."""
    if path.is_file():
        return [path] if _has_keypoints(path) else []
    return [file for name in _FOLDERS for file in sorted((path / name).glob("*.json")) if _has_keypoints(file)]


def begins_with(path: Path, mark: bytes) -> bool:
    """Whether a file's text begins so, after blanks and the mark that Windows puts before UTF-8."""
    try:
        with path.open("rb") as file:
            return file.read(64).removeprefix(BOM_UTF8).lstrip().startswith(mark)
    except OSError as error:
        raise unreadable(path, error) from error


def _has_keypoints(path: Path) -> bool:
    if path.suffix != ".json" or not path.is_file() or not begins_with(path, b"{"):
        return False
    try:
        document = load_json(path)
    except FasthgError:
        return False
    if not isinstance(document, dict) or not {"images", "annotations", "categories"} <= document.keys():
        return False
    categories = document["categories"]
    return isinstance(categories, list) and any("keypoints" in kind for kind in categories if isinstance(kind, dict))


def read_coco(path: Path, reading: Reading) -> Labels:
    """The subjects of one file, or of a folder's two, whose names say which is validated on.

    Raises FasthgError that names the file, the record and the field that is missing or wrong.
    """
    files = coco_files(path)
    held = [len(files) > 1 and _is_of_validation(file.relative_to(path)) for file in files]
    if len(files) > 1 and (len(files) > 2 or held[0] == held[1]):
        raise FasthgError(
            f"data {path}: {', '.join(str(file.relative_to(path)) for file in files)} all have keypoints; give one"
            " of them, or name two train and val"
        )
    documents = [load_coco(file) for file in files]
    chosen = _choose_alike(files, documents, reading.category)
    skeleton = _skeleton(files[0], documents[0], chosen[0], reading.pairs)
    root = path if path.is_dir() else path.parent
    found = [subject for each in zip(files, documents, chosen) for subject in _subjects(*each, skeleton)]
    folders = {
        file: image_folder(file, next(map(image_name, document["images"]), ""))
        for file, document in zip(files, documents)
    }
    if len(files) == 1:
        root = folders[files[0]]
    images = [folders[file] / name for file, name, *_others in found]
    points = np.array([points for _file, _name, points, *_others in found]).reshape(-1, len(skeleton), 3)
    places, boxes = points[..., :2] + HALF_PIXEL, np.array([box for *_others, box, _size in found]).reshape(-1, 4)
    turn_labels(places, boxes, images, [size for *_others, size in found])
    labels = make_labels(
        [relative(image, root) for image in images],
        places,
        points[..., 2] > 0,
        boxes,
        None,
        skeleton,
        root,
        path if len(files) > 1 else files[0],
        "COCO's keypoints",
        points[..., 2] > 1,
        [held[files.index(file)] for file, *_others in found] if len(files) > 1 else None,
    )
    by_split = {"val" if is_held else "train": file for file, is_held in zip(files, held)}
    return replace(labels, files=by_split) if len(files) > 1 else labels


def _is_of_validation(file: Path) -> bool:
    """Whether a word of a file's path inside its project says so; `latest` is none, `val2017` is one."""
    return not _OF_VALIDATION.isdisjoint(re.split(r"[^a-z]+", file.as_posix().lower()))


def load_coco(path: Path) -> dict[str, Any]:
    """The content of a file; raises FasthgError where its images, annotations and categories are none."""
    document = load_json(path)
    if not all(isinstance(document.get(name), list) for name in ("images", "annotations", "categories")):
        raise FasthgError(f"{path}: images, annotations and categories are not all lists; give {LOOKED_FOR}")
    if not all(isinstance(record, dict) for record in document["annotations"] + document["categories"]):
        raise FasthgError(f"{path}: an annotation or a category is no object with fields; give {LOOKED_FOR}")
    return document


def image_names(path: Path, document: dict[str, Any]) -> dict[str | None, str]:
    """The images' file names by their ids; raises FasthgError where two files have one id."""
    names: dict[str | None, str] = {}
    for i, image in enumerate(document["images"]):
        if not isinstance(image, dict) or not {"id", "file_name"} <= image.keys():
            raise FasthgError(f"{path}: images[{i}] has no id and file_name; give {LOOKED_FOR}")
        if names.setdefault(as_id(image["id"]), image_name(image)) != image_name(image):
            other = names[as_id(image["id"])]
            raise FasthgError(f"{path}: {other} and {image_name(image)} are both image {image['id']}; number them anew")
    return names


def choose_categories(path: Path, document: dict[str, Any], wanted: str | None) -> list[dict[str, Any]]:
    """The categories to read: those that were asked for, else all that have subjects and the same points.

    Raises FasthgError that lists the names where they have different points, or none is called so.
    """
    able = [category for category in document["categories"] if isinstance(category.get("keypoints"), list)]
    able = [category for category in able if category["keypoints"]]
    if wanted is not None:
        chosen = [category for category in able if wanted in (str(category.get("id")), category.get("name"))]
        if not chosen:
            names = ", ".join(str(category.get("name")) for category in able)
            raise FasthgError(f"{path}: no category {wanted!r} with keypoints; choose one of {names}")
        return chosen
    used = {
        as_id(annotation.get("category_id")) for annotation in document["annotations"] if annotation.get("keypoints")
    }
    chosen = [category for category in able if as_id(category.get("id")) in used]
    if len({tuple(map(str, category["keypoints"])) for category in chosen}) > 1:
        names = ", ".join(str(category.get("name")) for category in chosen)
        raise FasthgError(f"{path}: the categories {names} have different points; choose one with --category")
    if not chosen:
        raise FasthgError(f"{path}: no annotation is of a category with keypoints; give {LOOKED_FOR}")
    return chosen


def _choose_alike(
    files: Sequence[Path], documents: Sequence[dict[str, Any]], wanted: str | None
) -> list[list[dict[str, Any]]]:
    """The categories to read of each file, by its own numbers; none of a further file that has no labels yet.

    Raises FasthgError where a number that was asked for is another kind in another file.
    """
    chosen = [choose_categories(files[0], documents[0], wanted)]
    for file, document in zip(files[1:], documents[1:]):
        labelled = any(annotation.get("keypoints") for annotation in document["annotations"])
        chosen.append(choose_categories(file, document, wanted) if labelled else [])
        ours, theirs = (", ".join(str(kind.get("name")) for kind in kinds) for kinds in (chosen[0], chosen[-1]))
        if wanted is not None and labelled and ours != theirs:
            raise FasthgError(f"category {wanted!r} is {ours} in {files[0]} and {theirs} in {file}; give its name")
    return chosen


def _skeleton(path: Path, document: dict[str, Any], chosen: list[dict[str, Any]], pairs: str | None) -> Skeleton:
    try:  # COCO counts points from one
        limbs = [(int(a) - 1, int(b) - 1) for a, b in chosen[0].get("skeleton") or ()]
    except (TypeError, ValueError, OverflowError):
        raise FasthgError(f"{path}: the category's skeleton is no list of pairs of numbers; correct it") from None
    name = str(chosen[0].get("name") if len(chosen) == 1 else "animal")
    return make_skeleton(name, _point_names(document, chosen), limbs, pairs)


def point_order(path: Path, document: dict[str, Any], chosen: list[dict[str, Any]], names: Sequence[str]) -> list[int]:
    """Where a file's annotations have the points of some names; raises FasthgError where it has other points."""
    own = _point_names(document, chosen)
    if sorted(own) != sorted(names):
        raise FasthgError(f"{path} has the points {', '.join(own)}, not {', '.join(names)}; give every file the same")
    return [own.index(name) for name in names]


def _point_names(document: dict[str, Any], chosen: list[dict[str, Any]]) -> list[str]:
    names = [str(point) for point in chosen[0]["keypoints"]]
    return names + [f"point{i}" for i in range(len(names) + 1, _most_points(document, kinds_of(chosen)) + 1)]


def kinds_of(chosen: list[dict[str, Any]]) -> set[str | None]:
    """The numbers of some categories."""
    return {as_id(category.get("id")) for category in chosen}


def _most_points(document: dict[str, Any], kinds: set[Any]) -> int:
    """How many points the annotations of some categories have; more than their category names, in a few files."""
    ours = (found.get("keypoints") for found in document["annotations"] if as_id(found.get("category_id")) in kinds)
    return max((len(points) // 3 for points in ours if isinstance(points, list)), default=0)


def _subjects(path: Path, document: dict[str, Any], chosen: list[dict[str, Any]], skeleton: Skeleton) -> Iterator[Any]:
    """File, image name, points [J, 3], box [4] and size of the image of each annotation; a missing box is NaN."""
    names = image_names(path, document)
    sizes = {as_id(image["id"]): stated_size(image) for image in document["images"]}
    order = point_order(path, document, chosen, skeleton.names) if chosen else []
    for annotation, key, points, box in labelled_annotations(path, document, chosen, len(skeleton)):
        if not is_crowd(annotation):
            yield path, names[key], points[order], box, sizes[key]


def _is_box(box: object) -> bool:
    """Whether it is four numbers."""
    try:
        return bool(np.isfinite(np.asarray(box, np.float64).reshape(4)).all())
    except (TypeError, ValueError):
        return False


def labelled_annotations(
    path: Path, document: dict[str, Any], chosen: list[dict[str, Any]], count: int, boxes_alone: bool = False
) -> Iterator[tuple[dict[str, Any], str | None, NDArray[np.float64], NDArray[np.float64]]]:
    """Each annotation of some categories that has keypoints, crowds among them: itself, its image's id, points
    [count, 3] in the file's order and box [4], NaN where it has none. Raises FasthgError that names a wrong one.

    boxes_alone  who has a box alone comes too, with zeros for points
    """
    names, kinds = image_names(path, document), kinds_of(chosen)
    for i, annotation in enumerate(document["annotations"]):
        where, key = f"{path}: annotations[{i}]", as_id(annotation.get("image_id"))
        listed = annotation.get("keypoints")
        if not listed and boxes_alone and key in names and _is_box(annotation.get("bbox")):
            listed = [0.0] * 3 * count
        if as_id(annotation.get("category_id")) not in kinds or not listed:
            continue
        if key not in names:
            raise FasthgError(f"{where} is of image {annotation.get('image_id')!r}, which 'images' does not list")
        try:
            points = np.asarray(listed, np.float64).reshape(-1, 3)
            box = np.asarray(annotation.get("bbox") or [np.nan] * 4, np.float64).reshape(4)
        except (TypeError, ValueError, OverflowError):
            raise FasthgError(f"{where}: keypoints are not x, y, v each, or bbox not x, y, w, h") from None
        if len(points) < count:
            raise FasthgError(f"{where} has {len(points)} keypoints, its category {count}; correct the file")
        yield annotation, key, points[:count], box
