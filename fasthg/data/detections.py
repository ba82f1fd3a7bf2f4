"""Boxes that a detector found in the images of a file of COCO's keypoints, in place of its subjects' own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fasthg.data.coco import as_id, choose_categories, image_names, kinds_of, listed_name, load_coco
from fasthg.data.dataset import Dataset
from fasthg.data.people import People, load_json
from fasthg.errors import FasthgError
from fasthg.pixels import geometry


def at_detections(
    dataset: Dataset, path: Path, category: str | None, left_out: Callable[[str], None]
) -> tuple[Dataset, NDArray[np.float64]]:
    """The dataset's images with the boxes of a list of detections in place of its subjects, and the boxes' scores [N].

    Boxes of other images and of other kinds are none of its; `left_out` is told of those without an area, or without
    numbers. Raises FasthgError for a file that is no list of {"image_id", "category_id", "bbox", "score"}.
    """
    document, found = load_coco(dataset.annotations), load_json(path)
    if not isinstance(found, list) or not all(
        isinstance(box, dict) and {"image_id", "bbox", "score"} <= box.keys() for box in found
    ):
        raise FasthgError(f"{path}: no list of detections; give COCO's, with image_id, bbox and score")
    kinds = kinds_of(choose_categories(dataset.annotations, document, category))
    names = image_names(dataset.annotations, document)
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
