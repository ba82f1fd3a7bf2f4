"""Which cells a sweep has, and which of them cannot or need not run."""

from __future__ import annotations

from collections.abc import Sequence

from bench.measure.record import Cell
from bench.sweep.loaders import LOADERS, loader_why_not
from bench.sweep.pace import COST
from fasthg.errors import FasthgError
from fasthg.network.flops import count_flops
from fasthg.network.variants import get_config
from fasthg.runtimes.paths import PATHS, parse_path

MODES = ("infer", "train", "loader")
NO_VARIANT = "-"  # a loader feeds any network
EXTRA_PATHS = ("openvino:bf16",)  # beside every path in its default precision
FULL_EXTRA_PATHS = ("compile:bf16", "openvino:int8", "onnxruntime:int8")
#: Batch sizes where none are asked for: one at a time on a CPU, the study's batch of 20 in training on a GPU.
BATCH_SIZES: dict[str, dict[str, tuple[int, ...]]] = {
    "cpu": {"infer": (1,), "train": (1,), "loader": (16,)},
    "cuda": {"infer": (1, 64), "train": (20,), "loader": (20,)},
}
ONLY_FULL = "only with --full or --paths compile: compiling deep networks and backward passes takes minutes"
COMPILED_STACKS = 2  # of the deepest network that a sweep without --full compiles
REFERENCE_KERNELS = "fused: its kernels are for CUDA; on a CPU its operators run their plain reference (--paths fused)"


def default_paths(full: bool) -> list[str]:
    """Every path in its default precision, and the further precisions worth a column."""
    extra = EXTRA_PATHS + (FULL_EXTRA_PATHS if full else ())
    return [text for name in PATHS for text in (name, *(e for e in extra if e.startswith(f"{name}:")))]


def plan(
    variants: Sequence[str], paths: Sequence[str], modes: Sequence[str], batch_sizes: Sequence[int], device: str
) -> list[Cell]:
    """The cells in the order in which they run, cheapest first: loaders, then inference and training by their FLOPs.

    What a sweep whose time runs out leaves is the training of the largest networks.

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
    return sorted(dict.fromkeys(cells), key=cost)


def cost(cell: Cell) -> int:
    """FLOPs of one of its batches; the cells of one variant, mode and batch size cost the same and stay together."""
    return 0 if cell.mode == "loader" else COST[cell.mode] * cell.batch_size * flops(cell.variant)


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


def too_costly(cell: Cell, device: str) -> str:
    """Why a sweep that was not asked for it leaves a cell out; "" for one that it measures."""
    if cell.path == "fused" and device == "cpu":
        return REFERENCE_KERNELS
    if cell.path == "compile" and (cell.mode == "train" or get_config(cell.variant).num_stacks > COMPILED_STACKS):
        return ONLY_FULL
    return ""
