"""Render the crops that exports are checked and calibrated on, into the small file that ships with fasthg.

    python -m training.make_crops --out fasthg/data/crops.npz

The people are drawn from a seed of their own, so no training on rendered people has seen them. The file holds JPEGs of
crops as the network sees them, with joints and head sizes in crop pixels; `fasthg.data.crops` reads it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from numpy.typing import NDArray

from fasthg.console import note, run_command
from fasthg.data.crops import dataset_crops
from fasthg.data.dataset import load_dataset
from fasthg.files import atomic_path, check_new
from training.synthesize import synthesize

SEED = 777_001
QUALITY = 75  # of the JPEGs


def make_crops(
    out: Path,
    scored: int = 64,
    calibration: int = 24,
    seed: int = SEED,
    overwrite: bool = False,
) -> Path:
    """Write `calibration` crops followed by `scored` ones to the file `out`, and return it."""
    check_new(out, overwrite=overwrite)
    with tempfile.TemporaryDirectory() as folder:
        dataset = load_dataset(synthesize(folder, 0, calibration + scored, seed, progress=False), "val")
        rows = np.arange(len(dataset))
        crops, joints, head_size, _rows = dataset_crops(dataset, rows)
        labelled = dataset.people.labelled
    jpegs = [_jpeg(crop) for crop in crops]
    with atomic_path(out) as aside, aside.open("wb") as file:  # to a name without .npz NumPy would add it
        np.savez(
            file,
            jpegs=np.concatenate(jpegs),
            ends=np.cumsum([len(jpeg) for jpeg in jpegs]),
            joints=joints.astype(np.float32),
            labelled=labelled,
            head_size=head_size.astype(np.float32),
            calibration=calibration,
        )
    return out


def _jpeg(crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    _done, encoded = cv2.imencode(".jpg", cv2.cvtColor(crop, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return np.asarray(encoded, np.uint8).ravel()


def main(
    out: Annotated[Path, typer.Option(help="file to write")],
    scored: Annotated[int, typer.Option(min=1, help="crops to score")] = 64,
    calibration: Annotated[int, typer.Option(min=1, help="crops to calibrate int8 on")] = 24,
    seed: Annotated[int, typer.Option(help="another seed, other people")] = SEED,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an earlier file")] = False,
) -> None:
    """Render the crops that exports are checked on."""
    note(f"{scored + calibration} crops are in {make_crops(out, scored, calibration, seed, overwrite=overwrite)}")


if __name__ == "__main__":
    sys.exit(run_command(main, prog="python -m training.make_crops"))
