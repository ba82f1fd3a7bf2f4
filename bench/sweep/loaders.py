"""The loaders that mode "loader" compares, all with the full augmentation over the same photographs."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.sweep.people import load_people
from training.loading.loader import JpegSource, Loader, LoaderOptions, ThreadLoader, make_loader

PACKED_FILE = "crops.h5"


def _dataloader(data: Path, _packed: Path, **options: Any) -> Loader:
    return make_loader(load_people(data, "train"), **options)


def _threads(data: Path, _packed: Path, **options: Any) -> Loader:
    return ThreadLoader(JpegSource(load_people(data, "train")), LoaderOptions(**options))


def _packed(_data: Path, packed: Path, **options: Any) -> Loader:
    from training.loading.packed import make_packed_loader

    return make_packed_loader(packed, **options)


def _dali(data: Path, _packed: Path, device_id: int | None = None, **options: Any) -> Loader:
    from training.loading.dali import make_dali_loader

    return make_dali_loader(load_people(data, "train"), device_id=device_id, **options)


def _dali_packed(_data: Path, packed: Path, device_id: int | None = None, **options: Any) -> Loader:
    from training.loading.dali import make_dali_loader

    return make_dali_loader(packed, device_id=device_id, **options)


#: Name -> function of the dataset's folder, the file of its packed crops, and the fields of `LoaderOptions`.
LOADERS: dict[str, Callable[..., Loader]] = {
    "dataloader": _dataloader,  # the reference: worker processes decode JPEGs with OpenCV
    "threads": _threads,  # the same in threads
    "packed": _packed,
    "dali": _dali,
    "dali-packed": _dali_packed,
    "dali-gpu": partial(_dali, device_id=0),
    "dali-gpu-packed": partial(_dali_packed, device_id=0),
}


def loader_why_not(name: str) -> str | None:
    """Why a loader cannot run here; None where it can."""
    if name.startswith("dali") and not _installed("nvidia.dali"):
        return f"{name}: nvidia.dali is not installed; pip install 'fasthg[dali]'"
    if name.startswith("dali-gpu") and not torch.cuda.is_available():
        return f"{name}: no CUDA device that this PyTorch ({torch.__version__}) can use"
    return None


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is absent
        return False
