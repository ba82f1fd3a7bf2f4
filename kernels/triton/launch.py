"""From an operator's parts to a kernel: arguments by name, the configuration, the grid, tensor maps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import triton
from fasthg.kernels.parts import Conv, Projection, Results
from fasthg.kernels.tuning import Config
from triton.tools.tensor_descriptor import TensorDescriptor


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel, kept instead of run: programs along each axis, arguments by name."""

    kernel: Any
    programs: tuple[int, ...]
    config: Config
    arguments: dict[str, Any]


_recorded: ContextVar[list[Launch] | None] = ContextVar("recorded", default=None)


@contextmanager
def record_launches() -> Iterator[list[Launch]]:
    """Keep the launches of the block in a list instead of running them."""
    launches: list[Launch] = []
    token = _recorded.set(launches)
    try:
        yield launches
    finally:
        _recorded.reset(token)


def launch(kernel: Any, programs: tuple[int, ...], config: Config, **arguments: Any) -> None:
    """Run a kernel on its arguments' device."""
    recorded = _recorded.get()
    if recorded is not None:
        recorded.append(Launch(kernel, programs, config, arguments))
        return
    tensors = [value.base if isinstance(value, TensorDescriptor) else value for value in arguments.values()]
    device = next(tensor.device for tensor in tensors if isinstance(tensor, Tensor))
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        kernel[programs](**arguments, num_warps=config.num_warps, num_stages=config.num_stages)


def tiles(count: int, size: int) -> int:
    """Programs for `count` rows in tiles of `size`."""
    return triton.cdiv(count, size)


def tensor_map(matrix: Tensor | None, rows: int, columns: int) -> TensorDescriptor | None:
    """A matrix as TMA sees it: in boxes of `rows` x `columns`."""
    if matrix is None:
        return None
    matrix = matrix.flatten(0, -2)
    return TensorDescriptor(matrix, list(matrix.shape), list(matrix.stride()), [rows, columns])


def width_of(matrix: Tensor | None) -> int:
    """Channels of a buffer; 16, which any kernel compiles with, for one that is not there."""
    return 16 if matrix is None else matrix.shape[-1]


def conv_pointers(name: str, conv: Conv | None) -> dict[str, Tensor | None]:
    """`<name>weight_ptr` and `<name>bias_ptr`."""
    return {
        f"{name}weight_ptr": None if conv is None else conv.weight,
        f"{name}bias_ptr": None if conv is None else conv.bias,
    }


def reader_pointers(name: str, reader: Projection | None) -> dict[str, Tensor | None]:
    """`<name>_affine_ptr`, `<name>_weight_ptr` and `<name>_bias_ptr`."""
    affine = None if reader is None else reader.affine
    return {f"{name}_affine_ptr": affine} | conv_pointers(f"{name}_", None if reader is None else reader.conv)


def result_pointers(out: Results) -> dict[str, Any]:
    """Everything that a kernel needs for a block's results, the widths CN and CP of its readers included."""
    t_out, t_pool = (None if reader is None else reader.t for reader in (out.next, out.pool))
    outputs = {"x_out_ptr": out.x, "t_out_ptr": t_out, "x_pool_ptr": out.pooled, "t_pool_ptr": t_pool}
    widths = {"CN": width_of(t_out), "CP": width_of(t_pool)}
    return reader_pointers("next", out.next) | reader_pointers("pool", out.pool) | outputs | widths
