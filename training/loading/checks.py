"""What would spoil a run only after hours is looked for before it starts."""

from __future__ import annotations

import numpy as np

from fasthg.data.dataset import Dataset
from fasthg.errors import FasthgError
from fasthg.pixels import geometry

_EXIF_ORIENTATION = 0x0112
_EXIF_QUARTER_TURNS = (5, 6, 7, 8)


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


def _upright_size(path: object) -> tuple[int, int] | None:
    from PIL import Image

    try:
        with Image.open(str(path)) as image:
            turned = image.getexif().get(_EXIF_ORIENTATION) in _EXIF_QUARTER_TURNS
            return (image.height, image.width) if turned else (image.width, image.height)
    except OSError:
        return None
