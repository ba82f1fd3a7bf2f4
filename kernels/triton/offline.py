"""Compile kernels for any NVIDIA GPU without having one, and read what the compiler made of them.

Calls are recorded on CPU tensors instead of launched, so that types and constants are those of a real call.

`python -m fasthg.kernels.triton.offline [80 90 ...]` compiles what ships for these compute capabilities, or for all,
and prints what each operator takes; exit code 3 where something spills or does not fit. `make triton TRITON=3.7.1`
does so with that version of Triton, whichever is installed.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import triton
from fasthg.kernels.layout import Grid
from fasthg.kernels.parts import Conv, Norm, Projection, Residual, Results
from fasthg.kernels.triton import launchers
from fasthg.kernels.triton.launch import Launch, record_launches
from fasthg.kernels.tuning import TABLES, Config, Entry, read_table, shipped_capability
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
    constants: dict[str, Any] = {}
    aligned: dict[tuple[int, ...], list[list[Any]]] = {}
    for i, parameter in enumerate(launch.kernel.params):
        name, value = parameter.name, launch.arguments[parameter.name]
        types[name] = "constexpr"
        if value is None or parameter.is_constexpr:
            constants[name] = value
        elif isinstance(value, TensorDescriptor):
            types[name] = f"tensordesc<{_TYPES[value.base.dtype]}[{','.join(map(str, value.block_shape))}]>"
        elif isinstance(value, Tensor):
            types[name] = "*" + _TYPES[value.dtype]
            aligned[(i,)] = [["tt.divisibility", 16]]
        else:
            types[name] = "fp32" if isinstance(value, float) else "i32"
    return types, constants, aligned


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


# Calls that need the most of each operator. Weights and t are of `dtype`, the trunk of `trunk`.


class _Example:
    """Parts of a call at `channels` of an entry's operator, over a grid of 4x4."""

    def __init__(self, entry: Entry, dtype: torch.dtype, trunk: torch.dtype) -> None:
        self.channels, self.config, self.dtype, self.trunk = entry.channels, entry.config, dtype, trunk
        self.grid = Grid(1, 4, 4)
        self.half, self.partials = self.grid.half(), self.grid.empty_partials()

    def conv(self, *shape: int, dtype: torch.dtype | None = None) -> Conv:
        return Conv(torch.zeros(shape, dtype=dtype or self.dtype), torch.zeros(shape[-1]))

    def reader(self, grid: Grid, channels: int, feats: int) -> Projection:
        return Projection(torch.zeros(2, channels), self.conv(channels, feats), grid.empty(feats, self.dtype))

    def norm(self, channels: int) -> Norm:
        return Norm(self.partials, torch.zeros(2, channels), 1e-5)

    def bottleneck(self, pool: bool = False, skip: bool = False, expand: bool = False) -> None:
        feats, channels, grid, half = self.channels, 2 * self.channels, self.grid, self.half
        weight = torch.zeros(channels, channels, dtype=self.dtype) if skip else None
        low = None if pool or skip else half.empty(channels, self.trunk)
        pooled = (half.empty(channels, self.trunk), self.reader(half, channels, feats)) if pool or skip else ()
        out = Results(grid.empty(channels, self.trunk), self.reader(grid, channels, feats), *pooled)
        # Programs that share out channels run another kernel where nobody reads a block's result.
        for results in (out, Results(out.x)) if self.config.parts > 1 else (out,):
            launchers.bottleneck(
                grid.empty(feats, self.dtype), None if expand else self.conv(9, feats, feats),
                self.conv(feats, channels), Residual(grid.empty(channels, self.trunk), weight, low), results, grid,
                self.config,
            )  # fmt: skip

    def conv3x3(self) -> None:
        t, feats = self.grid.empty(self.channels, self.dtype), self.channels
        launchers.conv3x3(t, self.conv(9, feats, feats), t.clone(), self.grid, self.config)

    def head(self) -> None:
        channels, grid, half = self.channels, self.grid, self.half
        x, y = grid.empty(channels, self.trunk), grid.empty(channels, self.dtype)
        pooled, feats = half.empty(channels, self.trunk), channels // 2
        out = Results(x.clone(), self.reader(grid, channels, feats), pooled, self.reader(half, channels, feats))
        weights = self.conv(channels, channels)
        launchers.head(y, weights, None, None, x, weights, out, grid, self.config)

    def score(self) -> None:
        y, channels = self.grid.empty(self.channels, self.trunk), self.channels
        features, heatmap = (self.conv(channels, n, dtype=torch.float32) for n in (channels, 16))
        launchers.head(y, features, heatmap, torch.zeros(1, 16, 4, 4), None, None, Results(), self.grid, self.config)

    def stem(self) -> None:
        images, x = torch.zeros(1, 3, 8, 8), self.grid.empty(self.channels, self.dtype)
        conv, reader = self.conv(7, 32, self.channels), self.reader(self.grid, self.channels, self.channels)
        launchers.stem(images, conv, True, Results(x, reader), None, self.grid, self.config)
        launchers.stem(images, conv, False, Results(x), self.partials, self.grid, self.config)

    def norm_conv1x1(self) -> None:
        channels, grid = self.channels, self.grid
        x, feats = grid.empty(channels, self.trunk), channels // 2
        for source, norm, residual in (
            (grid.empty(feats, self.dtype), self.norm(feats), Residual(x, None, self.half.empty(channels, self.trunk))),
            (x, None, Residual(x, torch.zeros(channels, channels, dtype=self.dtype))),
        ):
            conv = self.conv(source.shape[1], channels)
            launchers.norm_conv1x1(source, norm, conv, residual, x.clone(), self.partials, grid, self.config)

    def norm_conv1x1_fp32(self) -> None:
        channels, grid = self.channels, self.grid
        x, conv = grid.empty(channels, torch.float32), self.conv(channels, channels, dtype=torch.float32)
        launchers.norm_conv1x1(x, self.norm(channels), conv, None, x.clone(), self.partials, grid, self.config)

    def norm_conv3x3(self) -> None:
        feats, x = self.channels, self.grid.empty(self.channels, self.dtype)
        conv = self.conv(9, feats, feats)
        launchers.norm_conv3x3(x, self.norm(feats), conv, x.clone(), self.partials, self.grid, self.config)

    def max_pool(self) -> None:
        x, pooled = (grid.empty(self.channels, self.trunk) for grid in (self.grid, self.half))
        launchers.max_pool(x, pooled, self.half.empty_partials(), self.grid, self.config)

    def normalise(self) -> None:
        x = self.grid.empty(self.channels, self.dtype)
        launchers.normalise(x, self.norm(self.channels), x.clone(), self.partials, self.grid, self.config)


def example_launches(
    entry: Entry, dtype: torch.dtype = torch.float16, trunk: torch.dtype | None = None
) -> list[Launch]:
    """Launches that need the most registers and shared memory of an entry's operator at its width."""
    example, (operator, _, kind) = _Example(entry, dtype, trunk or dtype), entry.operator.partition("_")
    with record_launches() as launches:
        if operator in ("bottleneck", "expand"):
            example.bottleneck(pool=kind == "pool", skip=kind == "skip", expand=operator == "expand")
        else:
            getattr(example, entry.operator)()
    return launches


def reports(entry: Entry, capability: int) -> list[Report]:
    """What an entry's kernels need in bf16 beside a float32 trunk, which takes the most."""
    return [compile_launch(launch, capability) for launch in example_launches(entry, torch.bfloat16, torch.float32)]


def problem(entry: Entry, capability: int) -> str | None:
    """Why an entry's kernels do not run well on a chip's generation, or do not compile for it; None if they do."""
    try:
        return next((found for report in reports(entry, capability) if (found := report.problem())), None)
    except Exception as error:  # whatever the compiler says
        return f"{type(error).__name__}: {error}".strip().splitlines()[0]


def shipped(capability: int) -> dict[tuple[str, int], list[Entry]]:
    """The table that a chip reads: by operator and channels, one entry for each distinct configuration."""
    table = read_table(TABLES / "sm_{}{}.json".format(*shipped_capability(divmod(capability, 10))))
    found: dict[tuple[str, int], dict[Config, Entry]] = {}
    for entry in table:
        found.setdefault((entry.operator, entry.channels), {})[entry.config] = entry
    return {key: list(entries.values()) for key, entries in found.items()}


_LINE = "{:>6} {:<18} {:>8} {:>14} {:>7} {:>9} {:>7} {:>9} {:>7}  {}"
_HEADS = "chip", "operator", "channels", "configurations", "kernels", "registers", "spilled", "shared kB", "columns", ""


def main(argv: Sequence[str] = ()) -> int:
    """Compile what ships for these capabilities; returns the exit code."""
    problems = 0
    print(f"Triton {triton.__version__}")
    print(_LINE.format(*_HEADS), flush=True)
    for capability in map(int, argv or map(str, SHARED_MEMORY)):
        for (operator, channels), entries in shipped(capability).items():
            found = next((text for entry in entries if (text := problem(entry, capability))), "")
            problems += bool(found)
            names = (f"sm_{capability}", operator, channels, len(entries))
            print(_LINE.format(*names, *_figures(entries, capability, found), found), flush=True)
    return 3 if problems else 0


def _figures(entries: list[Entry], capability: int, found: str) -> tuple[object, ...]:
    """How many kernels, and the most that one takes; nothing where one does not compile."""
    try:
        all_of_them = [report for entry in entries for report in reports(entry, capability)]
    except Exception:
        if found:
            return ("",) * 5
        raise
    most = [max(getattr(r, name) for r in all_of_them) for name in ("registers", "local", "shared", "tensor_memory")]
    return len(all_of_them), most[0], most[1], f"{most[2] / 1024:.1f}", most[3]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
