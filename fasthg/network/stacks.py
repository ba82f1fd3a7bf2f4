"""The first stacks of a network: every stack of an hourglass network is supervised, so one training holds several."""

from __future__ import annotations

import copy
from dataclasses import replace

from torch import nn

from fasthg.errors import FasthgError
from fasthg.network.model import HourglassNet
from fasthg.network.variants import HourglassConfig


def first_config(config: HourglassConfig, count: int) -> HourglassConfig:
    """The architecture of a network's first `count` stacks; raises FasthgError where it has fewer."""
    if not 1 <= count <= config.num_stacks:
        raise FasthgError(f"stacks is {count}; the network has {config.num_stacks}, give 1 to {config.num_stacks}")
    return replace(config, num_stacks=count, depths=config.stack_depths[:count])


def first_stacks(model: HourglassNet, count: int) -> HourglassNet:
    """A network of `model`'s first `count` stacks, with copies of its weights, on its device and in its mode.

    Its final heatmaps are those of stack `count`, bit for bit: what is left out, the way from there into the trunk,
    comes after them. Raises FasthgError where the network has fewer stacks.
    """
    config = first_config(model.config, count)
    if count == model.config.num_stacks:
        return model
    shortened = copy.copy(model)  # its modules are shared until the next line copies those that stay
    shortened._modules = {"stem": model.stem, "stacks": nn.ModuleList(list(model.stacks)[:count])}
    shortened = copy.deepcopy(shortened)
    shortened.config = config
    last = shortened.stacks[-1]
    last.merge_features = last.merge_score = None
    return shortened
