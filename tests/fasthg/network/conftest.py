"""Published networks as their authors write them: the peers' names, module by module, in the order of their
constructors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor, nn

from fasthg.network.model import Bottleneck, Hourglass, HourglassNet
from fasthg.network.variants import HourglassConfig

State = dict[str, Tensor]


def _randomised(config: HourglassConfig) -> HourglassNet:
    """A network whose norms do something, so that a swapped pair is seen."""
    net = HourglassNet(config).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net


def _put(state: State, name: str, module: Any) -> None:
    state.update({f"{name}.{key}": tensor for key, tensor in module.state_dict().items()})


def _pytorch_pose_names(net: HourglassNet) -> State:
    state: State = {}

    def block(name: str, ours: Any) -> None:
        for i, (norm, conv) in enumerate(zip(ours.norms, ours.convs), start=1):
            _put(state, f"{name}.bn{i}", norm)
            _put(state, f"{name}.conv{i}", conv)
        _put(state, f"{name}.downsample.0", ours.skip)

    _put(state, "conv1", net.stem.conv)
    _put(state, "bn1", net.stem.norm)
    for i, ours in enumerate((net.stem.block1, net.stem.block2, net.stem.block3), start=1):
        block(f"layer{i}.0", ours)
    for s, stack in enumerate(net.stacks):
        level: Any = stack.hourglass
        for n in reversed(range(net.config.stack_depths[s])):  # the outermost level has the highest number
            for b in range(net.config.num_blocks):
                block(f"hg.{s}.hg.{n}.0.{b}", level.up1[b])
                block(f"hg.{s}.hg.{n}.1.{b}", level.low1[b])
                block(f"hg.{s}.hg.{n}.2.{b}", level.low3[b])
                if n == 0:
                    block(f"hg.{s}.hg.{n}.3.{b}", level.low2[b])
            level = level.low2
        for b, ours in enumerate(stack.blocks):
            block(f"res.{s}.{b}", ours)
        _put(state, f"fc.{s}.0", stack.features)
        _put(state, f"fc.{s}.1", stack.norm)
        _put(state, f"score.{s}", stack.score)
        if s < net.config.num_stacks - 1:
            _put(state, f"fc_.{s}", stack.merge_features)
            _put(state, f"score_.{s}", stack.merge_score)
    return state


def _princeton_names(net: HourglassNet) -> State:
    state: State = {}

    def block(name: str, ours: Bottleneck) -> None:
        for i, (norm, conv) in enumerate(zip(ours.norms, ours.convs), start=1):
            _put(state, f"{name}.bn{i}", norm)
            _put(state, f"{name}.conv{i}.conv", conv)
        width = ours.convs[-1].out_channels  # an unused projection is there where ours has none
        _put(state, f"{name}.skip_layer.conv", ours.skip if ours.skip.state_dict() else nn.Conv2d(width, width, 1))

    def hourglass(name: str, ours: Any) -> None:
        block(f"{name}.up1", ours.up1[0])
        block(f"{name}.low1", ours.low1[0])
        if isinstance(ours.low2, Hourglass):
            hourglass(f"{name}.low2", ours.low2)
        else:
            block(f"{name}.low2", ours.low2[0])
        block(f"{name}.low3", ours.low3[0])

    _put(state, "pre.0.conv", net.stem.conv)
    _put(state, "pre.0.bn", net.stem.norm)
    for i, ours in zip((1, 3, 4), (net.stem.block1, net.stem.block2, net.stem.block3)):  # 2 is the pooling
        block(f"pre.{i}", ours)
    for s, stack in enumerate(net.stacks):
        hourglass(f"hgs.{s}.0", stack.hourglass)
        block(f"features.{s}.0", stack.blocks[0])
        _put(state, f"features.{s}.1.conv", stack.features)
        _put(state, f"features.{s}.1.bn", stack.norm)
        _put(state, f"outs.{s}.conv", stack.score)
        if s < net.config.num_stacks - 1:
            _put(state, f"merge_features.{s}.conv.conv", stack.merge_features)
            _put(state, f"merge_preds.{s}.conv.conv", stack.merge_score)
    return state


@pytest.fixture(scope="session")
def randomised() -> Callable[[HourglassConfig], HourglassNet]:
    """Makes a network whose norms do something, so that a swapped pair is seen."""
    return _randomised


@pytest.fixture(scope="session")
def pytorch_pose_names() -> Callable[[HourglassNet], State]:
    """A network's weights under the names of bearpaw/pytorch-pose and anibali/pytorch-stacked-hourglass."""
    return _pytorch_pose_names


@pytest.fixture(scope="session")
def princeton_names() -> Callable[[HourglassNet], State]:
    """A network's weights under the names of princeton-vl/pytorch_stacked_hourglass."""
    return _princeton_names
