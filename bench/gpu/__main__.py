"""`python -m bench.gpu` (`make gpu`): everything that only a GPU can tell, in one go of a few minutes.

In this order: every variant in fp16 and bf16 and every operator against float64; the machine's limits, and how near
each operator comes to them; whole networks beside their peers; then the paths side by side, by the sweep. Everything is
written to one folder, bench/results/<device>/, as it comes. `--rehearse` does the same without a GPU, all but the
peers, which are CUDA graphs: the kernels run in Triton's interpreter, on small networks.
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
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.table import Table

from bench.gpu.checks import long_tiles
from bench.gpu.plan import GPU, REHEARSAL, Plan, check, small_limits, time_operators, time_peers
from bench.measure.record import commit, versions
from bench.measure.roofline import measure_limits
from fasthg.console import make_app, note, output_console, run_app
from fasthg.errors import BackendUnavailable, ParityError
from fasthg.files import make_folder, new_folder, write_json
from fasthg.kernels.ops.dispatch import by_triton
from fasthg.kernels.tuning import trial

RESULTS = Path(__file__).parents[1] / "results"


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
        results[section] = _finite(content)
        write_json(folder / "gpu.json", results)
        note(f"{section}: {time.monotonic() - start:.0f} s")
        return results[section]

    with rehearsal() if rehearse else nullcontext():
        variants, operators = check(plan)
        variants, operators = keep("variants", variants), keep("operators", operators)
        limits = measure_limits(plan.device)
        keep("limits", asdict(limits) | small_limits(torch.device(plan.device)))
        operators = keep("operators", operators + time_operators(plan, limits))
    keep("peers", time_peers(plan))
    keep("clocks_after", "" if rehearse else _nvidia_smi("clocks.sm,clocks.mem,power.draw,temperature.gpu"))
    compare(plan, folder)
    _report(results, operators, variants)
    wrong = [f"{row.get('operator', 'network')} of {row['variant']}" for row in operators + variants if _wrong(row)]
    if wrong:
        raise ParityError(f"gpu: wrong answers from {', '.join(dict.fromkeys(wrong))}; see {folder / 'gpu.json'}")


def _finite(content: Any) -> Any:
    """The content with None for what is not finite, which JSON has no number for."""
    if isinstance(content, dict):
        return {name: _finite(value) for name, value in content.items()}
    if isinstance(content, list):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _wrong(row: dict[str, Any]) -> bool:
    return row.get("correct") is False


def _report(results: dict[str, Any], operators: list[dict[str, Any]], variants: list[dict[str, Any]]) -> None:
    console = output_console()
    console.print(f"{results['machine']['device']}: {json.dumps(results['limits'])}")
    checked = Table("variant", "dtype", "relative error", "", title="Heatmaps against float64")
    for row in variants:
        error = "not finite" if row["error"] is None else f"{row['error']:.1e}"
        checked.add_row(row["variant"], row["dtype"], error, "ok" if row["correct"] else row["overflow"] or "WRONG")
    console.print(checked)
    timed = Table("operator", "variant", "layer", "us", "TFLOP/s", "GB/s", "% of limit", title="Operators")
    for row in operators:
        if "us" in row:
            figures = (f"{row['us']:.1f}", f"{row['tflops']:.1f}", f"{row['gb_s']:.0f}", f"{100 * row['share']:.0f}")
            timed.add_row(row["operator"], row["variant"], row["layer"], *figures)
    console.print(timed)
    beside = Table("variant", "batch", "peer", "ms", "p10", "p90", "error", title="Whole networks, CUDA graphs")
    for row in results["peers"]:
        ms = [f"{1e-3 * row[name]:.3f}" if row[name] else "" for name in ("median_us", "p10_us", "p90_us")]
        error = row["problem"] or f"{row['error']:.1e}"
        beside.add_row(row["variant"], str(row["batch_size"]), row["peer"], *ms, error)
    console.print(beside)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    app = make_app()
    app.command()(gpu)
    return run_app(app, argv, prog="python -m bench.gpu")


if __name__ == "__main__":
    sys.exit(main())
