"""Nobody is scored whom int8 was calibrated on."""

from __future__ import annotations

from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from fasthg.data.crops import load_crops
from fasthg.errors import FasthgError

PEOPLE = 6


@pytest.fixture
def one_split(tmp_path: Path) -> Path:
    """Princeton's file of six people, each in a photograph of one grey of its own."""
    (tmp_path / "images").mkdir()
    for row in range(PEOPLE):
        cv2.imwrite(str(tmp_path / "images" / f"{row}.png"), np.full((200, 200, 3), 20 * (row + 1), np.uint8))
    with h5py.File(tmp_path / "valid.h5", "w") as file:
        file["imgname"] = np.array([f"{row}.png".encode() for row in range(PEOPLE)])
        file["center"], file["scale"] = np.full((PEOPLE, 2), 100.0), np.full(PEOPLE, 0.7)
        file["part"], file["visible"] = np.full((PEOPLE, 16, 2), 90.0), np.ones((PEOPLE, 16))
        file["normalize"] = np.full(PEOPLE, 10.0)
    return tmp_path / "valid.h5"


def test_a_file_of_one_split_is_calibrated_on_those_who_are_not_scored(one_split: Path) -> None:
    found = load_crops(one_split, 64, scored=2, calibration=PEOPLE)
    scored, calibrated = ({int(crop[32, 32, 0]) for crop in crops} for crops in (found.images, found.calibration))
    assert (len(scored), len(calibrated)) == (2, 4)
    assert not scored & calibrated


def test_where_everyone_is_scored_nobody_is_left_to_calibrate_on(one_split: Path) -> None:
    with pytest.raises(FasthgError, match=r"valid\.h5: all 6 people are scored.*give a dataset with a training split"):
        load_crops(one_split, 64)
