"""What one go measures, and how: checks in several processes at once, times one after the other."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import chain, product
from multiprocessing import get_context
from typing import Any

import torch

from bench.gpu.calls import Call, distinct_calls, time_call
from bench.gpu.checks import (
    check_calls,
    expected_heatmaps,
    lively,
    reduced,
    relative_error,
    run_poisoned,
    unordered,
)
from bench.measure.roofline import Limits
from fasthg.fused.net import FusedNet, fuse
from fasthg.fused.streams import InOrder
from fasthg.metrics import agreement
from fasthg.network.model import HourglassNet
from fasthg.network.variants import INPUT_SIZE, VARIANTS
from fasthg.runtimes.request import DTYPES

REPLAYS = 3  # of a captured graph, each compared with float64
HEATMAP_TOLERANCES = {dtype: agreement.TOLERANCES[name].heatmaps for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Plan:
    """What one go measures.

    operators   variants whose operators are checked and timed, together every operator there is
    variants    variants that are checked as a whole
    compared    variants that the paths are compared on
    minutes     for the comparison
    timed       variants whose operators are timed, and that are timed beside their peers
    processes   that check at once
    rehearsal   networks are reduced, and their kernels interpreted
    """

    device: str
    size: int
    batch_sizes: tuple[int, ...]
    dtypes: tuple[torch.dtype, ...]
    operators: tuple[str, ...]
    variants: tuple[str, ...]
    compared: tuple[str, ...]
    paths: tuple[str, ...]
    minutes: float
    timed: tuple[str, ...]
    processes: int = 1
    rehearsal: bool = False


GPU = Plan(
    device="cuda:0",
    size=INPUT_SIZE,
    batch_sizes=(1, 16, 64),
    dtypes=(torch.float16, torch.bfloat16),
    operators=("original", "feats64", "convs4", "feats64-layernorm"),
    variants=tuple(VARIANTS),
    compared=("small", "original", "feats64"),
    paths=("eager", "channels_last", "amp", "onnxruntime", "tensorrt", "torch_tensorrt", "fused"),
    minutes=1.5,
    timed=("original", "feats64"),
    processes=min(14, os.cpu_count() or 1),
)
REHEARSAL = Plan(
    device="cpu",
    size=64,
    batch_sizes=(1,),
    dtypes=(torch.float16,),
    operators=("convs4", "feats64-layernorm"),
    variants=("convs4", "feats64-layernorm"),
    compared=("feats64",),
    paths=("eager", "fused"),
    minutes=2,
    timed=("convs4", "feats64-layernorm"),
    rehearsal=True,
)


def network(plan: Plan, variant: str, images: torch.Tensor, dtype: torch.dtype) -> tuple[HourglassNet, FusedNet]:
    """A variant, its normalisations as after training, and the same as `fused` without a CUDA graph."""
    model = lively(reduced(variant) if plan.rehearsal else VARIANTS[variant]).to(plan.device)
    if plan.rehearsal:
        return model, FusedNet(model, images, dtype, InOrder(beside=True))
    return model, fuse(model, images, dtype, cuda_graph=False)


def random_images(plan: Plan, batch: int) -> torch.Tensor:
    """Images float32 [batch, 3, size, size] on the plan's device."""
    return torch.rand(batch, 3, plan.size, plan.size, device=plan.device) - 0.4


def small_limits(device: torch.device) -> dict[str, float]:
    """The second-level cache's rate, 10^9 bytes a second, and seconds of an all but empty kernel in a CUDA graph."""
    source = torch.zeros(8 * 2**20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    cache = 2 * source.nbytes / time_call(lambda: target.copy_(source), device) / 1e9
    tiny = torch.zeros(1, device=device)
    return {"cache_gb_s": cache, "launch_s": time_call(lambda: tiny.add_(1), device)}


def check_operators(plan: Plan, variant: str, dtype: torch.dtype) -> list[dict[str, Any]]:
    """The error of every distinct operator call of a variant, at a small batch."""
    rows, images = [], random_images(plan, 2)
    for call, error in check_calls(network(plan, variant, images, dtype)[1], images):
        row = _row(call, variant, dtype, 2)
        rows.append(row | {"error": error, "correct": error <= call.tolerance})
    return rows


def time_operators(plan: Plan, limits: Limits) -> list[dict[str, Any]]:
    """The time of every distinct operator call, at the smallest and the largest batch."""
    rows, dtype = [], plan.dtypes[0]
    for variant, batch in product(plan.timed, _extremes(plan.batch_sizes)):
        images = random_images(plan, batch)
        _, fused = network(plan, variant, images, dtype)
        fused(images)
        for call in distinct_calls(fused, tuple(images.shape)):
            speed = _speed(call, dtype, limits, torch.device(plan.device))
            rows.append(_row(call, variant, dtype, len(images)) | speed)
    return rows


def check(plan: Plan) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of the variants and of the operators: everything that can be wrong, several processes at once."""
    tasks = [(check_variant, plan, *task) for task in product(plan.variants, plan.dtypes)]
    tasks += [(check_operators, plan, *task) for task in product(plan.operators, plan.dtypes)]
    if plan.processes == 1:
        rows = [_checked(task) for task in tasks]
    else:
        with ProcessPoolExecutor(plan.processes, get_context("spawn")) as pool:
            rows = list(pool.map(_checked, tasks))
    whole = len(plan.variants) * len(plan.dtypes)
    return list(chain(*rows[:whole])), list(chain(*rows[whole:]))


def _checked(task: tuple[Callable[..., list[dict[str, Any]]], Plan, str, torch.dtype]) -> list[dict[str, Any]]:
    """A check's rows; where it ends in an error, one that says so, since the other checks are worth having."""
    function, plan, variant, dtype = task
    try:
        return function(plan, variant, dtype)
    except Exception as error:
        problem = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        name = str(dtype).removeprefix("torch.")
        return [{"variant": variant, "dtype": name, "error": math.inf, "correct": False, "overflow": problem}]


def _extremes(sizes: Sequence[int]) -> list[int]:
    return sorted({min(sizes), max(sizes)})


def _row(call: Call, variant: str, dtype: torch.dtype, batch: int) -> dict[str, Any]:
    name = str(dtype).removeprefix("torch.")
    identity = {"operator": call.operator, "variant": variant, "layer": call.layer, "dtype": name}
    return identity | {"batch_size": batch, "count": call.count}


def _speed(call: Call, dtype: torch.dtype, limits: Limits, device: torch.device) -> dict[str, float]:
    seconds = time_call(call.run, device)
    name = {torch.float16: "fp16", torch.bfloat16: "bf16"}.get(dtype, "fp32")
    tflops = limits.tflops.get(name, limits.tflops["fp32"])  # a CPU's limits have no fp16
    return {
        "us": 1e6 * seconds,
        "tflops": call.flops / seconds / 1e12,
        "gb_s": call.moved / seconds / 1e9,
        "share": call.floor(tflops, limits.copy_gb_s) / seconds,
    }


def check_variant(plan: Plan, variant: str, dtype: torch.dtype) -> list[dict[str, Any]]:
    """Final heatmaps against float64, over poisoned memory and as a graph that is replayed, and the steps' order.

    At every batch size that is measured, since each has configurations of its own, and at one between.
    """
    images = random_images(plan, 3)
    model, fused = network(plan, variant, images, dtype)
    errors = [relative_error(run_poisoned(fused, images), expected_heatmaps(model, images))]
    if not plan.rehearsal:
        captured = fuse(model, images, dtype)
        for batch in sorted({3, *plan.batch_sizes}):
            some = random_images(plan, batch)
            expected = expected_heatmaps(model, some)
            errors += [relative_error(captured(some), expected) for _ in range(REPLAYS)]
    worst, ordered = max(errors), not unordered(fused.steps(tuple(images.shape)))
    row: dict[str, Any] = {"variant": variant, "dtype": str(dtype).removeprefix("torch."), "error": worst}
    row |= {"ordered": ordered, "correct": ordered and worst <= HEATMAP_TOLERANCES[dtype]}
    return [row | {"overflow": None if math.isfinite(worst) else fused.find_overflow(images)}]


def time_peers(plan: Plan) -> list[dict[str, Any]]:
    """The networks beside their peers, at the smallest and the largest batch; not in a rehearsal, without a GPU."""
    if plan.rehearsal:
        return []
    from bench.gpu import peers  # imports Triton, which a rehearsal first asks to interpret

    cells = product(plan.timed, _extremes(plan.batch_sizes))
    return [asdict(time) for cell in cells for time in peers.compare(*cell, torch.device(plan.device))]
