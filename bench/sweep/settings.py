"""What all cells of one sweep have in common, and where they keep what they share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fasthg.network.load import WEIGHTS_DIR
from fasthg.network.variants import split_stacks


@dataclass(frozen=True)
class Settings:
    """One sweep's configuration, sent to every cell.

    cache     folder of what cells share: networks, reference heatmaps, converted and compiled networks
    data      folder of the dataset
    weights   folder of `<variant>.safetensors`; None for those that ship, and fresh weights for the rest
    device    "cpu" or "cuda:0"
    size      side of the crops, pixels
    threads   CPU threads
    people    people of the validation split that PCKh is measured on
    views     crops that it is measured on at least, several of each person where there are fewer
    seed      of fresh weights
    infer_budget, train_budget, loader_budget    seconds of timed repeats in a cell, see
                `bench.measure.timing.enough`; a sweep that has to end gives less, see `bench.sweep.pace`
    short_training    train reduced networks of the variants without trained weights, for their PCKh parity
    """

    cache: Path
    data: Path
    weights: Path | None = None
    device: str = "cpu"
    size: int = 256
    threads: int = 1
    people: int = 64
    views: int = 128
    seed: int = 0
    infer_budget: float = 1.0
    train_budget: float = 2.0
    loader_budget: float = 2.0
    short_training: bool = True

    def budget(self, mode: str) -> float:
        """Seconds of timed repeats in a cell of a mode."""
        return {"infer": self.infer_budget, "train": self.train_budget, "loader": self.loader_budget}[mode]

    def trained(self, variant: str) -> Path | None:
        """Weights of the variant that have learnt something, where there are any."""
        folder = self.weights or WEIGHTS_DIR
        path = folder / f"{split_stacks(variant)[0]}.safetensors"
        return path if path.is_file() else None

    def shared(self, variant: str) -> Path:
        """Folder of what the variant's cells share."""
        return self.cache / variant
