"""`python -m bench.gpu` (`make gpu`): everything that only a GPU can tell, in one go of a few minutes.

In this order: every variant in fp16 and bf16 against float64; the machine's limits; every operator of the fused network
against float64, and how near it comes to the limits; then the paths side by side, by the sweep. Everything is written
to one folder, bench/results/<device>/, as it comes. `--rehearse` does the same without a GPU: the kernels run in
Triton's interpreter, on small networks.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.table import Table

from bench.gpu.calls import Call, distinct_calls, time_call
from bench.gpu.checks import (
    check_calls,
    expected_heatmaps,
    lively,
    long_tiles,
    reduced,
    relative_error,
    run_poisoned,
    unordered,
)
from bench.measure.record import commit, versions
from bench.measure.roofline import Limits, measure_limits
from fasthg.console import make_app, note, output_console, run_app
from fasthg.errors import BackendUnavailable, ParityError
from fasthg.files import make_folder, new_folder, write_json
from fasthg.fused.net import FusedNet, fuse
from fasthg.fused.streams import InOrder
from fasthg.kernels.ops.dispatch import by_triton
from fasthg.kernels.tuning import trial
from fasthg.metrics import agreement
from fasthg.network.model import HourglassNet
from fasthg.network.variants import INPUT_SIZE, STUDY_VARIANTS, VARIANTS
from fasthg.runtimes.request import DTYPES

RESULTS = Path(__file__).parents[1] / "results"
HEATMAP_TOLERANCES = {dtype: agreement.TOLERANCES[name].heatmaps for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Plan:
    """What one go measures.

    operators   variants whose operators are checked and timed, together every operator there is
    variants    variants that are checked as a whole
    compared    variants that the paths are compared on
    minutes     for the comparison
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
    rehearsal: bool = False


GPU = Plan(
    device="cuda:0",
    size=INPUT_SIZE,
    batch_sizes=(1, 16, 64),
    dtypes=(torch.float16, torch.bfloat16),
    operators=("original", "feats64", "convs4", "feats64-layernorm"),
    variants=STUDY_VARIANTS,
    compared=("original", "feats64"),
    paths=("eager", "channels_last", "amp", "compile", "onnxruntime", "tensorrt", "torch_tensorrt", "fused"),
    minutes=5,
)
REHEARSAL = Plan(
    device="cpu",
    size=64,
    batch_sizes=(1,),
    dtypes=(torch.float16,),
    operators=("convs4", "feats64-layernorm"),
    variants=("convs4", "feats64-layernorm"),
    compared=("small",),
    paths=("eager", "fused"),
    minutes=2,
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


def machine(device: str) -> dict[str, Any]:
    """What the figures hold for: device, driver and clocks, libraries, commit."""
    facts: dict[str, Any] = {
        "device": platform.processor() or platform.machine(),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "versions": versions(),
    }
    if device.startswith("cuda"):
        facts["device"] = torch.cuda.get_device_name(device)
        fields = "name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.draw,power.limit,temperature.gpu"
        facts["nvidia_smi"] = _nvidia_smi(fields)
    return facts


def _nvidia_smi(fields: str) -> str:
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        return f"nvidia-smi: {error}"


def small_limits(device: torch.device) -> dict[str, float]:
    """The second-level cache's rate, 10^9 bytes a second, and seconds of an all but empty kernel in a CUDA graph."""
    source = torch.zeros(8 * 2**20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    cache = 2 * source.nbytes / time_call(lambda: target.copy_(source), device) / 1e9
    tiny = torch.zeros(1, device=device)
    return {"cache_gb_s": cache, "launch_s": time_call(lambda: tiny.add_(1), device)}


def measure_operators(plan: Plan, limits: Limits) -> list[dict[str, Any]]:
    """Every distinct operator call: its error in each dtype at a small batch, then its time at the largest."""
    rows = []
    for variant in plan.operators:
        for dtype in plan.dtypes:
            images = random_images(plan, 2)
            for call, error in check_calls(network(plan, variant, images, dtype)[1], images):
                row = _row(call, variant, dtype, 2)
                rows.append(row | {"error": error, "correct": error <= call.tolerance})
        images, dtype = random_images(plan, plan.batch_sizes[-1]), plan.dtypes[0]
        _, fused = network(plan, variant, images, dtype)
        fused(images)
        for call in distinct_calls(fused, tuple(images.shape)):
            speed = _speed(call, dtype, limits, torch.device(plan.device))
            rows.append(_row(call, variant, dtype, len(images)) | speed)
    return rows


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


def check_variants(plan: Plan) -> list[dict[str, Any]]:
    """Final heatmaps of every variant in each dtype against float64, over poisoned memory, and its steps' order."""
    rows: list[dict[str, Any]] = []
    for variant in plan.variants:
        images = random_images(plan, 3)
        for dtype in plan.dtypes:
            model, fused = network(plan, variant, images, dtype)
            expected = expected_heatmaps(model, images)
            error = relative_error(run_poisoned(fused, images), expected)
            captured = error if plan.rehearsal else relative_error(fuse(model, images, dtype)(images), expected)
            worst, ordered = max(error, captured), not unordered(fused.steps(tuple(images.shape)))
            row = {"variant": variant, "dtype": str(dtype).removeprefix("torch."), "error": worst, "ordered": ordered}
            row["correct"] = ordered and worst <= HEATMAP_TOLERANCES[dtype]
            row["overflow"] = None if math.isfinite(worst) else fused.find_overflow(images)
            rows.append(row)
    return rows


def compare(plan: Plan, out: Path) -> None:
    """The paths side by side at each batch size, by the sweep; it goes on with one that is in the folder."""
    from bench.sweep.run import SweepRequest, sweep  # imports Triton, which a rehearsal first asks to interpret

    sweep(
        SweepRequest(
            variants=plan.compared,
            paths=plan.paths,
            modes=("infer",),
            batch_sizes=plan.batch_sizes,
            device=plan.device,
            out=out,
            resume=True,
            size=plan.size,
            minutes=plan.minutes,
        )
    )


@contextmanager
def rehearsal() -> Iterator[None]:
    """In the block the operators go to their kernels, interpreted, in few programs each."""
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported, which nothing did so far
    with by_triton(), trial(long_tiles):
        yield


def gpu(
    out: Annotated[Path | None, typer.Option(help="Folder of the results [default: bench/results/<device>].")] = None,
    rehearse: Annotated[bool, typer.Option("--rehearse", help="Do the same on the CPU, kernels interpreted.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result in that folder.")] = False,
) -> None:
    """Check and measure the fused path on this machine's GPU, next to its peers."""
    if not rehearse and not torch.cuda.is_available():
        raise BackendUnavailable("gpu: no CUDA device here; rehearse with --rehearse")
    plan, start = REHEARSAL if rehearse else GPU, time.monotonic()
    facts = machine(plan.device)
    name = "rehearsal" if rehearse else re.sub(r"[^a-z0-9]+", "-", facts["device"].lower()).strip("-")
    folder = make_folder(new_folder(out or RESULTS / name, ["gpu.json"], overwrite=overwrite))
    results: dict[str, Any] = {"machine": facts, "command": "python -m bench.gpu" + (" --rehearse" if rehearse else "")}

    def keep(section: str, content: Any) -> Any:
        results[section] = content
        write_json(folder / "gpu.json", results)
        note(f"{section}: {time.monotonic() - start:.0f} s")
        return content

    with rehearsal() if rehearse else nullcontext():
        variants = keep("variants", check_variants(plan))
        limits = measure_limits(plan.device)
        keep("limits", asdict(limits) | small_limits(torch.device(plan.device)))
        operators = keep("operators", measure_operators(plan, limits))
    compare(plan, folder)
    keep("clocks_after", "" if rehearse else _nvidia_smi("clocks.sm,clocks.mem,power.draw,temperature.gpu"))
    _report(results, operators, variants)
    wrong = [f"{row.get('operator', 'network')} of {row['variant']}" for row in operators + variants if _wrong(row)]
    if wrong:
        raise ParityError(f"gpu: wrong answers from {', '.join(dict.fromkeys(wrong))}; see {folder / 'gpu.json'}")


def _wrong(row: dict[str, Any]) -> bool:
    return row.get("correct") is False


def _report(results: dict[str, Any], operators: list[dict[str, Any]], variants: list[dict[str, Any]]) -> None:
    console = output_console()
    console.print(f"{results['machine']['device']}: {json.dumps(results['limits'])}")
    checked = Table("variant", "dtype", "relative error", "", title="Heatmaps against float64")
    for row in variants:
        checked.add_row(
            row["variant"], row["dtype"], f"{row['error']:.1e}", "ok" if row["correct"] else row["overflow"] or "WRONG"
        )
    console.print(checked)
    timed = Table("operator", "variant", "layer", "us", "TFLOP/s", "GB/s", "% of limit", title="Operators")
    for row in operators:
        if "us" in row:
            figures = (f"{row['us']:.1f}", f"{row['tflops']:.1f}", f"{row['gb_s']:.0f}", f"{100 * row['share']:.0f}")
            timed.add_row(row["operator"], row["variant"], row["layer"], *figures)
    console.print(timed)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    app = make_app()
    app.command()(gpu)
    return run_app(app, argv, prog="python -m bench.gpu")


if __name__ == "__main__":
    sys.exit(main())
