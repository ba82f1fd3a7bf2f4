"""Folding of batch normalisation into the convolution before it: the same network, fewer operations, inference only.

In a pre-activation bottleneck the first normalisation reads the residual trunk, which the skip also reads, so it stays;
every other one follows a convolution directly and folds. Layer normalisation depends on the input and never folds.
"""

from __future__ import annotations

import copy

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fasthg.model import Bottleneck, HourglassNet, Stack, Stem


def fold_norms(model: HourglassNet) -> HourglassNet:
    """Copy of `model` in evaluation mode, each BatchNorm2d that follows a convolution folded into it.

    The folded normalisations are `nn.Identity`, so that the module names (and `forward`) stay the same. Equal to the
    model in evaluation up to rounding (about 1e-6 relative on the heatmaps in fp32).
    """
    folded = copy.deepcopy(model).eval()
    for module in folded.modules():
        if isinstance(module, Bottleneck):
            for i, conv in enumerate(list(module.convs)[:-1]):
                module.convs[i], module.norms[i + 1] = _fold(conv, module.norms[i + 1])
        elif isinstance(module, Stem):
            module.conv, module.norm = _fold(module.conv, module.norm)
        elif isinstance(module, Stack):
            module.features, module.norm = _fold(module.features, module.norm)
    return folded


def _fold(conv: nn.Module, norm: nn.Module) -> tuple[nn.Conv2d, nn.Module]:
    """(convolution that includes `norm`, what is left of `norm`)."""
    assert isinstance(conv, nn.Conv2d)
    if not isinstance(norm, nn.BatchNorm2d):
        return conv, norm
    return fuse_conv_bn_eval(conv, norm), nn.Identity()
