"""A labelling that is small and fast, and what it found."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("pyarrow")
from fasthg.label.places import Place
from fasthg.label.rows import Row, read_rows
from fasthg.label.run import LabelOptions

SIZE = 64


def options(network: Path, **changes) -> LabelOptions:
    fixed = {"weights": network, "path": "eager", "device": "cpu", "size": SIZE, "batch_size": 2, "block": 3}
    return LabelOptions(**fixed | changes)


def rows(out: Path) -> list[Row]:
    return sorted(read_rows(Place(out)), key=lambda row: (row.image, row.pose.frame or 0 if row.pose else -1))
