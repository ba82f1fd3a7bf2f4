"""The first stacks of a network: every stack of an hourglass network is supervised, so one training holds several."""

from __future__ import annotations

import copy

from torch import nn

from fasthg.network.model import HourglassNet, Stack


def first_stacks(model: HourglassNet, count: int) -> HourglassNet:
    """A network of `model`'s first `count` stacks, with copies of its weights, on its device and in its mode.

    Its final heatmaps are those of stack `count`, bit for bit: what is left out, the way from there into the trunk,
    comes after them. Raises FasthgError where the network has fewer stacks.
    """
    config = model.config.first(count)
    if count == model.config.num_stacks:
        return model
    shortened = copy.copy(model)  # its modules are shared until the next line copies those that stay
    stacks = nn.ModuleList(list(model.stacks)[:count])
    stacks.training = model.stacks.training
    shortened._modules = {"stem": model.stem, "stacks": stacks}
    shortened = copy.deepcopy(shortened)
    shortened.config = config
    last = shortened.stacks[-1]
    assert isinstance(last, Stack)
    last.merge_features = last.merge_score = None
    return shortened
