"""The fused network's operators on the CPU: flat calls of `torch.ops.fasthg.*` as steps of one compiled program.

The kernels are in `core/`; README.md says how fast they are, and why. $FASTHG_CPU_ISA (avx512, avx2, portable) forces
one instruction set where the best that the machine has would be taken.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.weak import WeakIdKeyDictionary

from fasthg.kernels.layout import unpack_stem

try:
    from fasthg.kernels.cpu import _native
except ImportError:  # `fasthg.kernels.cpu.NATIVE_ERROR` says why
    _native = None  # type: ignore[assignment]

Arguments = tuple[Any, ...]
Call = tuple[str, Arguments]

DIRECT_TILES = 1  # of 4x4 pixels, up to which a 3x3 is not done by Winograd

_packed: Any = WeakIdKeyDictionary()  # weight -> {key: its packed form}
_packed_lock = threading.Lock()


def runs(dtype: torch.dtype) -> bool:
    """Whether there are kernels for activations of `dtype`."""
    return _native is not None and dtype == torch.float32


class Program:
    """Operator calls in their order, compiled once for the buffers that they name; calling it runs them all.

    It runs on as many threads as PyTorch has been told to use.
    """

    def __init__(self, calls: Iterable[Call], precision: str = "fp32") -> None:
        self._native = _native.Program()
        self._kept = list(calls)  # what the program points to
        with ThreadPoolExecutor(max(1, torch.get_num_threads())) as pool:  # to pack weights lets go of Python's lock
            for steps in pool.map(lambda call: _BUILDERS[call[0]](PRECISIONS[precision], *call[1]), self._kept):
                for step in steps:
                    self._native.add(step)

    def __call__(self) -> None:
        self._native.run(torch.get_num_threads())


def operators() -> tuple[str, ...]:
    """Names of the operators of `torch.ops.fasthg` that are compiled here."""
    return tuple(name for name in _BUILDERS if hasattr(torch.ops.fasthg, name))


@dataclass(frozen=True)
class Packer:
    """Weights as the kernels read them: 1x1s in fp32, bf16, int12 or int8, 3x3s by Winograd in fp32 or int12.

    A packed form is kept as long as its weight lives unchanged.
    """

    conv1x1: str = "fp32"
    conv3x3: str = "fp32"

    def __call__(self, weight: Tensor) -> Any:
        """[in, out], or [9, in, out]."""
        return _packed_form(weight, self.conv1x1 if weight.ndim == 2 else self.conv3x3)

    def direct(self, weight: Tensor) -> Any:
        """[9, in, out] for a product of nine pixels side by side, rounded where 3x3s are; bytes would be too rough."""
        rounded = "int12" if self.conv1x1 == "int12" else "bf16"
        arithmetic = "fp32" if self.conv3x3 == "fp32" else rounded
        return _packed_form(weight, arithmetic, "direct", lambda: weight.flatten(0, 1))

    def stem(self, weight: Tensor) -> Any:
        """The first layer's, for windows [3, 7, 7] and a zero, in bf16 where 1x1s are halves or bytes."""
        arithmetic = "bf16" if self.conv1x1 in ("bf16", "int8") else "fp32"
        return _packed_form(weight, arithmetic, "stem", lambda: pad(unpack_stem(weight).flatten(1).t(), (0, 0, 0, 1)))

    def over(self, weight: Tensor, skip_weight: Tensor) -> Any:
        """Two weights of one sum, for inputs side by side."""
        make = lambda: torch.cat([weight, skip_weight])  # noqa: E731
        rounded = "bf16" if self.conv1x1 == "int8" else self.conv1x1  # what lies side by side has no range in common
        return _packed_form(weight, rounded, f"over {id(skip_weight)}", make)


#: What is rounded to what, by precision. The last head is fp32 in all of them; so are the buffers.
PRECISIONS = {
    "fp32": Packer(),
    "int12": Packer("int12", "int12"),
    "bf16": Packer("bf16"),
    "bf16+int12": Packer("bf16", "int12"),
    "int8+int12": Packer("int8", "int12"),
}


def unavailable(precision: str) -> str | None:
    """Why this machine has no kernels for `precision`; None where it has."""
    if _native is None:
        return "the compiled kernels are not built; pip install ."
    try:
        known = _native.arithmetics()
    except ValueError as error:  # FASTHG_CPU_ISA names none of this machine's
        return str(error)
    for arithmetic in (PRECISIONS[precision].conv1x1, PRECISIONS[precision].conv3x3):
        if arithmetic not in known:
            missing = "AVX2" if arithmetic == "int12" else "AVX-512 BF16 and VNNI"
            instead = "fp32 or int12" if "int12" in known else "fp32"
            return f"this CPU has no {missing} (or FASTHG_CPU_ISA hides it); use {instead}"
    return None


def _packed_form(
    weight: Tensor, arithmetic: str = "fp32", name: str = "", make: Callable[[], Tensor] | None = None
) -> Any:
    version = 0 if weight.is_inference() else weight._version
    with _packed_lock:
        forms = _packed.setdefault(weight, {})
    key = (os.environ.get("FASTHG_CPU_ISA"), arithmetic, name)
    if forms.get(key, (None,))[0] != version:
        forms[key] = (version, _native.Packed((make() if make else weight).detach().contiguous(), arithmetic))
    return forms[key][1]


def _step(size: tuple[int, ...]) -> Any:
    step = _native.Step(*size)
    step.block = _block(size)
    return step


def _tiles(size: tuple[int, ...]) -> int:
    batch, height, width = size
    return batch * -(-height // 4) * -(-width // 4)


def _block(size: tuple[int, ...]) -> int:
    """Tiles of a block: enough to use a weight often while it is in the cache, few enough to share out evenly.

    An image alone has few at its small levels, where every share reads all weights: no more shares than threads.
    """
    shares = max(2, min(4, torch.get_num_threads())) if size[0] == 1 else 4
    return max(1, min(16, -(-_tiles(size) // shares)))


def _convolves_directly(size: tuple[int, ...]) -> bool:
    """Whether a 3x3 has so few pixels that to read weights takes longer than to multiply: Winograd's are four times as
    many.
    """
    return _tiles(size) <= DIRECT_TILES


def _convolve(
    pack: Packer, step: Any, size: tuple[int, ...], t: Tensor, weight: Tensor, bias: Tensor, last: bool = False
) -> None:
    """ReLU of a 3x3 convolution of t; `last`: nothing else is multiplied in the step."""
    if not _convolves_directly(size):
        step.winograd(t, pack(weight), bias, True)
    elif last:
        step.taps(t)
        step.expand(pack.direct(weight), bias, True)
    else:
        step.taps(t)
        step.hidden(pack.direct(weight), bias)


def _consume(pack: Packer, step: Any, consumers: Arguments) -> None:
    """Where x goes: next_affine .. pool_bias, x_out, t_out, x_pool, t_pool."""
    next_affine, next_weight, next_bias, pool_affine, pool_weight, pool_bias, x_out, t_out, x_pool, t_pool = consumers
    if x_out is not None:
        step.out(x_out)
    if t_out is not None:
        step.next(next_affine, pack(next_weight), next_bias, t_out)
    if x_pool is not None:
        step.max_pool(x_pool)
    if t_pool is not None:
        step.pool(pool_affine, pack(pool_weight), pool_bias, t_pool)


def _expand(
    pack: Packer,
    step: Any,
    weight: Tensor,
    bias: Tensor,
    x: Tensor | None,
    skip_weight: Tensor | None,
    low: Tensor | None,
) -> None:
    """rows @ weight + bias + x, projected where `skip_weight` is given, + low."""
    if skip_weight is not None:
        step.residual(x, True)
        step.expand(pack.over(weight, skip_weight), bias, False)
    else:
        step.expand(pack(weight), bias, False)
        if x is not None:
            step.residual(x, False)
    if low is not None:
        step.low(low)


def _expand_alone(
    pack: Packer, t: Tensor, x: Tensor, expand_weight: Tensor, expand_bias: Tensor, skip_weight: Tensor | None,
    low: Tensor | None, *rest: Any,
) -> list[Any]:  # fmt: skip
    step = _step(rest[10:])
    step.rows(t)
    _expand(pack, step, expand_weight, expand_bias, x, skip_weight, low)
    _consume(pack, step, rest[:10])
    return [step]


def _stem(
    pack: Packer, images: Tensor, weight: Tensor, bias: Tensor, relu: bool, next_affine: Tensor | None,
    next_weight: Tensor | None, next_bias: Tensor | None, x_out: Tensor, t_out: Tensor | None,
    partials_out: Tensor | None,
) -> list[Any]:  # fmt: skip
    batch, _, height, width = images.shape
    step = _step((batch, (height + 1) // 2, (width + 1) // 2))
    step.stem(images)
    step.expand(pack.stem(weight), bias, relu)
    _consume(pack, step, (next_affine, next_weight, next_bias, None, None, None, x_out, t_out, None, None))
    if partials_out is not None:
        step.statistics(partials_out)
    return [step]


def _conv3x3(pack: Packer, t: Tensor, weight: Tensor, bias: Tensor, t_out: Tensor, *size: int) -> list[Any]:
    step = _step(size)
    _convolve(pack, step, size, t, weight, bias, last=True)
    step.out(t_out)
    return [step]


def _bottleneck(
    pack: Packer, t: Tensor, x: Tensor, conv_weight: Tensor, conv_bias: Tensor, expand_weight: Tensor,
    expand_bias: Tensor, skip_weight: Tensor | None, low: Tensor | None, *rest: Any,
) -> list[Any]:  # fmt: skip
    size = rest[10:]
    step = _step(size)
    _convolve(pack, step, size, t, conv_weight, conv_bias)
    _expand(pack, step, expand_weight, expand_bias, x, skip_weight, low)
    _consume(pack, step, rest[:10])
    return [step]


def _head(
    pack: Packer, y: Tensor, features_weight: Tensor, features_bias: Tensor, score_weight: Tensor | None,
    score_bias: Tensor | None, x: Tensor | None, merge_weight: Tensor | None, merge_bias: Tensor | None, *rest: Any,
) -> list[Any]:  # fmt: skip
    consumers, heatmaps, outputs, size = rest[:6], rest[6], rest[7:11], rest[11:]
    step = _step(size)
    step.rows(y)
    if heatmaps is not None and score_weight is not None:
        pack = PRECISIONS["fp32"]  # small numbers that are differences of large ones: see fasthg.network.precision
    step.hidden(pack(features_weight), features_bias)
    if heatmaps is not None and score_weight is not None:
        step.score(pack(score_weight), score_bias, heatmaps)
    if merge_weight is not None and merge_bias is not None:
        _expand(pack, step, merge_weight, merge_bias, x, None, None)
        _consume(pack, step, (*consumers, *outputs))
    return [step]


def _max_pool(pack: Packer, x: Tensor, x_out: Tensor, partials_out: Tensor | None, *size: int) -> list[Any]:
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
    pack: Packer,
    x: Tensor,
    partials: Tensor,
    affine: Tensor,
    eps: float,
    x_out: Tensor,
    partials_out: Tensor | None,
    *size: int,
) -> list[Any]:  # fmt: skip
    step = _step(size)
    step.rows(x)
    step.normalise(partials, affine, eps)
    return _finish_norm(step, x_out, partials_out)


def _norm_conv1x1(
    pack: Packer, x: Tensor, partials: Tensor | None, affine: Tensor | None, eps: float, weight: Tensor, bias: Tensor,
    skip: Tensor | None, skip_weight: Tensor | None, low: Tensor | None, x_out: Tensor, partials_out: Tensor | None,
    *size: int,
) -> list[Any]:  # fmt: skip
    step = _step(size)
    step.rows(x)
    if partials is not None:
        step.normalise(partials, affine, eps)
    _expand(pack, step, weight, bias, skip, skip_weight, low)
    return _finish_norm(step, x_out, partials_out)


def _norm_conv3x3(
    pack: Packer, x: Tensor, partials: Tensor, affine: Tensor, eps: float, weight: Tensor, bias: Tensor, x_out: Tensor,
    partials_out: Tensor | None, *size: int,
) -> list[Any]:  # fmt: skip
    step = _step(size)
    if _convolves_directly(size):
        step.taps(x)
        step.normalise(partials, affine, eps)
        step.expand(pack.direct(weight), bias, False)
    else:
        step.winograd(x, pack(weight), bias, False)
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
