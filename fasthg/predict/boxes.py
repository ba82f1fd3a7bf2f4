"""People's boxes [P, 4] (x, y, width, height in pixels of the photograph): from the command line or a COCO file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fasthg.errors import FasthgError

Boxes = NDArray[np.float64]  # [P, 4]


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
    try:
        rows = np.atleast_2d(np.asarray(boxes, np.float64))
    except (TypeError, ValueError) as error:
        raise FasthgError(f"{where}: not numbers ({error}); give x,y,w,h in pixels") from None
    if rows.size == 0:
        return np.empty((0, 4))
    if rows.ndim != 2 or rows.shape[1] != 4:
        raise FasthgError(f"{where} has shape {np.shape(boxes)}; give x,y,w,h in pixels, one row for each person")
    for row in rows:
        if not np.isfinite(row).all():
            raise FasthgError(f"{where} {show_box(row)} is not finite; give x,y,w,h in pixels")
        if row[2] <= 0 or row[3] <= 0:
            raise FasthgError(f"{where} {show_box(row)} has no area; give x,y,w,h in pixels, with w and h above 0")
    return rows


def check_inside(boxes: Boxes, image_name: str, width: int, height: int) -> None:
    """Raise FasthgError for a box that has nothing in common with its photograph."""
    for row in boxes:
        x, y, w, h = row
        if x >= width or y >= height or x + w <= 0 or y + h <= 0:
            raise FasthgError(
                f"box {show_box(row)} lies outside {image_name} ({width}x{height} pixels); give x,y,w,h in its pixels"
            )


def show_box(box: Sequence[float] | NDArray[np.float64]) -> str:
    """ "x,y,w,h", as it is given on the command line."""
    return ",".join(f"{float(value):g}" for value in box)


def read_coco_boxes(path: str | Path) -> dict[str, Boxes]:
    """People's boxes of a COCO annotation file by the photograph's `file_name`; photographs without people have none.

    Raises FasthgError that names the file and the record whose field is missing or wrong.
    """
    document = _load(path)
    images, annotations = document.get("images"), document.get("annotations")
    if not isinstance(images, list) or not isinstance(annotations, list):
        raise FasthgError(f"{path}: no lists 'images' and 'annotations'; give boxes in COCO's format")
    names = {_field(path, "images", i, image, "id"): image for i, image in enumerate(images)}
    people = _person_ids(document)
    found: dict[str, list[Boxes]] = {
        str(_field(path, "images", i, image, "file_name")): [] for i, image in enumerate(images)
    }
    for i, annotation in enumerate(annotations):
        if people and annotation.get("category_id") not in people:
            continue
        image_id = _field(path, "annotations", i, annotation, "image_id")
        if image_id not in names:
            raise FasthgError(f"{path}: annotations[{i}] is of image {image_id!r}, which 'images' does not list")
        box = check_boxes(_field(path, "annotations", i, annotation, "bbox"), f"{path}: annotations[{i}].bbox")
        found[str(names[image_id]["file_name"])].append(box)
    return {name: np.concatenate(rows) if rows else np.empty((0, 4)) for name, rows in found.items()}


def _load(path: str | Path) -> dict[str, Any]:
    try:
        document = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise FasthgError(f"boxes {path}: {error.strerror}; check the path") from None
    except ValueError as error:
        raise FasthgError(f"boxes {path}: not JSON ({error}); give boxes in COCO's format") from None
    if not isinstance(document, dict):
        raise FasthgError(f"boxes {path}: no lists 'images' and 'annotations'; give boxes in COCO's format")
    return document


def _field(path: str | Path, kind: str, index: int, record: Any, name: str) -> Any:
    if not isinstance(record, dict) or name not in record:
        raise FasthgError(f"{path}: {kind}[{index}] has no {name!r}; give boxes in COCO's format")
    return record[name]


def _person_ids(document: dict[str, Any]) -> set[Any]:
    """Ids of the categories named "person"; empty where the file names none, and then everything is a person."""
    categories = document.get("categories") or []
    return {c.get("id") for c in categories if isinstance(c, dict) and c.get("name") == "person"}
