"""What every test may use: real MPII material where it is at hand, tiny networks, a small rendered dataset."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

import pytest
import torch

from fasthg.network.variants import HourglassConfig
from fasthg.runtimes.pytorch import unavailable


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever shuffled them: the tests of a module that is marked `in_order` in its order, and those marked `slow`
    before the rest, so that no worker is left alone with one.
    """

    def place(item: pytest.Item) -> tuple[int, tuple[int, ...]]:
        indices = getattr(item, "callspec", None)
        return item.location[1] or 0, tuple(indices.indices.values()) if indices else ()

    places: dict[str, list[int]] = defaultdict(list)
    for index, item in enumerate(items):
        if item.get_closest_marker("in_order"):
            places[str(item.path)].append(index)
    for found in places.values():
        for index, item in zip(found, sorted((items[index] for index in found), key=place)):
            items[index] = item
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture
def needs_bf16() -> None:
    """Skips where PyTorch would only imitate bf16, which takes it up to forty times as long as fp32."""
    if reason := unavailable(torch.device("cpu"), "bf16"):
        pytest.skip(reason)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def mpii_dir() -> Path:
    """Folder with real MPII annotations, predictions and photographs; it is not part of the project."""
    return _folder("FASTHG_MPII")


@pytest.fixture(scope="session")
def lspet_dir() -> Path:
    """Folder with the photographs of LSP Extended; it is not part of the project."""
    return _folder("FASTHG_LSPET")


@pytest.fixture(scope="session")
def openfield() -> Path:
    """Folder of a real DeepLabCut project; it is not part of this project."""
    return _folder("FASTHG_OPENFIELD")


@pytest.fixture(scope="session")
def keypoints() -> Path:
    """Folder with real files in COCO's format; it is not part of this project."""
    return _folder("FASTHG_KEYPOINTS")


def _folder(variable: str) -> Path:
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip(f"{variable} is not set: the tests on this real material need its folder")
    return Path(folder)


@pytest.fixture(scope="session")
def tiny_config() -> HourglassConfig:
    """A network that runs in milliseconds; crops of 64 pixels and more."""
    return HourglassConfig(num_stacks=2, num_feats=16, depths=2)


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a rendered MPII-format dataset: 24 people to train on, 8 to validate on."""
    from training.synthesize import synthesize

    folder = tmp_path_factory.mktemp("people")
    synthesize(folder, train=24, val=8, seed=7, progress=False, workers=1)
    return folder
