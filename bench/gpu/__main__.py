"""`python -m bench.gpu` (`make gpu`): everything that only a GPU can tell, in one go of a few minutes.

In this order: the machine's limits; every operator of the fused network against float64, and how near it comes to the
limits; every variant in fp16 and bf16 against float64; then the paths side by side, by the sweep. Everything is written
to one folder, bench/results/<device>/, as it comes. `--dry-run` rehearses the same steps on a CPU at a small size.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.table import Table

from bench.gpu.calls import TOLERANCES, Oracle, distinct_calls, time_call
from bench.measure.record import commit, versions
from bench.measure.roofline import Limits, measure_limits
from bench.sweep.run import SweepRequest, sweep
from fasthg.console import make_app, note, output_console, run_app
from fasthg.errors import BackendUnavailable, ParityError
from fasthg.files import make_folder, write_json
from fasthg.fused.net import fuse
from fasthg.metrics import agreement
from fasthg.network.checkpoint import create_model
from fasthg.network.model import HourglassNet
from fasthg.network.variants import INPUT_SIZE, STUDY_VARIANTS
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
    dtypes=(torch.float32,),
    operators=("small",),
    variants=("small", "feats64-layernorm"),
    compared=("small",),
    paths=("eager", "fused"),
    minutes=2,
)


def machine(device: str) -> dict[str, Any]:
    """What the figures hold for: device, driver and clocks, libraries, commit."""
    facts: dict[str, Any] = {
        "device": platform.processor() or platform.machine(),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "versions": versions(),
    }
    if device.startswith("cuda"):
        facts["device"] = torch.cuda.get_device_name()
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
    device, rows = torch.device(plan.device), []
    for variant in plan.operators:
        model = create_model(variant).eval().to(device)
        for dtype in plan.dtypes:
            for batch, timed in ((2, False), (plan.batch_sizes[-1], True)):
                if timed and dtype != plan.dtypes[0]:
                    continue
                images = torch.rand(batch, 3, plan.size, plan.size, device=device) - 0.4
                network = fuse(model, images, dtype, cuda_graph=False)
                network(images)
                for call in distinct_calls(network, tuple(images.shape)):
                    row: dict[str, Any] = {
                        "operator": call.operator,
                        "variant": variant,
                        "layer": call.layer,
                        "dtype": str(dtype).removeprefix("torch."),
                        "batch_size": batch,
                        "count": call.count,
                    }
                    if timed:
                        row |= _speed(call, dtype, limits, device)
                    else:
                        row["error"] = error = Oracle(call).relative_error()
                        row["correct"] = error <= TOLERANCES[dtype]
                    rows.append(row)
    return rows


def _speed(call: Any, dtype: torch.dtype, limits: Limits, device: torch.device) -> dict[str, float]:
    seconds = time_call(call.run, device)
    tflops = limits.tflops[{torch.float16: "fp16", torch.bfloat16: "bf16"}.get(dtype, "fp32")]
    return {
        "us": 1e6 * seconds,
        "tflops": call.flops / seconds / 1e12,
        "gb_s": call.moved / seconds / 1e9,
        "share": call.floor(tflops, limits.copy_gb_s) / seconds,
    }


def check_variants(plan: Plan) -> list[dict[str, Any]]:
    """Final heatmaps of every variant in each dtype against the same network in float64."""
    device, rows = torch.device(plan.device), []
    for variant in plan.variants:
        torch.manual_seed(0)
        model = create_model(variant).eval().to(device)
        images = torch.rand(2, 3, plan.size, plan.size, device=device) - 0.4
        with torch.inference_mode():
            expected = HourglassNet(model.config).eval().to(device).double()
            expected.load_state_dict(model.state_dict())
            reference = expected.final(images.double())
        for dtype in plan.dtypes:
            fused = fuse(model, images, dtype)
            error = float((fused(images).double() - reference).norm() / reference.norm())
            row = {"variant": variant, "dtype": str(dtype).removeprefix("torch."), "error": error}
            row["correct"] = error <= HEATMAP_TOLERANCES[dtype]
            row["overflow"] = None if error < float("inf") else fused.find_overflow(images)
            rows.append(row)
    return rows


def compare(plan: Plan, out: Path) -> None:
    """The paths side by side at each batch size, by the sweep; it goes on with one that is in the folder."""
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


def gpu(
    out: Annotated[Path | None, typer.Option(help="Folder of the results [default: bench/results/<device>].")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Rehearse on the CPU at a small size.")] = False,
) -> None:
    """Check and measure the fused path on this machine's GPU, next to its peers."""
    if not dry_run and not torch.cuda.is_available():
        raise BackendUnavailable("gpu: no CUDA device here; rehearse with --dry-run")
    plan, start = REHEARSAL if dry_run else GPU, time.monotonic()
    facts = machine(plan.device)
    name = "rehearsal" if dry_run else re.sub(r"[^a-z0-9]+", "-", facts["device"].lower()).strip("-")
    folder = make_folder(out or RESULTS / name)
    results: dict[str, Any] = {"machine": facts, "command": "python -m bench.gpu" + (" --dry-run" if dry_run else "")}

    def keep(section: str, content: Any) -> Any:
        results[section] = content
        write_json(folder / "gpu.json", results)
        note(f"{section}: {time.monotonic() - start:.0f} s")
        return content

    limits = measure_limits(plan.device)
    keep("limits", asdict(limits) | small_limits(torch.device(plan.device)))
    variants = keep("variants", check_variants(plan))
    operators = keep("operators", measure_operators(plan, limits))
    compare(plan, folder)
    keep("clocks_after", _nvidia_smi("clocks.sm,clocks.mem,power.draw,temperature.gpu") if not dry_run else "")
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
