"""COCO's keypoint JSON, as COCO, CVAT, Label Studio and Roboflow write it: images, annotations, categories.

A point is x, y, v: 0 is not labelled, 1 labelled and hidden, 2 visible; pixel j's centre has coordinate j. Crowds are
left out. Images lie beside the file, in `images/` beside it or beside its folder, or in a folder of the split's name.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fasthg.data.people import HALF_PIXEL, People, load_json
from fasthg.data.reading import Labels, Reading, make_labels, make_skeleton
from fasthg.errors import FasthgError
from fasthg.pixels import geometry
from fasthg.pixels.pictures import picture_size, stored_turn
from fasthg.pixels.skeleton import Skeleton

if TYPE_CHECKING:
    from fasthg.data.dataset import Dataset

LOOKED_FOR = "a JSON with images, annotations and categories that have keypoints (COCO)"
_FOLDERS = (".", "annotations", "annot", "train", "valid", "val", "test")
_OF_VALIDATION = ("val", "test")


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


def at_detections(
    dataset: Dataset, path: Path, category: str | None, left_out: Callable[[str], None]
) -> tuple[Dataset, NDArray[np.float64]]:
    """The dataset's images with the boxes of a list of detections in place of its subjects, and the boxes' scores [N].

    Boxes of other images and of other kinds are none of its; `left_out` is told of those without an area, or without
    numbers. Raises FasthgError for a file that is no list of {"image_id", "category_id", "bbox", "score"}.
    """
    document, found = _load(dataset.annotations), load_json(path)
    if not isinstance(found, list) or not all(
        isinstance(box, dict) and {"image_id", "bbox", "score"} <= box.keys() for box in found
    ):
        raise FasthgError(f"{path}: no list of detections; give COCO's, with image_id, bbox and score")
    kinds = {as_id(chosen.get("id")) for chosen in choose_categories(dataset.annotations, document, category)}
    names = _names(dataset.annotations, document)
    listed = set(names.values())
    known = {listed_name(listed, image): image for image in set(dataset.people.images)}
    images: list[str] = []
    values: list[list[float]] = []
    for i, box in enumerate(found):
        name = known.get(names.get(as_id(box["image_id"]), ""))
        if name is None or as_id(box.get("category_id", next(iter(kinds)))) not in kinds:
            continue
        try:
            row = [*np.asarray(box["bbox"], np.float64).reshape(4).tolist(), float(box["score"])]
        except (TypeError, ValueError):
            row = [np.nan]
        if not np.isfinite(row).all() or min(row[2:4]) <= 0:
            left_out(f"{path}: [{i}] has no box with an area and a score")
            continue
        images.append(name)
        values.append(row)
    if not values:
        raise FasthgError(f"{path}: none of its {len(found)} boxes is of the images to score; give their detections")
    center, scale = zip(*(geometry.box_to_center_scale(*row[:4]) for row in values))
    shape = (len(values), len(dataset.people.skeleton))
    people = People(
        images=tuple(images),
        center=np.stack(center),
        scale=np.array(scale),
        joints=np.full((*shape, 2), np.nan),
        labelled=np.zeros(shape, bool),
        visible=np.zeros(shape, bool),
        head_size=np.full(len(values), np.nan),
        skeleton=dataset.people.skeleton,
    )
    return replace(dataset, people=people), np.array([row[4] for row in values])


def coco_files(path: Path) -> list[Path]:
    """The JSON files with COCO's keypoints: the file itself, or those of a folder."""
    if path.is_file():
        return [path] if _has_keypoints(path) else []
    return [file for name in _FOLDERS for file in sorted((path / name).glob("*.json")) if _has_keypoints(file)]


def _has_keypoints(path: Path) -> bool:
    if path.suffix != ".json":
        return False
    with path.open("rb") as file:
        if not file.read(64).lstrip().startswith(b"{"):
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
    held = [any(word in f"{file.parent.name}/{file.stem}".lower() for word in _OF_VALIDATION) for file in files]
    if len(files) > 1 and (len(files) > 2 or held[0] == held[1]):
        raise FasthgError(
            f"data {path}: {', '.join(str(file.relative_to(path)) for file in files)} all have keypoints; give one"
            " of them, or name two train and val"
        )
    documents = [_load(file) for file in files]
    skeleton, kinds = _choose(files[0], documents[0], reading)
    root = path if path.is_dir() else path.parent
    found = [
        subject for file, document in zip(files, documents) for subject in _subjects(file, document, kinds, skeleton)
    ]
    folders = {file: _image_folder(file, document) for file, document in zip(files, documents)}
    if len(files) == 1:
        root = folders[files[0]]
    names = [_relative(folders[file] / name, root) for file, name, *_others in found]
    points = np.array([points for _file, _name, points, *_others in found]).reshape(-1, len(skeleton), 3)
    places, boxes = points[..., :2] + HALF_PIXEL, np.array([box for *_others, box, _size in found]).reshape(-1, 4)
    _turn(places, boxes, [folders[file] / name for file, name, *_others in found], [size for *_others, size in found])
    labels = make_labels(
        names,
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


def _turn(
    points: NDArray[np.float64],
    boxes: NDArray[np.float64],
    images: Sequence[Path],
    sizes: Sequence[tuple[int, int] | None],
) -> None:
    """Turn, in place, points [N, J, 2] and boxes [N, 4] that were drawn on a photograph as stored, on its side."""

    @cache
    def turn_of(image: Path, stated: tuple[int, int]) -> int:
        try:
            on_its_side = picture_size(image) == stated[::-1] != stated
            return stored_turn(image.read_bytes()) if on_its_side else 1
        except (FasthgError, OSError):  # whoever reads the photograph will say it
            return 1

    for row, (image, stated) in enumerate(zip(images, sizes)):
        if stated is not None and (turn := turn_of(image, stated)) >= 5:
            points[row] = geometry.turned(points[row], stated, turn)
            boxes[row] = geometry.turned_boxes(boxes[row : row + 1], stated, turn)[0]


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path.absolute())


def _load(path: Path) -> dict[str, Any]:
    document = load_json(path)
    if not all(isinstance(document.get(name), list) for name in ("images", "annotations", "categories")):
        raise FasthgError(f"{path}: images, annotations and categories are not all lists; give {LOOKED_FOR}")
    if not all(isinstance(record, dict) for record in document["annotations"] + document["categories"]):
        raise FasthgError(f"{path}: an annotation or a category is no object with fields; give {LOOKED_FOR}")
    return document


def _names(path: Path, document: dict[str, Any]) -> dict[str | None, str]:
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


def _choose(path: Path, document: dict[str, Any], reading: Reading) -> tuple[Skeleton, set[Any]]:
    chosen = choose_categories(path, document, reading.category)
    first = chosen[0]
    try:
        limbs = [(int(a) - 1, int(b) - 1) for a, b in first.get("skeleton") or ()]  # COCO counts points from one
    except (TypeError, ValueError, OverflowError):
        raise FasthgError(f"{path}: the category's skeleton is no list of pairs of numbers; correct it") from None
    name = str(first.get("name") if len(chosen) == 1 else "animal")
    kinds = {as_id(category.get("id")) for category in chosen}
    points = [str(point) for point in first["keypoints"]]
    points += [f"point{number}" for number in range(len(points) + 1, _most_points(document, kinds) + 1)]
    return make_skeleton(name, points, limbs, reading.pairs), kinds


def _most_points(document: dict[str, Any], kinds: set[Any]) -> int:
    """How many points the annotations of some categories have; more than their category names, in a few files."""
    ours = (found.get("keypoints") for found in document["annotations"] if as_id(found.get("category_id")) in kinds)
    return max((len(points) // 3 for points in ours if isinstance(points, list)), default=0)


def _subjects(path: Path, document: dict[str, Any], kinds: set[Any], skeleton: Skeleton) -> Iterator[Any]:
    """File, image name, points [J, 3], box [4] and size of the image of each annotation; a missing box is NaN."""
    names = _names(path, document)
    sizes = {as_id(image["id"]): stated_size(image) for image in document["images"]}
    for i, annotation in enumerate(document["annotations"]):
        is_ours = as_id(annotation.get("category_id")) in kinds and not is_crowd(annotation)
        if not is_ours or not annotation.get("keypoints"):
            continue
        where, key = f"{path}: annotations[{i}]", as_id(annotation.get("image_id"))
        if key not in names:
            raise FasthgError(f"{where} is of image {annotation.get('image_id')!r}, which 'images' does not list")
        try:
            points = np.asarray(annotation["keypoints"], np.float64).reshape(-1, 3)
            box = np.asarray(annotation.get("bbox") or [np.nan] * 4, np.float64).reshape(4)
        except (TypeError, ValueError):
            raise FasthgError(f"{where}: keypoints are not x, y, v each, or bbox not x, y, w, h") from None
        if len(points) < len(skeleton):
            raise FasthgError(f"{where} has {len(points)} keypoints, its category {len(skeleton)}; correct the file")
        yield path, names[key], points[: len(skeleton)], box, sizes[key]


def _image_folder(path: Path, document: dict[str, Any]) -> Path:
    """Where a file's images are; the first candidate where none has them, for the error that names it."""
    beside, name = path.parent, path.stem.rpartition("_")[2]
    folders = [beside, beside / "images", beside.parent / "images", beside.parent, beside.parent / name]
    folders += [beside.parent / "images" / name, beside / name]
    first = next((image_name(image) for image in document["images"]), "")
    return next((folder for folder in folders if (folder / first).is_file()), beside)
