"""Folding for inference: the same network with fewer operations.

Batch normalisation goes into the convolution before it. In a pre-activation bottleneck the first normalisation reads
the residual trunk, which the skip also reads, so it stays; every other one follows a convolution directly. Layer
normalisation depends on the input and never folds.

The two ways back into the trunk become one: merge_features(y) + merge_score(score(y)) is a 1x1 convolution of y, since
no nonlinearity lies between them.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from fasthg.network.model import Bottleneck, HourglassNet, Stack, Stem

_M = TypeVar("_M", bound=nn.Module)


def fold(model: HourglassNet, dtype: torch.dtype | None = None) -> HourglassNet:
    """Copy of `model` in evaluation mode with every BatchNorm2d that follows a convolution, and every stack's
    `merge_score`, folded into the convolution beside it.

    The folded normalisations are `nn.Identity`, the folded `merge_score` None; the module names and `forward` stay the
    same. Equal to the model in evaluation up to rounding (about 1e-6 relative on the heatmaps in fp32).

    dtype  what to fold in, and the copy's; the model's own where None
    """
    folded = _copy(model, dtype).eval()
    for module in folded.modules():
        if isinstance(module, Bottleneck):
            for i, conv in enumerate(list(module.convs)[:-1]):
                module.convs[i], module.norms[i + 1] = _fold_norm(conv, module.norms[i + 1])
        elif isinstance(module, Stem):
            module.conv, module.norm = _fold_norm(module.conv, module.norm)
        elif isinstance(module, Stack):
            module.features, module.norm = _fold_norm(module.features, module.norm)
            _fold_score(module)
    return folded


def _copy(module: _M, dtype: torch.dtype | None) -> _M:
    """A module with tensors of its own, floating ones in `dtype`, without what `copy.deepcopy` looks up for each."""
    made = copy.copy(module)
    vars(made).update((name, value.copy()) for name, value in vars(module).items() if isinstance(value, dict))
    for name, parameter in module._parameters.items():
        if parameter is not None:
            made._parameters[name] = nn.Parameter(_own(parameter.detach(), dtype), parameter.requires_grad)
    for name, buffer in module._buffers.items():
        made._buffers[name] = buffer if buffer is None else _own(buffer, dtype)
    for name, child in module._modules.items():
        made._modules[name] = child if child is None else _copy(child, dtype)
    return made


def _own(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    return tensor.to(dtype if tensor.is_floating_point() else None, copy=True)


def _fold_norm(conv: nn.Module, norm: nn.Module) -> tuple[nn.Conv2d, nn.Module]:
    """(convolution that includes `norm`, what is left of `norm`)."""
    assert isinstance(conv, nn.Conv2d)
    if not isinstance(norm, nn.BatchNorm2d):
        return conv, norm
    assert norm.running_mean is not None
    assert norm.running_var is not None
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    return conv, nn.Identity()


def _fold_score(stack: Stack) -> None:
    """Give `stack.merge_features` what `merge_score` adds to the trunk: W = Wf + Ws W_score, and the biases alike."""
    features, score, back = stack.merge_features, stack.score, stack.merge_score
    if features is None or back is None:
        return
    assert features.bias is not None
    assert score.bias is not None
    assert back.bias is not None
    to_trunk = back.weight.detach().flatten(1)
    features.weight.data += (to_trunk @ score.weight.detach().flatten(1))[:, :, None, None]
    features.bias.data += back.bias.detach() + to_trunk @ score.bias.detach()
    stack.merge_score = None
