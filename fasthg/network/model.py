"""The reference network: plain PyTorch, the meaning that every faster path is held to.

Stacked hourglass (Newell, Yang, Deng: "Stacked Hourglass Networks for Human Pose Estimation", ECCV 2016) in the layout
of the widely used PyTorch ports: pre-activation bottlenecks, nearest upsampling, intermediate supervision.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fasthg.errors import FasthgError
from fasthg.network.variants import HourglassConfig


def make_norm(config: HourglassConfig, channels: int) -> nn.Module:
    """The network's normalisation over [N, channels, H, W]."""
    return nn.BatchNorm2d(channels) if config.norm == "batch" else nn.GroupNorm(1, channels)


class Bottleneck(nn.Module):
    """Pre-activation residual block [N, in_channels, H, W] -> [N, out_channels, H, W].

    `norms[i]`, ReLU, `convs[i]` in turn: 1x1 to `feats`, one or two 3x3, 1x1 to `out_channels`; plus the input,
    projected by a 1x1 where the channels differ.
    """

    def __init__(self, config: HourglassConfig, in_channels: int, feats: int, out_channels: int) -> None:
        super().__init__()
        widths = [in_channels] + [feats] * (config.num_convs - 1)
        self.norms = nn.ModuleList(make_norm(config, width) for width in widths)
        self.convs = nn.ModuleList([nn.Conv2d(in_channels, feats, 1)])
        self.convs.extend(nn.Conv2d(feats, feats, 3, padding=1) for _ in range(config.num_convs - 2))
        self.convs.append(nn.Conv2d(feats, out_channels, 1))
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for norm, conv in zip(self.norms, self.convs):
            out = conv(F.relu(norm(out)))
        return out + self.skip(x)


def make_blocks(config: HourglassConfig) -> nn.Sequential:
    """`num_blocks` bottlenecks at the trunk's width: one location of an hourglass."""
    channels = config.channels
    return nn.Sequential(*(Bottleneck(config, channels, config.num_feats, channels) for _ in range(config.num_blocks)))


class Hourglass(nn.Module):
    """One hourglass of `depth` levels over [N, C, H, W]; each level has half the resolution of the one around it."""

    def __init__(self, config: HourglassConfig, depth: int) -> None:
        super().__init__()
        self.up1 = make_blocks(config)
        self.low1 = make_blocks(config)
        self.low2 = Hourglass(config, depth - 1) if depth > 1 else make_blocks(config)
        self.low3 = make_blocks(config)

    def forward(self, x: Tensor) -> Tensor:
        low = self.low3(self.low2(self.low1(F.max_pool2d(x, 2))))
        return self.up1(x) + F.interpolate(low, scale_factor=2.0, mode="nearest")


class Stem(nn.Module):
    """Image [N, 3, H, W] -> trunk [N, C, H/4, W/4]."""

    def __init__(self, config: HourglassConfig) -> None:
        super().__init__()
        first, second = config.stem_feats
        self.conv = nn.Conv2d(3, 64, 7, stride=2, padding=3)
        self.norm = make_norm(config, 64)
        self.block1 = Bottleneck(config, 64, first, 128)
        self.block2 = Bottleneck(config, 128, second, 2 * second)
        self.block3 = Bottleneck(config, 2 * second, config.num_feats, config.channels)

    def forward(self, images: Tensor) -> Tensor:
        x = self.block1(F.relu(self.norm(self.conv(images))))
        return self.block3(self.block2(F.max_pool2d(x, 2)))


class Stack(nn.Module):
    """One stack: hourglass, features, heatmaps and, but for the last, the way back into the trunk."""

    def __init__(self, config: HourglassConfig, depth: int, last: bool) -> None:
        super().__init__()
        channels, joints = config.channels, config.num_joints
        self.hourglass = Hourglass(config, depth)
        self.dropout = nn.Dropout2d(config.dropout)
        self.blocks = make_blocks(config)
        self.features = nn.Conv2d(channels, channels, 1)
        self.norm = make_norm(config, channels)
        self.score = nn.Conv2d(channels, joints, 1)
        self.merge_features = None if last else nn.Conv2d(channels, channels, 1)
        self.merge_score = None if last else nn.Conv2d(joints, channels, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Trunk [N, C, h, w] -> (next trunk, heatmaps [N, J, h, w])."""
        y = self.blocks(self.dropout(self.hourglass(x)))
        y = F.relu(self.norm(self.features(y)))
        heatmaps = self.score(y)
        if self.merge_features is not None:
            x = x + self.merge_features(y)
        if self.merge_score is not None:
            x = x + self.merge_score(heatmaps)
        return x, heatmaps


class HourglassNet(nn.Module):
    """Images [N, 3, H, W] (RGB in 0..1 less `config.mean`) -> heatmaps [N, num_stacks, num_joints, H/4, W/4].

    In evaluation only the last stack's heatmaps matter: `final` returns [N, num_joints, H/4, W/4].
    """

    def __init__(self, config: HourglassConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = Stem(config)
        last = config.num_stacks - 1
        self.stacks = nn.ModuleList(Stack(config, depth, i == last) for i, depth in enumerate(config.stack_depths))

    def all_heatmaps(self, images: Tensor) -> list[Tensor]:
        """Heatmaps [N, J, H/4, W/4] of every stack, in order."""
        x = self.stem(images)
        heatmaps = []
        for stack in self.stacks:
            x, scores = stack(x)
            heatmaps.append(scores)
        return heatmaps

    def final(self, images: Tensor) -> Tensor:
        """Heatmaps [N, J, H/4, W/4] of the last stack: what inference returns."""
        return self.all_heatmaps(images)[-1]

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack(self.all_heatmaps(images), dim=1)


def check_input(config: HourglassConfig, images: Tensor) -> None:
    """Raise FasthgError unless `images` is [N, 3, H, W] with sides that the network's levels divide."""
    multiple = config.min_input_multiple
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] % multiple or images.shape[3] % multiple:
        raise FasthgError(
            f"input has shape {tuple(images.shape)}; give [N, 3, H, W] with H and W multiples of {multiple}"
        )
