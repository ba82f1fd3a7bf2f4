"""Which parts of a network stand low precision, and networks with weights in it.

A network that has learnt ends in small numbers that are differences of large ones: the last stack's head multiplies
activations of a few hundred to heatmaps below 1. Kept in float32, which costs a hundredth of the work, it takes the
error of the heatmaps from 6e-3 to 2e-3 in fp16 and from 4e-2 to 1.6e-2 in bf16 (a trained `small`). So every path and
artefact of less than float32 keeps the head; what else is sensitive differs from network to network.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fasthg.model import HourglassNet
from fasthg.variants import HourglassConfig


def head(config: HourglassConfig) -> tuple[str, ...]:
    """Names of what computes the final heatmaps: three modules of the last stack, and the operator between them."""
    last = f"stacks.{config.num_stacks - 1}"
    return (f"{last}.features", f"{last}.norm", f"{last}/Relu", f"{last}.score")


def tries(config: HourglassConfig, precision: str) -> list[tuple[str, ...]]:
    """What to keep in higher precision, more with each try, until the answers are good enough.

    int8            the head; also the first layer and the other heads; also the stem and the finest resolution; also
                    the last stack
    fp16, bf16      the head; the last stack
    """
    last = f"stacks.{config.num_stacks - 1}"
    if precision == "fp32":
        return [()]
    if precision != "int8":
        return [head(config), (last,)]
    stacks = range(config.num_stacks)
    heads = [f"stacks.{i}.{name}" for i in stacks for name in ("features", "score", "merge_features", "merge_score")]
    finest = [f"stacks.{i}.hourglass.up1" for i in stacks]
    return [head(config), ("stem.conv", *heads), ("stem", *heads, *finest), ("stem", *heads, *finest, last)]


class InFloat(nn.Module):
    """A module that computes in float32 whatever it is given, under autocast too."""

    def __init__(self, module: nn.Module | Tensor) -> None:
        super().__init__()
        assert isinstance(module, nn.Module)
        self.module = module.float()

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self.module(x.float())


def keep_head(model: HourglassNet) -> HourglassNet:
    """`model` itself with its head in float32."""
    last = model.stacks[-1]
    last.features, last.norm, last.score = InFloat(last.features), InFloat(last.norm), InFloat(last.score)
    return model


def lower(model: HourglassNet, dtype: torch.dtype) -> HourglassNet:
    """`model` itself with weights of `dtype`, all but its head; it takes images of `dtype` and returns float32."""
    if dtype == torch.float32:
        return model
    last = model.stacks[-1]
    exact = (last.features, last.norm, last.score)
    last.features = last.norm = last.score = nn.Identity()
    model.to(dtype)
    last.features, last.norm, last.score = exact
    return keep_head(model)
