"""Which parts of a network stay in higher precision where the rest computes in fp16, bf16 or int8.

A network that has learnt ends in small numbers that are differences of large ones: the last stack's head multiplies
activations of a few hundred to heatmaps below 1. Kept in float32, which costs a hundredth of the work, it takes the
error of the heatmaps from 6e-3 to 2e-3 in fp16 and from 5e-2 to 1.5e-2 in bf16 (a trained `small`). bf16 also rounds
the residual trunk at every addition; keeping the last stack's trunk in float32, its convolutions still in bf16, takes
that to 6e-3, from where neither the trunk before it nor the convolutions take it any further. So the paths and
artefacts of fp16 and bf16 keep the head in float32, those of bf16 also the last trunk, and int8 leaves out at least the
head. What else is sensitive differs from network to network.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from fasthg.network.model import HourglassNet
from fasthg.network.variants import HourglassConfig


def final_head(config: HourglassConfig) -> tuple[str, ...]:
    """Names of what computes the final heatmaps: three modules of the last stack, and the operator between them."""
    last = last_stack(config)
    return (f"{last}.features", f"{last}.norm", f"{last}/Relu", f"{last}.score")


def last_stack(config: HourglassConfig) -> str:
    """Name of the module whose trunk (additions, pooling, upsampling) stays float32 where the convolutions are bf16."""
    return f"stacks.{config.num_stacks - 1}"


def precision_attempts(config: HourglassConfig, precision: str) -> list[tuple[str, ...]]:
    """What to keep in higher precision: an entry for each attempt, in order, until the answers are good enough.

    int8            the head; also the first layer and the other heads; also the stem and the finest resolution; also
                    the last stack
    fp16, bf16      the head; the last stack
    """
    last = last_stack(config)
    if precision == "fp32":
        return [()]
    if precision != "int8":
        return [final_head(config), (last,)]
    stacks = range(config.num_stacks)
    heads = [f"stacks.{i}.{name}" for i in stacks for name in ("features", "score", "merge_features")]
    finest = [f"stacks.{i}.hourglass.up1" for i in stacks]
    return [final_head(config), ("stem.conv", *heads), ("stem", *heads, *finest), ("stem", *heads, *finest, last)]


_tf32_lock = threading.Lock()
_tf32_users = 0
_tf32_before = (False, False)


@contextlib.contextmanager
def without_tf32() -> Iterator[None]:
    """float32 on a GPU means float32 inside: PyTorch by itself rounds what convolutions read to TF32's ten bits.

    PyTorch has one switch for the process, so it goes back when the last of several threads has left.
    """
    global _tf32_users, _tf32_before
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    with _tf32_lock:
        if not _tf32_users:
            _tf32_before = convolutions.allow_tf32, products.allow_tf32
            convolutions.allow_tf32 = products.allow_tf32 = False
        _tf32_users += 1
    try:
        yield
    finally:
        with _tf32_lock:
            _tf32_users -= 1
            if not _tf32_users:
                convolutions.allow_tf32, products.allow_tf32 = _tf32_before


class InFloat(nn.Module):
    """A module that computes in float32 whatever it is given, under autocast too."""

    def __init__(self, module: nn.Module | Tensor) -> None:
        super().__init__()
        assert isinstance(module, nn.Module)
        self.module = module.float()

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self.module(x.float())


class FromType(nn.Module):
    """A module that is given its input in `dtype`, whatever it comes in."""

    def __init__(self, module: nn.Module | Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        assert isinstance(module, nn.Module)
        self.module, self.dtype = module, dtype

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x.to(self.dtype))


def keep_exact(model: HourglassNet, dtype: torch.dtype) -> HourglassNet:
    """`model` itself, to be run under autocast to `dtype`, with its head in float32, and in bf16 its last trunk.

    Additions take the wider of their two types, so a trunk that enters in float32 stays so.
    """
    last = model.stacks[-1]
    last.features, last.norm, last.score = InFloat(last.features), InFloat(last.norm), InFloat(last.score)
    if dtype == torch.bfloat16:
        last.hourglass = FromType(last.hourglass, torch.float32)
    return model


def lower(model: HourglassNet, dtype: torch.dtype) -> HourglassNet:
    """`model` itself with weights of `dtype`, all but what `keep_exact` keeps; images of `dtype` -> float32."""
    if dtype == torch.float32:
        return model
    last = model.stacks[-1]
    exact = (last.features, last.norm, last.score)
    last.features = last.norm = last.score = nn.Identity()
    model.to(dtype)
    last.features, last.norm, last.score = exact
    if dtype == torch.bfloat16:
        _lower_convolutions(last.hourglass, dtype)
        _lower_convolutions(last.blocks, dtype)
    return keep_exact(model, dtype)


def _lower_convolutions(module: nn.Module | Tensor, dtype: torch.dtype) -> None:
    """Make a module of `dtype` one that takes float32: normalisation in float32, convolutions in `dtype`."""
    assert isinstance(module, nn.Module)
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv2d):
                setattr(parent, name, FromType(child, dtype))
            elif isinstance(child, (nn.BatchNorm2d, nn.GroupNorm)):
                setattr(parent, name, InFloat(child))
