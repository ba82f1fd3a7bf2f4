"""PCKh parity of variants without trained weights of full size: by their reduced networks, which ship trained.

A reduced network keeps what tells variants apart (depths, blocks, convolutions, norm) in two stacks of a quarter of
the features at 64 px; `bench.study.reduced` trains them. Its PCKh says nothing about the variant, but its heatmaps are
those of a network that has learnt something: peaks, which a path that computes too roughly moves or loses.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.measure.record import Cell
from bench.sweep.people import Found, find_in_crops, load_people, make_crops, views_of
from bench.sweep.settings import REDUCED_SIZE, Settings
from fasthg.data.crops import apart_from
from fasthg.data.dataset import Dataset
from fasthg.files import atomic_path
from fasthg.network import checkpoint
from fasthg.pixels.image import normalise
from fasthg.runtimes.paths import prepare

BATCH_SIZE = 32
CALIBRATION_IMAGES = 128  # crops that int8 is calibrated on


def make_scored_crops(settings: Settings) -> None:
    """Write the crops that reduced networks are scored on."""
    file = settings.cache / "crops.npy"
    if not file.exists():
        with atomic_path(file) as aside, open(aside, "wb") as handle:
            np.save(handle, make_crops(scored(settings), REDUCED_SIZE))


def make_reduced_reference(settings: Settings, variant: str) -> None:
    """Write down what eager fp32 finds with the variant's reduced network."""
    file = found_file(settings, variant, "eager", "fp32")
    if not file.exists():
        torch.set_num_threads(1)
        find_reduced(Cell(variant, "eager", "fp32", "infer", 1), settings).save(file)


def weights_of(settings: Settings, variant: str) -> Path:
    """The variant's reduced network, of which there is one."""
    weights = settings.reduced(variant)
    assert weights is not None
    return weights


def found_file(settings: Settings, variant: str, path: str, precision: str) -> Path:
    """Where is written down what a path finds with the variant's reduced network."""
    return settings.cache / weights_of(settings, variant).stem / f"{path}-{precision}.npz"


def find_reduced(cell: Cell, settings: Settings) -> Found:
    """What the cell's path finds with the variant's reduced network."""
    file = found_file(settings, cell.variant, cell.path, cell.precision)
    if file.exists():  # variants share networks
        return Found.load(file)
    model = checkpoint.load_model(weights_of(settings, cell.variant))
    prepared = prepare(
        model,
        cell.path,
        torch.zeros(BATCH_SIZE, 3, REDUCED_SIZE, REDUCED_SIZE),
        device=settings.device,
        precision=cell.precision,
        threads=1,  # others prepare themselves beside
        calibration=calibration(settings, model.config.mean) if cell.precision == "int8" else None,
        cache_dir=settings.cache / "converted",
    )
    found = find_in_crops(prepared, scored(settings), load_crops(settings), BATCH_SIZE, model.config.mean)
    found.save(file)
    return found


def load_reference(settings: Settings, variant: str) -> Found:
    """What `make_reduced_reference` wrote."""
    return Found.load(found_file(settings, variant, "eager", "fp32"))


def basis(settings: Settings, variant: str, reference: Found) -> str:
    """What PCKh was measured on, for people to read."""
    config, people = checkpoint.load_config(weights_of(settings, variant)), scored(settings)
    return (
        f"reduced network ({config.num_stacks} stacks, {config.num_feats} features, {REDUCED_SIZE} px), "
        f"{len(people):,} crops of people it has not seen with {int(reference.counted.sum()):,} joints, "
        f"{people.protocol}"
    )


def scored(settings: Settings) -> Dataset:
    """The people that reduced networks are scored on, several views of each where they are few."""
    dataset = load_people(settings.data, "val")
    return views_of(dataset, settings.people, settings.views, settings.seed)


def load_crops(settings: Settings) -> NDArray[np.uint8]:
    """What `make_scored_crops` wrote."""
    crops: NDArray[np.uint8] = np.load(settings.cache / "crops.npy")
    return crops


def calibration(settings: Settings, mean: tuple[float, float, float]) -> Tensor:
    """Crops of training people who are not scored."""
    dataset = load_people(settings.data, "train")
    apart = apart_from(dataset, load_people(settings.data, "val"))
    return normalise(make_crops(views_of(apart, 64, CALIBRATION_IMAGES, settings.seed), REDUCED_SIZE), mean)
