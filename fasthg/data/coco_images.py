"""The images of a COCO file: where they lie, and labels that were drawn on a photograph as it is stored."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fasthg.errors import FasthgError
from fasthg.pixels import geometry
from fasthg.pixels.pictures import picture_size, stored_turn


def image_folder(file: Path, first: str) -> Path:
    """Where a file's images are, told by the first one's name; beside the file where none has it, for the error."""
    beside, name = file.parent, file.stem.rpartition("_")[2]
    folders = [beside, beside / "images", beside.parent / "images", beside.parent, beside.parent / name]
    folders += [beside.parent / "images" / name, beside / name]
    return next((folder for folder in folders if (folder / first).is_file()), beside)


def relative(path: Path, root: Path) -> str:
    """An image's path as its project names it, absolute outside the project."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path.absolute())


def turn_labels(
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
