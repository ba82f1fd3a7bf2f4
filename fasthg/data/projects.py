"""Labelled projects as their tools write them: which format a path is, told by what is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fasthg.data import coco, deeplabcut, sleap, yolo
from fasthg.data.reading import Labels, Reading


class Format(NamedTuple):
    """One format: what is looked for, whether a path has it, and its reader."""

    looked_for: str
    found: Callable[[Path], bool]
    read: Callable[[Path, Reading], Labels]


FORMATS = (
    Format(deeplabcut.LOOKED_FOR, deeplabcut.is_deeplabcut, deeplabcut.read_deeplabcut),
    Format(yolo.LOOKED_FOR, lambda path: yolo.yolo_file(path) is not None, yolo.read_yolo),
    Format(sleap.LOOKED_FOR, lambda path: sleap.sleap_file(path) is not None, sleap.read_sleap),
    Format(coco.LOOKED_FOR, coco.is_coco, coco.read_coco),
)


def find_format(path: Path) -> Format | None:
    """The format of a project's folder or file; None where it is none of them."""
    return next((known for known in FORMATS if path.exists() and known.found(path)), None)


def looked_for() -> str:
    """What `find_format` looked for, for an error."""
    return "; ".join(known.looked_for for known in FORMATS)
