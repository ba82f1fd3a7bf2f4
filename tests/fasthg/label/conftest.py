"""Photographs to label."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Seven photographs, one of which is damaged."""
    folder, rng = tmp_path / "photos", np.random.default_rng(0)
    folder.mkdir()
    for number in range(7):
        cv2.imwrite(str(folder / f"{number}.jpg"), rng.integers(0, 256, (50 + number, 60, 3), np.uint8))
    (folder / "3.jpg").write_bytes((folder / "3.jpg").read_bytes()[:40])
    return folder
