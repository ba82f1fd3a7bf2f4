"""From an operator's arguments to a kernel: the configuration, the grid, tensor maps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.library import wrap_triton

import triton
from fasthg.kernels.tuning import Config, lookup
from triton.runtime.jit import JITFunction
from triton.tools.tensor_descriptor import TensorDescriptor


def resolve(config: Config | None, operator: str, channels: int, pixels: int, device: torch.device) -> Config:
    """The caller's configuration, or the table's."""
    return lookup(operator, channels, pixels, device) if config is None else config


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel, kept instead of run."""

    kernel: Any
    config: Config
    args: tuple[Any, ...]
    constants: dict[str, Any]


_recorded: ContextVar[list[Launch] | None] = ContextVar("recorded", default=None)


@contextmanager
def record_launches() -> Iterator[list[Launch]]:
    """Keep the launches of the block in a list instead of running them: what they need to be compiled without a GPU."""
    launches: list[Launch] = []
    token = _recorded.set(launches)
    try:
        yield launches
    finally:
        _recorded.reset(token)


def launch(kernel: Any, grid: tuple[int, ...], config: Config, *args: Any, **constants: Any) -> None:
    """Run a kernel on its arguments' device. torch.compile looks into it, except where it takes tensor maps."""
    recorded = _recorded.get()
    if recorded is not None:
        recorded.append(Launch(kernel, config, args, constants))
        return
    tensors = [arg.base if isinstance(arg, TensorDescriptor) else arg for arg in args]
    device = next(tensor.device for tensor in tensors if isinstance(tensor, Tensor))
    traceable = isinstance(kernel, JITFunction) and not any(isinstance(arg, TensorDescriptor) for arg in args)
    runner = wrap_triton(kernel) if traceable else kernel  # the interpreter's kernel is no JITFunction
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        runner[grid](*args, **constants, num_warps=config.num_warps, num_stages=config.num_stages)


def processors(device: torch.device) -> int:
    """Multiprocessors of a CUDA device; 1 in the interpreter, which runs programs one after another."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def tiles(count: int, size: int) -> int:
    """Programs for `count` rows in tiles of `size`."""
    return triton.cdiv(count, size)


def as_ints(config: Config) -> list[int]:
    """A configuration as an operator's argument."""
    return [int(value) for value in astuple(config)]


def from_ints(values: list[int]) -> Config:
    """The inverse of `as_ints`."""
    block_m, block_k, block_n, num_warps, num_stages, chunk_stages, tma, slab = values
    return Config(block_m, block_k, block_n, num_warps, num_stages, chunk_stages, bool(tma), bool(slab))


def tensor_map(matrix: Tensor | None, rows: int, columns: int) -> TensorDescriptor | None:
    """A matrix as TMA sees it: in boxes of `rows` x `columns`."""
    if matrix is None:
        return None
    matrix = matrix.flatten(0, -2)
    return TensorDescriptor(matrix, list(matrix.shape), list(matrix.stride()), [rows, columns])


def width_of(matrix: Tensor | None) -> int:
    """Channels of a buffer; 16, which any kernel compiles with, for one that is not there."""
    return 16 if matrix is None else matrix.shape[-1]
