"""Which cells a sweep has, and which of them cannot or need not run."""

from __future__ import annotations

from collections.abc import Sequence

from bench.measure.record import Cell
from bench.sweep.loaders import LOADERS, loader_why_not
from fasthg.errors import FasthgError
from fasthg.network.flops import count_flops
from fasthg.network.variants import get_config
from fasthg.runtimes.paths import PATHS, parse_path

MODES = ("infer", "train", "loader")
NO_VARIANT = "-"  # a loader feeds any network
#: Beside every path in its default precision.
EXTRA_PATHS = ("fused:int12", "fused:bf16", "fused:bf16+int12", "fused:int8+int12", "openvino:bf16")
FULL_EXTRA_PATHS = ("compile:bf16", "openvino:int8", "onnxruntime:int8")
#: Batch sizes where none are asked for: latency at one and throughput at eight on a CPU, the study's 20 in training on
#: a GPU. The first is measured for all networks and paths before any other.
BATCH_SIZES: dict[str, dict[str, tuple[int, ...]]] = {
    "cpu": {"infer": (1, 8), "train": (1,), "loader": (16,)},
    "cuda": {"infer": (1, 64), "train": (20,), "loader": (20,)},
}
COST = {"infer": 1, "train": 3}  # of a batch, in forward passes
ONLY_FULL = "only with --full or --paths compile: compiling deep networks and backward passes takes minutes"
COMPILED_STACKS = 2  # of the deepest network that a sweep without --full compiles
PLAIN = ("eager", "channels_last", "amp")  # PyTorch as it is: nothing to convert
COMPILED = ("compile", "tensorrt", "torch_tensorrt")  # what takes too long to start for reduced networks too


def default_paths(full: bool) -> list[str]:
    """Every path in its default precision, and the further precisions worth a column."""
    extra = EXTRA_PATHS + (FULL_EXTRA_PATHS if full else ())
    return [text for name in PATHS for text in (name, *(e for e in extra if e.startswith(f"{name}:")))]


def plan(
    variants: Sequence[str], paths: Sequence[str], modes: Sequence[str], batch_sizes: Sequence[int], device: str
) -> list[Cell]:
    """The cells in the order in which they run: stage by stage, and in each the cheapest networks first.

    Raises FasthgError for an unknown variant, path, mode or batch size.
    """
    for variant in variants:
        get_config(variant)
    for mode in modes:
        if mode not in MODES:
            raise FasthgError(f"unknown mode {mode!r}; choose one of {', '.join(MODES)}")
    for size in batch_sizes:
        if size < 1:
            raise FasthgError(f"batch size is {size}; give at least 1")
    parsed = [with_precision(path, device) for path in paths]
    cells = []
    for mode in dict.fromkeys(modes):
        sizes = batch_sizes or BATCH_SIZES[device.partition(":")[0]][mode]
        if mode == "loader":
            cells += [Cell(NO_VARIANT, loader, "-", mode, size) for loader in LOADERS for size in sizes]
            continue
        able = [(name, precision) for name, precision in parsed if mode in PATHS[name].modes]
        cells += [Cell(variant, *path, mode, size) for variant in variants for path in able for size in sizes]
    first_sizes = {mode: min((c.batch_size for c in cells if c.mode == mode), default=1) for mode in MODES}
    return sorted(dict.fromkeys(cells), key=lambda cell: (stage(cell, device, first_sizes), size_of(cell)))


def stage(cell: Cell, device: str, first_sizes: dict[str, int]) -> int:
    """When a cell runs: first what every network has to have a time of, by what it costs to prepare.

    0 plain PyTorch, inference and training; 1 the other paths in their own precision; 2 in further ones; 3 loaders;
    4 further batch sizes; 5 what is compiled or calibrated.
    """
    if cell.mode == "loader":
        return 3
    if cell.path in COMPILED or cell.precision == "int8":
        return 5
    if cell.batch_size != first_sizes[cell.mode]:
        return 4
    if cell.path in PLAIN:
        return 0
    return 1 if cell.precision == PATHS[cell.path].default_precision(device) else 2


def grouped(cells: Sequence[Cell], device: str) -> list[list[Cell]]:
    """The cells of one stage, mode, variant and batch size together: their paths are timed in turns."""
    first_sizes = {mode: min((c.batch_size for c in cells if c.mode == mode), default=1) for mode in MODES}
    groups: dict[tuple[object, ...], list[Cell]] = {}
    for cell in cells:
        key = (stage(cell, device, first_sizes), cell.mode, cell.variant, cell.batch_size)
        groups.setdefault((*key, cell.path) if cell.mode == "loader" else key, []).append(cell)
    return list(groups.values())


def size_of(cell: Cell) -> tuple[int, str, int]:
    """What sorts the cells of a stage: the FLOPs of the variant, then the mode and the batch size."""
    return (0 if cell.mode == "loader" else flops(cell.variant), cell.mode, cell.batch_size)


def flops(variant: str) -> int:
    """Of one image, forward."""
    return count_flops(get_config(variant))


def with_precision(path: str, device: str) -> tuple[str, str]:
    """ "openvino:bf16" -> ("openvino", "bf16"); "openvino" -> ("openvino", its default on the device)."""
    name, precision = parse_path(path)
    return name, precision or PATHS[name].default_precision(device)


def why_not(cell: Cell, device: str) -> str:
    """Why a cell cannot run here; "" where it can."""
    if cell.mode == "loader":
        return loader_why_not(cell.path) or ""
    return PATHS[cell.path].why_not(device, cell.precision) or ""


def too_costly(cell: Cell) -> str:
    """Why a sweep that was not asked for it leaves a cell out; "" for one that it measures."""
    if cell.path == "compile" and (cell.mode == "train" or get_config(cell.variant).num_stacks > COMPILED_STACKS):
        return ONLY_FULL
    return ""
