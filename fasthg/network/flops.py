"""How much work a network is: its parameters and its floating-point operations.

Counted from the weights' shapes, since running the deep variants under PyTorch's FlopCounterMode takes seconds each,
even on the meta device; the tests hold the two to each other.
"""

from __future__ import annotations

from functools import cache, lru_cache

import torch
from torch import nn

from fasthg.network.model import Hourglass, HourglassNet, Stack
from fasthg.network.variants import INPUT_SIZE, HourglassConfig


def count_parameters(config: HourglassConfig) -> int:
    """Trainable parameters."""
    return sum(p.numel() for p in _outline(config).parameters())


@cache
def count_flops(config: HourglassConfig, size: int = INPUT_SIZE) -> int:
    """FLOPs of one image [3, size, size]: two for each multiply-add of the convolutions, all stacks' heads included."""
    model = _outline(config)
    half, quarter, stem = size // 2, size // 4, model.stem
    total = _flops_per_pixel(stem.conv, stem.block1) * half**2 + _flops_per_pixel(stem.block2, stem.block3) * quarter**2
    for stack in model.stacks:
        assert isinstance(stack, Stack)
        heads = (stack.blocks, stack.features, stack.score, stack.merge_features, stack.merge_score)
        total += _flops_per_pixel(*heads) * quarter**2 + _hourglass_flops(stack.hourglass, quarter)
    return total


@lru_cache(maxsize=1)
def _outline(config: HourglassConfig) -> HourglassNet:
    """The network's shapes, without memory for its weights; kept, since a deep one has thousands of modules to make."""
    with torch.device("meta"):
        return HourglassNet(config)


def _hourglass_flops(hourglass: nn.Module, side: int) -> int:
    """FLOPs of an hourglass on [side, side], or of the blocks that are its innermost level."""
    if not isinstance(hourglass, Hourglass):
        return _flops_per_pixel(hourglass) * side**2
    inner = _flops_per_pixel(hourglass.low1, hourglass.low3) * (side // 2) ** 2
    return _flops_per_pixel(hourglass.up1) * side**2 + inner + _hourglass_flops(hourglass.low2, side // 2)


def _flops_per_pixel(*modules: nn.Module | None) -> int:
    """FLOPs of all convolutions for one pixel of their output."""
    convs = (m for module in modules if module is not None for m in module.modules() if isinstance(m, nn.Conv2d))
    return sum(2 * conv.weight.numel() for conv in convs)
