"""The fused network's operators on the CPU: flat calls of `torch.ops.fasthg.*` as steps of one compiled program.

The kernels are in `core/`; README.md says how fast they are, and why. $FASTHG_CPU_ISA (avx512, avx2, portable) forces
one instruction set where the best that the machine has would be taken.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from fasthg.kernels.layout import unpack_stem

try:
    from fasthg.kernels.cpu import _native
except ImportError:  # `fasthg.kernels.cpu.NATIVE_ERROR` says why
    _native = None  # type: ignore[assignment]

Arguments = tuple[Any, ...]
Call = tuple[str, Arguments]

_packed: Any = WeakIdKeyDictionary()  # weight -> {key: its packed form}


def runs(dtype: torch.dtype) -> bool:
    """Whether there are kernels for activations of `dtype`."""
    return _native is not None and dtype == torch.float32


class Program:
    """Operator calls in their order, compiled once for the buffers that they name; calling it runs them all.

    It runs on as many threads as PyTorch has been told to use.
    """

    def __init__(self, calls: Iterable[Call]) -> None:
        self._native = _native.Program()
        self._kept: list[Any] = []  # what the program points to
        for name, arguments in calls:
            for step in _BUILDERS[name](*arguments):
                self._native.add(step)
            self._kept.append(arguments)

    def __call__(self) -> None:
        self._native.run(torch.get_num_threads())


def operators() -> tuple[str, ...]:
    """Names of the operators of `torch.ops.fasthg` that are compiled here."""
    return tuple(name for name in _BUILDERS if hasattr(torch.ops.fasthg, name))


def _pack(weight: Tensor, key: str = "plain", make: Callable[[], Tensor] | None = None) -> Any:
    """The packed form of a weight, kept as long as the weight lives unchanged."""
    version = 0 if weight.is_inference() else weight._version
    forms = _packed.setdefault(weight, {})
    key = f"{os.environ.get('FASTHG_CPU_ISA')} {key}"
    if forms.get(key, (None,))[0] != version:
        forms[key] = (version, _native.Packed((make() if make else weight).detach().contiguous()))
    return forms[key][1]


def _step(size: tuple[int, ...]) -> Any:
    step = _native.Step(*size)
    step.block = _block(size)
    return step


def _block(size: tuple[int, ...]) -> int:
    """Tiles of a block: enough to use a weight often while it is in the cache, few enough to share out evenly."""
    batch, height, width = size
    tiles = batch * -(-height // 4) * -(-width // 4)
    return max(1, min(16, -(-tiles // 4)))


def _convolve(step: Any, t: Tensor, weight: Tensor, bias: Tensor, relu: bool = True) -> None:
    step.winograd(t, _pack(weight), bias, relu)


def _consume(step: Any, consumers: Arguments) -> None:
    """Where x goes: next_affine .. pool_bias, x_out, t_out, x_pool, t_pool."""
    next_affine, next_weight, next_bias, pool_affine, pool_weight, pool_bias, x_out, t_out, x_pool, t_pool = consumers
    if x_out is not None:
        step.out(x_out)
    if t_out is not None:
        step.next(next_affine, _pack(next_weight), next_bias, t_out)
    if x_pool is not None:
        step.max_pool(x_pool)
    if t_pool is not None:
        step.pool(pool_affine, _pack(pool_weight), pool_bias, t_pool)


def _expand(
    step: Any, weight: Tensor, bias: Tensor, x: Tensor | None, skip_weight: Tensor | None, low: Tensor | None
) -> None:
    """rows @ weight + bias + x, projected where `skip_weight` is given, + low."""
    if skip_weight is not None:
        step.residual(x, True)
        both = _pack(weight, f"over {id(skip_weight)}", lambda: torch.cat([weight, skip_weight]))
        step.expand(both, bias, False)
    else:
        step.expand(_pack(weight), bias, False)
        if x is not None:
            step.residual(x, False)
    if low is not None:
        step.low(low)


def _expand_alone(
    t: Tensor, x: Tensor, expand_weight: Tensor, expand_bias: Tensor, skip_weight: Tensor | None, low: Tensor | None,
    *rest: Any,
) -> list[Any]:  # fmt: skip
    step = _step(rest[10:])
    step.rows(t)
    _expand(step, expand_weight, expand_bias, x, skip_weight, low)
    _consume(step, rest[:10])
    return [step]


def _stem(
    images: Tensor, weight: Tensor, bias: Tensor, relu: bool, next_affine: Tensor | None, next_weight: Tensor | None,
    next_bias: Tensor | None, x_out: Tensor, t_out: Tensor | None, partials_out: Tensor | None,
) -> list[Any]:  # fmt: skip
    batch, _, height, width = images.shape
    step = _step((batch, (height + 1) // 2, (width + 1) // 2))
    step.stem(images)
    step.expand(_pack(weight, "stem", lambda: unpack_stem(weight).flatten(1).t()), bias, relu)
    _consume(step, (next_affine, next_weight, next_bias, None, None, None, x_out, t_out, None, None))
    if partials_out is not None:
        step.statistics(partials_out)
    return [step]


def _conv3x3(t: Tensor, weight: Tensor, bias: Tensor, t_out: Tensor, *size: int) -> list[Any]:
    step = _step(size)
    _convolve(step, t, weight, bias)
    step.out(t_out)
    return [step]


def _bottleneck(
    t: Tensor, x: Tensor, conv_weight: Tensor, conv_bias: Tensor, expand_weight: Tensor, expand_bias: Tensor,
    skip_weight: Tensor | None, low: Tensor | None, *rest: Any,
) -> list[Any]:  # fmt: skip
    step = _step(rest[10:])
    _convolve(step, t, conv_weight, conv_bias)
    _expand(step, expand_weight, expand_bias, x, skip_weight, low)
    _consume(step, rest[:10])
    return [step]


def _head(
    y: Tensor, features_weight: Tensor, features_bias: Tensor, score_weight: Tensor | None, score_bias: Tensor | None,
    x: Tensor | None, merge_weight: Tensor | None, merge_bias: Tensor | None, *rest: Any,
) -> list[Any]:  # fmt: skip
    consumers, heatmaps, outputs, size = rest[:6], rest[6], rest[7:11], rest[11:]
    step = _step(size)
    step.rows(y)
    step.hidden(_pack(features_weight), features_bias)
    if heatmaps is not None and score_weight is not None:
        step.score(_pack(score_weight), score_bias, heatmaps)
    if merge_weight is not None and merge_bias is not None:
        _expand(step, merge_weight, merge_bias, x, None, None)
        _consume(step, (*consumers, *outputs))
    return [step]


def _max_pool(x: Tensor, x_out: Tensor, partials_out: Tensor | None, *size: int) -> list[Any]:
    pool = _step(size)
    pool.rows(x)
    pool.max_pool(x_out)
    if partials_out is None:
        return [pool]
    batch, height, width = size
    measure = _step((batch, height // 2, width // 2))
    measure.rows(x_out)
    measure.statistics(partials_out)
    return [pool, measure]


def _finish_norm(step: Any, x_out: Tensor, partials_out: Tensor | None) -> list[Any]:
    step.out(x_out)
    if partials_out is not None:
        step.statistics(partials_out)
    return [step]


def _normalise(
    x: Tensor, partials: Tensor, affine: Tensor, eps: float, x_out: Tensor, partials_out: Tensor | None, *size: int
) -> list[Any]:
    step = _step(size)
    step.rows(x)
    step.normalise(partials, affine, eps)
    return _finish_norm(step, x_out, partials_out)


def _norm_conv1x1(
    x: Tensor, partials: Tensor | None, affine: Tensor | None, eps: float, weight: Tensor, bias: Tensor,
    skip: Tensor | None, skip_weight: Tensor | None, low: Tensor | None, x_out: Tensor, partials_out: Tensor | None,
    *size: int,
) -> list[Any]:  # fmt: skip
    step = _step(size)
    step.rows(x)
    if partials is not None:
        step.normalise(partials, affine, eps)
    _expand(step, weight, bias, skip, skip_weight, low)
    return _finish_norm(step, x_out, partials_out)


def _norm_conv3x3(
    x: Tensor, partials: Tensor, affine: Tensor, eps: float, weight: Tensor, bias: Tensor, x_out: Tensor,
    partials_out: Tensor | None, *size: int,
) -> list[Any]:  # fmt: skip
    step = _step(size)
    _convolve(step, x, weight, bias, relu=False)
    step.normalise(partials, affine, eps)
    return _finish_norm(step, x_out, partials_out)


_BUILDERS: dict[str, Callable[..., list[Any]]] = {
    "stem": _stem,
    "conv3x3": _conv3x3,
    "bottleneck": _bottleneck,
    "expand": _expand_alone,
    "head": _head,
    "max_pool": _max_pool,
    "normalise": _normalise,
    "norm_conv1x1": _norm_conv1x1,
    "norm_conv3x3": _norm_conv3x3,
}
