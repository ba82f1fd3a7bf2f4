"""Stacked-hourglass pose networks, fast to train and to run, with the accuracy proven."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fasthg.network.load import create_model
from fasthg.network.model import HourglassNet
from fasthg.network.variants import VARIANTS, HourglassConfig
from fasthg.version import __version__

if TYPE_CHECKING:
    from fasthg.predict.predictor import Predictor
    from fasthg.runtimes.paths import prepare

__all__ = ["VARIANTS", "HourglassConfig", "HourglassNet", "Predictor", "__version__", "create_model", "prepare"]

_LAZY = {
    "prepare": "fasthg.runtimes.paths",
    "Predictor": "fasthg.predict.predictor",
}  # imported on first use: they need more libraries


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'fasthg' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
