"""Images a second of every loader on photographs of MPII's usual size, and of a training step that each of them feeds.

    pytest bench/micro/test_loader.py --benchmark-only

A round is an epoch with the full augmentation. Each loader is held to the reference before it is timed.
"""

import itertools
from typing import Any

import pytest
import torch

from bench.sweep.loaders import LOADERS, loader_why_not
from fasthg.data.dataset import load_dataset
from training.distributed import join_world
from training.learner import Learner
from training.loading.augment import Augmentation
from training.loading.batches import plan_batch
from training.loading.loader import JpegSource, LoaderOptions
from training.pack import pack
from training.recipes import Recipe
from training.synthesize import synthesize

SIZE = (1280, 720)
PEOPLE = 100
BATCH_SIZE = 20 if torch.cuda.is_available() else 10
OPTIONS: dict[str, Any] = {
    "batch_size": BATCH_SIZE,
    "augmentation": Augmentation(),
    "shuffle": True,
    "num_workers": 2,
    "drop_last": True,
}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Folder of rendered people on photographs of 1280 x 720 pixels."""
    return synthesize(tmp_path_factory.mktemp("photographs"), PEOPLE, 1, seed=0, size=SIZE, progress=False)


@pytest.fixture(scope="module")
def crops(photographs, tmp_path_factory):
    """The same people, packed."""
    return pack(photographs, tmp_path_factory.mktemp("packed") / "crops.h5", ["train"], progress=False)


@pytest.fixture
def make_loader_named(photographs, crops):
    def make(name, **changes):
        if reason := loader_why_not(name):
            pytest.skip(reason)
        return LOADERS[name](photographs, crops, **OPTIONS, **changes)

    return make


def check_first_batch(loader, photographs):
    """The joints of the first batch are where the reference has them."""
    batch = next(iter(loader))
    source = JpegSource(load_dataset(photographs, "train"))
    plan = plan_batch(source, LoaderOptions(**OPTIONS), loader.epoch, batch.rows.numpy())
    torch.testing.assert_close(batch.joints, torch.from_numpy(plan.joints), rtol=0, atol=1e-4)
    assert batch.images.shape == (BATCH_SIZE, 3, 256, 256)
    assert batch.images.float().abs().max() < 1


@pytest.mark.parametrize("name", LOADERS)
def test_loader(benchmark, make_loader_named, photographs, name):
    loader = make_loader_named(name)
    check_first_batch(loader, photographs)
    epochs = itertools.count()

    def epoch():
        loader.set_epoch(next(epochs))
        for _ in loader:
            pass

    benchmark.pedantic(epoch, rounds=4, warmup_rounds=1)
    benchmark.extra_info["images_s"] = loader.num_people / benchmark.stats.stats.median


@pytest.mark.parametrize("name", ["no loader", "dataloader", "packed", "dali-packed"])
def test_training_step_fed_by(benchmark, make_loader_named, photographs, name):
    """A training step of the smallest variant with its wait for the next batch; "no loader" repeats one batch."""
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    size = 256 if device.type == "cuda" else 64  # pixels: a CPU computes so slowly that any loader keeps up at 256
    recipe = Recipe(variant="small", size=size, batch_size=BATCH_SIZE, schedule="constant")
    learner = Learner(recipe, total_steps=100, world=join_world(device))
    loader = make_loader_named("packed" if name == "no loader" else name, size=size)

    def endless():
        for epoch in itertools.count():
            loader.set_epoch(epoch)
            yield from loader

    batches = itertools.repeat(next(iter(loader))) if name == "no loader" else endless()
    benchmark.pedantic(lambda: float(learner.learn(next(batches), 0)), rounds=3, warmup_rounds=1)
    benchmark.extra_info["images_s"] = BATCH_SIZE / benchmark.stats.stats.median
