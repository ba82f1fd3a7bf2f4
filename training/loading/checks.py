"""What would spoil a run only after hours is looked for before it starts."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fasthg.data.dataset import Dataset
from fasthg.errors import FasthgError
from fasthg.pixels import geometry
from fasthg.pixels.pictures import picture_size


def check_boxes(dataset: Dataset) -> None:
    """Raise FasthgError that names the first person whose box lies wholly outside the photograph.

    Only the photographs' headers are read; one whose header cannot be read is left to who decodes it.
    """
    people = dataset.people
    unit_square = np.array([[0.0, 0.0], [1.0, 1.0]])
    boxes = geometry.apply(geometry.invert(geometry.crop_matrix(people.center, people.scale, 1)), unit_square)
    sizes = {name: _upright_size(dataset.image_dir / name) for name in dict.fromkeys(people.images)}
    for row, (name, (corner, opposite)) in enumerate(zip(people.images, boxes)):
        size = sizes[name]
        if size is not None and ((opposite <= 0).any() or (corner >= size).any()):
            raise FasthgError(
                f"row {row}: the box of {corner.round()} to {opposite.round()} lies outside {dataset.image_dir / name},"
                f" which has {size[0]} x {size[1]} pixels; correct its centre and scale"
            )


def _upright_size(path: Path) -> tuple[int, int] | None:
    try:
        return picture_size(path)
    except FasthgError:
        return None
