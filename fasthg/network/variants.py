"""Every network of the project: one frozen configuration and one table of names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from fasthg.errors import FasthgError
from fasthg.pixels.geometry import MEAN
from fasthg.pixels.skeleton import MPII, Skeleton, of_count

INPUT_SIZE = 256  # pixels, the side of a crop
STRIDE = 4  # pixels of the crop for one pixel of the heatmap


@dataclass(frozen=True)
class HourglassConfig:
    """Architecture of a stacked-hourglass network (Newell et al., ECCV 2016).

    num_stacks   hourglasses in a row, each with its own heatmaps
    num_feats    bottleneck width; the trunk has `2 * num_feats` channels
    depths       levels of each hourglass: one int for all, or one for each stack
    num_blocks   bottlenecks at each location
    num_convs    3 (1x1, 3x3, 1x1) or 4 (1x1, 3x3, 3x3, 1x1) convolutions in a bottleneck
    norm         "batch" (BatchNorm2d) or "layer" (LayerNorm over C, H, W, that is GroupNorm with one group)
    dropout      probability of dropping a whole channel after each hourglass, 0 to switch off
    skeleton     what the heatmaps of each stack are of, one for each point
    stem_feats   bottleneck widths of the stem's first two blocks; (64, 64) is princeton-vl's stem
    mean         what is subtracted from RGB in 0..1; the weights were trained with it, and it goes where they go
    input_size   side in pixels of the crops that the weights were trained on, which are also the usual ones to run

    Inputs are not divided by anything. Weights of a network that divides them by a standard deviation take it into
    their first convolution, which is exact; a mean they could not, because the zeros that pad an image stand for it.

    Raises FasthgError for a configuration that no network can have.
    """

    num_stacks: int = 8
    num_feats: int = 128
    depths: int | tuple[int, ...] = 4
    num_blocks: int = 1
    num_convs: Literal[3, 4] = 3
    norm: Literal["batch", "layer"] = "batch"
    dropout: float = 0.0
    skeleton: Skeleton = MPII
    stem_feats: tuple[int, int] = (64, 128)
    mean: tuple[float, float, float] = MEAN
    input_size: int = INPUT_SIZE

    def __post_init__(self) -> None:
        if isinstance(self.skeleton, Mapping):  # as `asdict` and JSON have it
            object.__setattr__(self, "skeleton", Skeleton.from_dict(self.skeleton))
        if not isinstance(self.skeleton, Skeleton):
            raise FasthgError(f"skeleton is {self.skeleton!r:.80}; give names, pairs and limbs of points")
        for name in ("num_stacks", "num_feats", "num_blocks"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise FasthgError(f"{name} is {value!r}; give a whole number of at least 1")
        depths = (self.depths,) * self.num_stacks if isinstance(self.depths, int) else tuple(self.depths)
        if len(depths) != self.num_stacks:
            raise FasthgError(
                f"depths has {len(depths)} entries for {self.num_stacks} stacks; give one int or {self.num_stacks}"
            )
        if not all(isinstance(depth, int) and 1 <= depth <= 6 for depth in depths):
            raise FasthgError(f"depths is {depths}; each hourglass has 1 to 6 levels")
        if self.num_convs not in (3, 4):
            raise FasthgError(f"num_convs is {self.num_convs!r}; a bottleneck has 3 or 4 convolutions")
        if self.norm not in ("batch", "layer"):
            raise FasthgError(f"norm is {self.norm!r}; give 'batch' or 'layer'")
        if not 0.0 <= self.dropout < 1.0:
            raise FasthgError(f"dropout is {self.dropout}; give a probability from 0 to below 1")
        stem = tuple(self.stem_feats)
        if len(stem) != 2 or not all(isinstance(feats, int) and feats >= 1 for feats in stem):
            raise FasthgError(f"stem_feats is {self.stem_feats!r}; give two bottleneck widths")
        mean = tuple(self.mean)
        if len(mean) != 3 or not all(isinstance(value, (int, float)) and math.isfinite(value) for value in mean):
            raise FasthgError(f"mean is {self.mean!r}; give three numbers, for R, G and B in 0..1")
        if not isinstance(self.input_size, int) or self.input_size < 1:
            raise FasthgError(f"input_size is {self.input_size!r}; give the side of the crops in pixels")
        object.__setattr__(self, "depths", depths)
        object.__setattr__(self, "mean", tuple(map(float, mean)))
        object.__setattr__(self, "stem_feats", stem)

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> HourglassConfig:
        """The configuration that `dataclasses.asdict` gave, by way of JSON or not.

        Earlier files hold `num_joints` and no skeleton; 16 are MPII's. Raises TypeError for a field that is not known.
        """
        content = dict(content)
        count = content.pop("num_joints", None)
        return HourglassConfig(**({} if count is None else {"skeleton": of_count(int(count))}) | content)

    @property
    def num_joints(self) -> int:
        """Heatmaps of each stack."""
        return len(self.skeleton)

    @property
    def architecture(self) -> HourglassConfig:
        """Itself less what weights of one architecture may differ in: dropout, skeleton, mean and side of the crops."""
        return replace(self, dropout=0.0, skeleton=MPII, mean=MEAN, input_size=INPUT_SIZE)

    @property
    def channels(self) -> int:
        """Channels of the trunk."""
        return 2 * self.num_feats

    @property
    def min_input_multiple(self) -> int:
        """Crops must have sides that are a multiple of this many pixels."""
        return STRIDE * 2 ** max(self.stack_depths)

    @property
    def stack_depths(self) -> tuple[int, ...]:
        """Levels of each hourglass, one entry for each stack."""
        assert isinstance(self.depths, tuple)
        return self.depths

    def first(self, count: int) -> HourglassConfig:
        """The first `count` stacks alone; raises FasthgError where there are fewer."""
        if not 1 <= count <= self.num_stacks:
            raise FasthgError(f"stacks is {count}; the network has {self.num_stacks}, so give 1 to {self.num_stacks}")
        return replace(self, num_stacks=count, depths=self.stack_depths[:count])


ORIGINAL = HourglassConfig()

#: The eight architectures of the study, in its order, and `small`, which ships with weights.
VARIANTS: dict[str, HourglassConfig] = {
    "original": ORIGINAL,
    "feats64": replace(ORIGINAL, num_feats=64),
    "stacks6": replace(ORIGINAL, num_stacks=6, depths=4),
    "stacks6-feats64-blocks4": replace(ORIGINAL, num_stacks=6, num_feats=64, depths=4, num_blocks=4),
    "feats64-layernorm": replace(ORIGINAL, num_feats=64, norm="layer"),
    "feats64-deepening": replace(ORIGINAL, num_feats=64, depths=(2, 2, 2, 3, 3, 3, 4, 4)),
    "feats64-shallowing": replace(ORIGINAL, num_feats=64, depths=(4, 4, 3, 3, 3, 3, 2, 2)),
    "convs4": replace(ORIGINAL, num_convs=4),
    "small": replace(ORIGINAL, num_stacks=2, num_feats=64, depths=4),
}

#: The rows of the study's tables: everything but `small`.
STUDY_VARIANTS: tuple[str, ...] = tuple(name for name in VARIANTS if name != "small")


def get_config(variant: str) -> HourglassConfig:
    """Configuration of a named variant, "original@3" for its first three stacks; raises FasthgError with the names."""
    name, count = split_stacks(variant)
    try:
        config = VARIANTS[name]
    except KeyError:
        raise FasthgError(f"unknown variant {variant!r}; choose one of {', '.join(VARIANTS)}") from None
    return config if count is None else config.first(count)


def split_stacks(variant: str) -> tuple[str, int | None]:
    """ "original@3" -> ("original", 3); "original" -> ("original", None)."""
    name, at, count = variant.partition("@")
    if at and not (count.isascii() and count.isdigit()):
        raise FasthgError(f"unknown variant {variant!r}; give NAME@K for the first K stacks")
    return name, int(count) if at else None
