"""The people that a run trains and validates on, checked before its first step."""

from __future__ import annotations

from typing import Any

import numpy as np

from fasthg.data.dataset import Dataset, find_people, load_dataset
from fasthg.errors import FasthgError
from fasthg.pixels.skeleton import check_same_points
from training.distributed import World
from training.loading.loader import Loader, make_loader
from training.options import TrainOptions


def load_validation(options: TrainOptions, trained_on: Dataset) -> Dataset:
    """The validation people; raises FasthgError where PCKh cannot be measured on them, or some are trained on."""
    data = options.val or options.data
    validation = load_dataset(data, "val", reading=options.reading)
    check_same_points(f"data {data}", validation.people.skeleton, trained_on.people.skeleton)
    if both := np.count_nonzero(find_people(validation, trained_on)):
        raise FasthgError(
            f"data {data}: {both} of {len(validation)} validation people are trained on too; give --val FILE with "
            "others, or --validate-every 0"
        )
    unknown = np.count_nonzero(~(validation.lengths > 0))
    if unknown and validation.protocol.everyone:
        raise FasthgError(
            f"data {data}: {unknown} of {len(validation)} validation people have no known head size; "
            "PCKh needs it: put valid.h5 beside the annotations, or give --validate-every 0"
        )
    return validation


def open_loader(options: TrainOptions, dataset: Dataset, world: World) -> Loader:
    """This rank's batches of the training people: whole steps, equally many on every rank.

    Raises FasthgError for a batch that is larger than the data or cannot be divided, and for packed crops of others.
    """
    recipe = options.recipe
    parts = world.size * recipe.accumulate
    if recipe.batch_size % parts:
        raise FasthgError(
            f"batch_size is {recipe.batch_size}; give a multiple of {parts}: {world.size} devices "
            f"times accumulate {recipe.accumulate}"
        )
    if recipe.batch_size > len(dataset):
        raise FasthgError(
            f"batch_size is {recipe.batch_size} and the data holds {len(dataset)} people; give at most as many"
        )
    loader = _make(
        options,
        dataset,
        device_id=world.device.index if world.device.type == "cuda" else None,
        size=recipe.size,
        mean=recipe.config.mean,
        batch_size=recipe.batch_size // world.size,
        augmentation=recipe.augmentation,
        seed=recipe.seed,
        shuffle=True,
        num_workers=options.num_workers,
        rank=world.rank,
        world_size=world.size,
        drop_last=True,
        skip_bad=options.skip_bad,
        channels_last=recipe.path != "eager",
        pin_memory=world.device.type == "cuda",
    )
    if Dataset(loader.people, dataset.image_dir).digest != dataset.digest:
        raise FasthgError(
            f"{options.pack} holds other people or labels than {options.data}; pack the folder again, with the same "
            "--category, --holdout and --pairs"
        )
    return loader


def _make(options: TrainOptions, dataset: Dataset, device_id: int | None, **wanted: Any) -> Loader:
    if options.dali:
        from training.loading.dali import make_dali_loader

        return make_dali_loader(options.pack or dataset, device_id=device_id, **wanted)
    if options.pack:
        from training.loading.packed import make_packed_loader

        return make_packed_loader(options.pack, **wanted)
    return make_loader(dataset, **wanted)
