"""Compile kernels for any NVIDIA GPU without having one, and read what the compiler made of them.

Calls are recorded on CPU tensors instead of launched, so that types and constants are those of a real call.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import triton
from fasthg.kernels.layout import Grid
from fasthg.kernels.triton.launch import Launch, record_launches
from fasthg.kernels.tuning import Config, Entry
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.tools.tensor_descriptor import TensorDescriptor

#: Bytes of shared memory that one program may take, by compute capability (CUDA C++ programming guide).
SHARED_MEMORY = {80: 163 * 1024, 86: 99 * 1024, 89: 99 * 1024, 90: 227 * 1024, 100: 227 * 1024, 120: 99 * 1024}
TENSOR_MEMORY_COLUMNS = 512  # of compute capability 10.0; more compiles, and traps when it runs
TENSOR_CORES = {
    80: "mma.sync",
    86: "mma.sync",
    89: "mma.sync",
    90: "wgmma.mma_async",
    100: "tcgen05.mma",
    120: "mma.sync",
}
_TYPES = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}


@dataclass(frozen=True)
class Report:
    """What one kernel needs on one chip."""

    capability: int
    registers: int
    local: int  # bytes of local memory a thread: registers that did not fit
    shared: int  # bytes
    tensor_memory: int  # columns
    tensor_core: bool  # the chip's own matrix instructions are present

    def problem(self) -> str | None:
        """Why it cannot or should not run on the chip's generation; None if it should."""
        shared = min(size for chip, size in SHARED_MEMORY.items() if chip // 10 == self.capability // 10)
        if self.local:
            return f"{self.local} bytes of registers spill"
        if self.shared > shared:
            return f"{self.shared} bytes of shared memory of {shared}"
        if self.tensor_memory > TENSOR_MEMORY_COLUMNS:
            return f"{self.tensor_memory} columns of tensor memory of {TENSOR_MEMORY_COLUMNS}"
        return None


def _signature(launch: Launch) -> tuple[dict[str, str], dict[str, Any], dict[tuple[int, ...], list[list[Any]]]]:
    """Types, compile-time constants and alignment of a launch's arguments, as at run time."""
    types: dict[str, str] = {}
    constants: dict[str, Any] = dict(launch.constants)
    aligned: dict[tuple[int, ...], list[list[Any]]] = {}
    for i, (name, value) in enumerate(zip(launch.kernel.arg_names, launch.args)):
        if value is None:
            constants[name] = None
        elif isinstance(value, TensorDescriptor):
            types[name] = f"tensordesc<{_TYPES[value.base.dtype]}[{','.join(map(str, value.block_shape))}]>"
        elif isinstance(value, Tensor):
            types[name] = "*" + _TYPES[value.dtype]
            aligned[(i,)] = [["tt.divisibility", 16]]
        else:
            types[name] = "fp32" if isinstance(value, float) else "i32"
    return {name: types.get(name, "constexpr") for name in launch.kernel.arg_names}, constants, aligned


def compile_launch(launch: Launch, capability: int) -> Report:
    """Compile one recorded launch for a compute capability, 90 for 9.0. Triton's own errors pass through."""
    signature, constants, aligned = _signature(launch)
    source = ASTSource(fn=launch.kernel, signature=signature, constexprs=constants, attrs=aligned)
    options = {"num_warps": launch.config.num_warps, "num_stages": launch.config.num_stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    usage = _resource_usage(compiled.asm["cubin"])
    small = launch.config.block_m < 64  # a warp group's instructions take 64 rows; below, a warp's do the work
    return Report(
        capability,
        usage["REG"],
        usage["STACK"] + usage["LOCAL"],
        compiled.metadata.shared,
        getattr(compiled.metadata, "tmem_size", None) or 0,
        TENSOR_CORES[capability] in compiled.asm["ptx"] or (small and TENSOR_CORES[80] in compiled.asm["ptx"]),
    )


def _resource_usage(cubin: bytes) -> dict[str, int]:
    """What the assembler gave one kernel: "REG", "STACK", "LOCAL" and more."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(tool), "--dump-resource-usage", file.name]
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", listing)}


# Calls that need the most of each operator


def _projection(channels: int, feats: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    return torch.zeros(2, channels), torch.zeros(channels, feats, dtype=dtype), torch.zeros(feats)


def _bottleneck(
    feats: int, config: Config, dtype: torch.dtype, grid: Grid, pool: bool = False, skip: bool = False
) -> None:
    from fasthg.kernels.triton.bottleneck import bottleneck

    channels, size = 2 * feats, grid.size
    half, (affine, weight, bias) = grid.half(), _projection(channels, feats, dtype)
    pooled = (affine, weight, bias) if pool else (None, None, None)
    bottleneck(
        grid.empty(feats, dtype), grid.empty(channels, dtype), torch.zeros(9, feats, feats, dtype=dtype),
        torch.zeros(feats), torch.zeros(feats, channels, dtype=dtype), torch.zeros(channels),
        torch.zeros(channels, channels, dtype=dtype) if skip else None, None if pool else half.empty(channels, dtype),
        affine, weight, bias, pooled[0], pooled[1], pooled[2], grid.empty(channels, dtype), grid.empty(feats, dtype),
        half.empty(channels, dtype) if pool else None, half.empty(feats, dtype) if pool else None, *size, config,
    )  # fmt: skip


def _conv3x3(feats: int, config: Config, dtype: torch.dtype, grid: Grid) -> None:
    from fasthg.kernels.triton.conv3x3 import conv3x3

    size, t = grid.size, grid.empty(feats, dtype)
    conv3x3(t, torch.zeros(9, feats, feats, dtype=dtype), torch.zeros(feats), t.clone(), *size, config)


def _whole_bottleneck(feats: int, config: Config, dtype: torch.dtype, grid: Grid) -> None:
    from fasthg.kernels.triton.whole_bottleneck import whole_bottleneck

    channels, size = 2 * feats, grid.size
    whole_bottleneck(
        grid.empty(channels, dtype), *_projection(channels, feats, dtype), torch.zeros(9, feats, feats, dtype=dtype),
        torch.zeros(feats), torch.zeros(feats, channels, dtype=dtype), torch.zeros(channels), None,
        grid.half().empty(channels, dtype), grid.empty(channels, dtype), *size, config,
    )  # fmt: skip


def _head(channels: int, config: Config, dtype: torch.dtype, grid: Grid) -> None:
    from fasthg.kernels.triton.head import head

    feats, size = channels // 2, grid.size
    x, weight, half = grid.empty(channels, dtype), torch.zeros(channels, channels, dtype=dtype), grid.half()
    head(
        x, weight, torch.zeros(channels), None, None, x, weight, torch.zeros(channels),
        *_projection(channels, feats, dtype), *_projection(channels, feats, dtype), None,
        x.clone(), grid.empty(feats, dtype), half.empty(channels, dtype), half.empty(feats, dtype), *size, config,
    )  # fmt: skip
    score = torch.zeros(channels, 16, dtype=dtype), torch.zeros(16)
    nothing = (None,) * 9
    head(
        x, weight, torch.zeros(channels), *score, *nothing, torch.zeros(size[0], 16, *size[1:]), None, None, None, None,
        *size, config,
    )  # fmt: skip


def _stem(channels: int, config: Config, dtype: torch.dtype, grid: Grid) -> None:
    from fasthg.kernels.triton.stem import stem

    images = torch.zeros(grid.batch, 3, 2 * grid.height, 2 * grid.width)
    weight = torch.zeros(7, 32, channels, dtype=dtype)
    t, partials = grid.empty(channels, dtype), grid.empty_partials()
    x = grid.empty(channels, dtype)
    stem(images, weight, torch.zeros(channels), True, *_projection(channels, channels, dtype), x, t, None, config)
    stem(images, weight, torch.zeros(channels), False, None, None, None, x, None, partials, config)


def _norm_conv1x1(channels: int, config: Config, dtype: torch.dtype, grid: Grid) -> None:
    from fasthg.kernels.triton.norm_conv import norm_conv1x1

    feats, size = channels // 2, grid.size
    partials, x = grid.empty_partials(), grid.empty(channels, dtype)
    norm_conv1x1(
        grid.empty(feats, dtype), partials, torch.zeros(2, feats), 1e-5, torch.zeros(feats, channels, dtype=dtype),
        torch.zeros(channels), x, None, grid.half().empty(channels, dtype), x.clone(), partials, *size, config,
    )  # fmt: skip
    norm_conv1x1(
        x, None, None, 1e-5, torch.zeros(channels, channels, dtype=dtype), torch.zeros(channels), x.clone(),
        torch.zeros(channels, channels, dtype=dtype), None, x.clone(), partials, *size, config,
    )  # fmt: skip


def _norm_conv3x3(feats: int, config: Config, dtype: torch.dtype, grid: Grid) -> None:
    from fasthg.kernels.triton.norm_conv import norm_conv3x3

    size = grid.size
    partials, x = grid.empty_partials(), grid.empty(feats, dtype)
    weight, affine = torch.zeros(9, feats, feats, dtype=dtype), torch.zeros(2, feats)
    norm_conv3x3(x, partials, affine, 1e-5, weight, torch.zeros(feats), x.clone(), partials, *size, config)


def _max_pool(channels: int, config: Config, dtype: torch.dtype, grid: Grid) -> None:
    from fasthg.kernels.triton.pointwise import max_pool

    size = grid.size
    max_pool(
        grid.empty(channels, dtype), grid.half().empty(channels, dtype), grid.half().empty_partials(), *size, config
    )


def _normalise(channels: int, config: Config, dtype: torch.dtype, grid: Grid) -> None:
    from fasthg.kernels.triton.pointwise import normalise

    size = grid.size
    partials, x = grid.empty_partials(), grid.empty(channels, dtype)
    normalise(x, partials, torch.zeros(2, channels), 1e-5, x.clone(), partials.clone(), *size, config)


CALLS: dict[str, Callable[[int, Config, torch.dtype, Grid], None]] = {
    "bottleneck": _bottleneck,
    "bottleneck_pool": partial(_bottleneck, pool=True),
    "bottleneck_skip": partial(_bottleneck, pool=True, skip=True),
    "conv3x3": _conv3x3,
    "whole_bottleneck": _whole_bottleneck,
    "head": _head,
    "stem": _stem,
    "norm_conv1x1": _norm_conv1x1,
    "norm_conv3x3": _norm_conv3x3,
    "max_pool": _max_pool,
    "normalise": _normalise,
}


def example_launches(
    entry: Entry, dtype: torch.dtype = torch.float16, size: tuple[int, int, int] = (1, 4, 4)
) -> list[Launch]:
    """Launches that need the most registers and shared memory of an entry's operator at its width.

    size   batch, height and width: nothing depends on them but whether the bottleneck's slab is taken
    """
    with record_launches() as launches:
        CALLS[entry.operator](entry.channels, entry.config, dtype, Grid(*size))
    return launches
