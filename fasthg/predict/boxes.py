"""People's boxes [P, 4] (x, y, width, height in pixels of the photograph): from the command line or a COCO file."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fasthg.data.coco import as_id, image_name, is_crowd, stated_size
from fasthg.errors import FasthgError
from fasthg.pixels.geometry import turned_boxes

Boxes = NDArray[np.float64]  # [P, 4]

_LARGEST = 1 << 30  # pixels of any number of a box, more than a photograph may have
_SEEN = 0.2  # a heatmap's peak from which a joint says where its person is
_AROUND = 1.2  # a person's box, in widths of their joints: hands, feet and the hair lie outside
_FILLS = 0.75  # of the image's longer side, from which a closer look shows nothing new


def parse_boxes(texts: Sequence[str]) -> Boxes:
    """Boxes of "x,y,w,h" strings, one person each."""
    rows = []
    for text in texts:
        try:
            rows.append([float(part) for part in text.split(",")])
        except ValueError:
            raise FasthgError(f"box {text!r} is not four numbers; give x,y,w,h in pixels") from None
        if len(rows[-1]) != 4:
            raise FasthgError(f"box {text!r} has {len(rows[-1])} numbers; give x,y,w,h in pixels")
    return check_boxes(rows)


def check_boxes(boxes: ArrayLike, where: str = "box") -> Boxes:
    """One box [4] or boxes [P, 4] as [P, 4]; raises FasthgError that names a box with NaN or without an area."""
    rows = _numbers(boxes, where)
    for row in rows:
        if row[2] <= 0 or row[3] <= 0:
            raise FasthgError(f"{where} {show_box(row)} has no area; give x,y,w,h in pixels, with w and h above 0")
    return rows


def _numbers(boxes: ArrayLike, where: str) -> Boxes:
    """Boxes as [P, 4], finite."""
    try:
        rows = np.atleast_2d(np.asarray(boxes, np.float64))
    except (TypeError, ValueError, OverflowError) as error:
        raise FasthgError(f"{where}: not numbers ({error}); give x,y,w,h in pixels") from None
    if rows.size == 0:
        return np.empty((0, 4))
    if rows.ndim != 2 or rows.shape[1] != 4:
        raise FasthgError(f"{where} has shape {np.shape(boxes)}; give x,y,w,h in pixels, one row for each person")
    for row in rows:
        if not np.isfinite(row).all():
            raise FasthgError(f"{where} {show_box(row)} is not finite; give x,y,w,h in pixels")
        if np.abs(row).max() > _LARGEST:
            raise FasthgError(f"{where} {show_box(row)} is larger than any photograph; give x,y,w,h in pixels")
    return rows


def inside(boxes: Boxes, width: int, height: int) -> NDArray[np.bool_]:
    """Which boxes [P] have anything in common with their photograph."""
    x, y, w, h = boxes.T
    return (x < width) & (y < height) & (x + w > 0) & (y + h > 0)


def upright(boxes: Boxes, stated: tuple[int, int], size: tuple[int, int], turn: int, name: str) -> Boxes:
    """Boxes in pixels of the upright photograph (`size`: width, height), from those of the image that they state.

    turn  the photograph's EXIF orientation, 1 to 8

    Raises FasthgError where the stated image is neither the upright photograph nor the one that is stored.
    """
    if stated == size:
        return boxes
    if stated != size[::-1] or turn < 5:
        raise FasthgError(
            f"boxes of {name} are of an image of {stated[0]}x{stated[1]} pixels, the photograph has"
            f" {size[0]}x{size[1]}; give boxes in its pixels"
        )
    return turned_boxes(boxes, stated, turn)


def box_around(
    joints: NDArray[np.float64], scores: NDArray[np.float32], whole: Sequence[float] | NDArray[np.float64]
) -> tuple[float, float, float, float] | None:
    """The box of a person whose joints [K, 2] were found on a whole image, for a closer look.

    None where too few joints were seen (scores [K]), or where the person fills the image anyway.
    """
    seen = joints[scores >= _SEEN]
    if len(seen) < max(2, len(joints) // 2):
        return None
    start, end = seen.min(axis=0), seen.max(axis=0)
    size = (end - start) * _AROUND
    if size.max() < 1 or size.max() > _FILLS * max(whole[2:]):
        return None
    x, y = (start + end - size) / 2
    return float(x), float(y), float(size[0]), float(size[1])


def show_box(box: Sequence[float] | NDArray[np.float64]) -> str:
    """ "x,y,w,h", as it is given on the command line."""
    return ",".join(f"{float(value):g}" for value in box)


@dataclass(frozen=True)
class Listed:
    """The people of one photograph.

    boxes   [P, 4]; None where the whole image is one person
    size    width and height of the image that they were drawn on, where their file says it
    frames  P numbers of the frames of a film that they are in, None for a box that is in all; empty where all are
    """

    boxes: Boxes | None = None
    size: tuple[int, int] | None = None
    frames: tuple[int | None, ...] = ()

    def of_frame(self, frame: int | None) -> Boxes | None:
        """The boxes of one frame, all of them for a photograph, which has no number (None)."""
        if self.boxes is None or not self.frames or frame is None:
            return self.boxes
        return self.boxes[sorted(self._places.get(frame, []) + self._places.get(None, []))]

    @cached_property
    def _places(self) -> dict[int | None, list[int]]:
        places: dict[int | None, list[int]] = {}
        for place, frame in enumerate(self.frames):
            places.setdefault(frame, []).append(place)
        return places


class Lookup(dict[str, Listed]):
    """People by the names of their photographs.

    ignored   counts by reason what a file lists and is no person's box
    unusable  what is wrong with each record that has no box of four finite numbers
    """

    ignored: Counter[str]
    unusable: list[str]

    def __init__(self, listed: Mapping[str, Listed] | None = None) -> None:
        super().__init__()
        for name, people in (listed or {}).items():
            if self.setdefault(_slashed(name), people) is not people:
                raise FasthgError(f"boxes of {name} are given under two names; give them under one")
        self.ignored, self.unusable = Counter(), []

    def assign(self, paths: Sequence[str | Path]) -> list[Listed | None]:
        """The people of each photograph, None where it is not listed: by its path or the end of it that the file gives;
        else by its name or number, where the people are of none of the others.

        Raises FasthgError where a name is that of several photographs.
        """
        found = [self._at(Path(path)) for path in paths]
        owners: dict[int, str] = {}
        for by_name in (False, True):
            before = set(owners)
            for place, path in enumerate(paths):
                people = self._called(Path(path)) if by_name and found[place] is None else found[place]
                if people is None or (by_name and id(people) in before):
                    continue
                owner = owners.setdefault(id(people), str(path))
                if owner != str(path):
                    raise FasthgError(f"boxes of {Path(path).name} are those of {owner} or of {path}; tell them apart")
                found[place] = people
        return found

    def _at(self, path: Path) -> Listed | None:
        ends = ("/".join(path.parts[start:]) for start in range(len(path.parts)))
        return next((self[end] for end in ends if end in self), None)

    def _called(self, path: Path) -> Listed | None:
        same = {id(people): people for people in self._by_name.get(_plain(path.name), ())}
        if len(same) > 1:
            raise FasthgError(f"boxes of {len(same)} photographs called {path.name}; give paths that tell them apart")
        return next(iter(same.values()), None) or self.get(path.stem.lstrip("0") or "0")

    @cached_property
    def _by_name(self) -> dict[str, list[Listed]]:
        names: dict[str, list[Listed]] = {}
        for name, people in self.items():
            names.setdefault(_plain(name), []).append(people)
        return names


def _slashed(name: str) -> str:
    """A file's path, or its address, as `image_name` gives it."""
    return name if "://" in name else image_name({"file_name": name})


def _plain(name: str) -> str:
    """A file's name, without its folder, as labelling tools and other systems may also have written it."""
    path = unquote(urlsplit(name).path) if "://" in name else unquote(name)
    return unicodedata.normalize("NFC", path.rpartition("/")[2]).casefold()


def read_coco_boxes(path: str | Path, category: str | None = None) -> Lookup:
    """Boxes of a COCO annotation file, or of a list of detections, by photograph.

    category  name or number of the subjects; people where left out, or the one kind that the file has
    Photographs without people have none; a crowd is no person, and a box without an area is none. Images that have a
    "frame" are those of a film, which is their file. Detections ([{"image_id", "bbox", "category_id", "score"}, ...])
    name their photograph by its file name or by its number, as COCO's files are called. Raises FasthgError that names
    the file and the record whose field is missing or wrong.
    """
    document = _load(path)
    if isinstance(document, list):
        images: dict[str, Any] = {}
        people: set[str | None]
        annotations, people = document, {"1", "person"} if category is None else {category}  # COCO's number of people
    else:
        images, annotations = _images(path, document), document.get("annotations", ())
        if not isinstance(annotations, list):
            raise FasthgError(f"{path}: no lists 'images' and 'annotations'; give boxes in COCO's format")
        people = _category_ids(path, document, category)
    names = {key: _slashed(str(image["file_name"])) for key, image in images.items()}
    frames = {key: _frame(image) for key, image in images.items()}
    found: dict[str, list[tuple[int | None, Boxes]]] = {name: [] for name in names.values()}
    ignored: Counter[str] = Counter()
    unusable: list[str] = []
    for i, annotation in enumerate(annotations):
        where = f"annotations[{i}]" if isinstance(document, dict) else f"[{i}]"
        key = _key(path, where, annotation, "image_id")
        if isinstance(document, dict) and key not in names:
            raise FasthgError(f"{path}: {where} is of image {key}, which 'images' does not list")
        boxes = found.setdefault(names.get(key) or _slashed(key), [])
        if people and as_id(annotation.get("category_id", next(iter(people)))) not in people:
            ignored["of another category"] += 1
        elif is_crowd(annotation):
            ignored["of a crowd"] += 1
        else:
            try:
                box = _numbers(_field(path, where, annotation, "bbox"), f"{path}: {where}.bbox")
            except FasthgError as error:
                unusable.append(str(error))
                continue
            if len(box) and (box[:, 2:] > 0).all():
                boxes.append((frames.get(key), box))
            else:
                ignored["without an area"] += 1
    sizes = {name: stated_size(images[key]) for key, name in names.items()}
    lookup = Lookup({name: _listed(rows, sizes.get(name)) for name, rows in found.items()})
    lookup.ignored, lookup.unusable = ignored, unusable
    return lookup


def _listed(rows: Sequence[tuple[int | None, Boxes]], size: tuple[int, int] | None) -> Listed:
    """The people of a photograph or a film, from the frame and the boxes of each record."""
    frames = tuple(frame for frame, boxes in rows for _box in boxes)
    boxes = np.concatenate([np.empty((0, 4)), *(boxes for _frame, boxes in rows)])
    return Listed(boxes, size, frames if any(frame is not None for frame in frames) else ())


def _frame(image: Mapping[str, Any]) -> int | None:
    """Which frame of its film an image is, counted from 0, as `predict` writes it; None where the file does not say."""
    try:
        return int(image["frame"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _images(path: str | Path, document: dict[str, Any]) -> dict[str, Any]:
    """The images of a COCO file by their numbers; raises FasthgError where two files have one number."""
    if not isinstance(listed := document.get("images"), list):
        raise FasthgError(f"{path}: no lists 'images' and 'annotations'; give boxes in COCO's format")
    images: dict[str, Any] = {}
    for i, image in enumerate(listed):
        name = _field(path, f"images[{i}]", image, "file_name")
        other = images.setdefault(_key(path, f"images[{i}]", image, "id"), image)
        if (other["file_name"], _frame(other)) != (name, _frame(image)):
            raise FasthgError(f"{path}: {other['file_name']} and {name} are both image {image['id']}; number them anew")
    return images


def _load(path: str | Path) -> dict[str, Any] | list[Any]:
    try:
        document = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise FasthgError(f"boxes {path}: {error.strerror}; check the path") from None
    except (ValueError, RecursionError) as error:
        raise FasthgError(f"boxes {path}: not JSON ({error}); give boxes in COCO's format") from None
    if not isinstance(document, (dict, list)):
        raise FasthgError(f"boxes {path}: no lists 'images' and 'annotations'; give boxes in COCO's format")
    return document


def _field(path: str | Path, where: str, record: Any, name: str) -> Any:
    if not isinstance(record, dict) or name not in record:
        raise FasthgError(f"{path}: {where} has no {name!r}; give boxes in COCO's format")
    return record[name]


def _key(path: str | Path, where: str, record: Any, name: str) -> str:
    value = _field(path, where, record, name)
    key = as_id(value)
    if key is None:
        raise FasthgError(f"{path}: {where}.{name} is {value!r:.40}; give a number or a name")
    return key


def _category_ids(path: str | Path, document: dict[str, Any], wanted: str | None) -> set[str | None]:
    """Ids of the categories that `wanted` names, of those named "person", or of the only one; empty where the file has
    no categories, and then everything counts."""
    listed = document.get("categories")
    categories = [c for c in listed if isinstance(c, dict)] if isinstance(listed, list) else []
    name = "person" if wanted is None else wanted.lower()
    found = {as_id(c.get("id")) for c in categories if name in (str(c.get("name", "")).lower(), str(c.get("id")))}
    if not found and wanted is None and len(categories) == 1:
        return {as_id(categories[0].get("id"))}
    if categories and not found:
        names = ", ".join(str(c.get("name")) for c in categories[:5])
        raise FasthgError(f"{path}: no category is called {name} ({names}); choose one with --category")
    return found
