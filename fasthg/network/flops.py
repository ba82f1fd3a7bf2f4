"""How much work a network is: its parameters and its floating-point operations."""

from __future__ import annotations

from functools import cache

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fasthg.network.model import HourglassNet
from fasthg.network.variants import INPUT_SIZE, HourglassConfig


def count_parameters(model: nn.Module) -> int:
    """Trainable parameters."""
    return sum(p.numel() for p in model.parameters())


@cache
def count_flops(config: HourglassConfig, size: int = INPUT_SIZE) -> int:
    """FLOPs of one image [3, size, size]: two for each multiply-add of the convolutions, all stacks' heads included."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        HourglassNet(config).eval().all_heatmaps(torch.empty(1, 3, size, size))
    return counter.get_total_flops()
