"""What all cells of one sweep have in common, and where they keep what they share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fasthg.network.load import WEIGHTS_DIR
from fasthg.network.variants import split_stacks

#: Variants whose reduced network is another's: they differ in the number of stacks alone.
SAME_REDUCED = {"stacks6": "original"}
REDUCED_SIZE = 64  # pixels of the crops that the reduced networks were trained on


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
    views     crops that the reduced networks are scored on at least, several of each person where there are fewer
    seed      of fresh weights, views and the order of single crops
    """

    cache: Path
    data: Path
    weights: Path | None = None
    device: str = "cpu"
    size: int = 256
    threads: int = 1
    people: int = 32
    views: int = 512
    seed: int = 0

    def trained(self, variant: str) -> Path | None:
        """Weights of the variant at full size that have learnt something, where there are any.

        Of those that ship the ones that learnt from rendered people, whom PCKh is measured on by default.
        """
        name = split_stacks(variant)[0]
        path = self.weights / f"{name}.safetensors" if self.weights else WEIGHTS_DIR / f"{name}-rendered.safetensors"
        return path if path.is_file() else None

    def reduced(self, variant: str) -> Path | None:
        """The variant's reduced network, which ships trained; None where the variant has none."""
        name = split_stacks(variant)[0]
        path = WEIGHTS_DIR / f"reduced-{SAME_REDUCED.get(name, name)}.safetensors"
        return path if path.is_file() else None

    def shared(self, variant: str) -> Path:
        """Folder of what the variant's cells share."""
        return self.cache / variant
