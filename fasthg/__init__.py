"""Stacked-hourglass pose networks, fast to train and to run, with the accuracy proven."""

from fasthg.model import HourglassNet, create_model
from fasthg.variants import VARIANTS, HourglassConfig

__version__ = "0.1.0"

__all__ = ["VARIANTS", "HourglassConfig", "HourglassNet", "create_model"]
