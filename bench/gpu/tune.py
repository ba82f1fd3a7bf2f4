"""`python -m bench.gpu.tune`: find each operator's best configuration on this GPU; store it in kernels/tuning/tables/.

Every distinct call of the chosen networks is improved by changing one number of its configuration at a time, as long as
that makes it quicker. A candidate that does not compile, or answers differently from float64, is out. Every later run
reads the table; nothing is searched for in a user's first call.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Annotated, Any

import torch
import typer
from rich.table import Table

from bench.gpu.calls import Call, Oracle, distinct_calls, time_call
from fasthg.console import make_app, note, output_console, progress_bar, run_app
from fasthg.errors import BackendUnavailable
from fasthg.files import atomic_path
from fasthg.fused.net import fuse
from fasthg.kernels.tuning import (
    KERNELS,
    TABLES,
    Config,
    Entry,
    Question,
    device_table_name,
    lookup,
    read_table,
    trial,
    write_table,
)
from fasthg.network.load import create_model
from fasthg.network.variants import INPUT_SIZE

#: What one number of a configuration may become.
CHOICES: dict[str, tuple[Any, ...]] = {
    "block_m": (16, 32, 64, 128, 256),
    "block_k": (32, 64, 128),
    "block_n": (16, 32, 64, 128),
    "num_warps": (4, 8),
    "num_stages": (2, 3, 4, 5),
    "chunk_stages": (1, 2, 3),
    "tma": (False, True),
    "parts": (1, 2, 4, 8),
}
WORTH = 0.98  # a candidate must take less than this share of the best time so far


@dataclass(frozen=True)
class Outcome:
    """The best configuration for one question, with seconds before and after."""

    question: Question
    config: Config
    before: float
    after: float


def neighbours(operator: str, config: Config, tensor_maps: bool) -> Iterator[Config]:
    """Configurations that differ from this one in one number that the kernel has; its buffers have room for them."""
    for name in KERNELS[operator].numbers:
        for choice in CHOICES[name]:
            candidate = replace(config, **{name: choice})
            if candidate != config and (name != "tma" or tensor_maps) and not KERNELS[operator].problem(candidate):
                yield candidate


def seconds(oracle: Oracle, config: Config, device: torch.device, tolerance: float) -> float:
    """Seconds of the call with this configuration; infinite where it does not compile or answers wrongly."""
    with trial(lambda question: config):
        try:
            if oracle.relative_error() > tolerance:
                return float("inf")
            return time_call(oracle.run, device)
        except Exception as error:  # whatever the compiler or the driver says of a candidate
            if "illegal memory access" in str(error) or "unspecified launch failure" in str(error):
                raise
            return float("inf")


def improve(call: Call, question: Question, start: Config, deadline: float) -> Outcome:
    """Descend from `start`, one number at a time, until nothing is quicker or the time is up."""
    device = call.step.tensors()[0].device
    tensor_maps = torch.cuda.get_device_capability(device) >= (9, 0)
    oracle, tried = Oracle(call), {start}
    best, before = start, seconds(oracle, start, device, call.tolerance)
    least, moved = before, True
    while moved and time.monotonic() < deadline:
        moved = False
        for candidate in neighbours(question.operator, best, tensor_maps):
            if candidate in tried or time.monotonic() >= deadline:
                continue
            tried.add(candidate)
            taken = seconds(oracle, candidate, device, call.tolerance)
            if taken < WORTH * least:
                best, least, moved = candidate, taken, True
    return Outcome(question, best, before, least)


def questions(variants: Sequence[str], batch_sizes: Sequence[int], dtype: torch.dtype) -> dict[Question, Call]:
    """What the networks ask the tables for, with a call of each, those that take the most time first."""
    found: dict[Question, tuple[float, Call]] = {}
    for variant in variants:
        for batch in batch_sizes:
            images = torch.rand(batch, 3, INPUT_SIZE, INPUT_SIZE, device="cuda") - 0.4
            network = fuse(create_model(variant).eval().cuda(), images, dtype, cuda_graph=False)
            network(images)
            for call in distinct_calls(network, tuple(images.shape)):
                with trial() as asked:
                    call.run()
                for question in asked:
                    weight = call.count * time_call(call.run, images.device)
                    if question not in found or weight > found[question][0]:
                        found[question] = (weight, call)
    return {question: call for question, (_, call) in sorted(found.items(), key=lambda item: -item[1][0])}


def tune(
    variants: Annotated[str, typer.Option(help="Networks whose calls are tuned, with commas.")] = "original,feats64",
    batch_sizes: Annotated[str, typer.Option(help="Batch sizes, with commas.")] = "1,16,64",
    bf16: Annotated[bool, typer.Option(help="Tune in bfloat16 instead of float16.")] = False,
    minutes: Annotated[float, typer.Option(min=0.1, help="Stop after this long; the most costly calls go first.")] = 6,
) -> None:
    """Tune the fused operators on this machine's GPU and write the device's table."""
    if not torch.cuda.is_available():
        raise BackendUnavailable("tune: no CUDA device here; run on the machine whose GPU the table is for")
    device = torch.device("cuda", torch.cuda.current_device())
    path = TABLES / device_table_name(torch.cuda.get_device_name(device))
    entries = {(e.operator, e.channels, e.batch, e.pixels): e for e in (read_table(path) if path.exists() else ())}
    dtype = torch.bfloat16 if bf16 else torch.float16
    deadline = time.monotonic() + 60 * minutes
    asked = questions(variants.split(","), [int(size) for size in batch_sizes.split(",")], dtype)
    outcomes = []
    with progress_bar() as bar:
        for question, call in bar.track(asked.items(), description="tune"):
            if time.monotonic() >= deadline:
                break
            start = lookup(question.operator, question.channels, question.batch, question.pixels, device)
            outcome = improve(call, question, start, deadline)
            if outcome.after == float("inf"):
                continue
            outcomes.append(outcome)
            entry = Entry(question.operator, question.channels, question.batch, question.pixels, outcome.config)
            entries[entry.operator, entry.channels, entry.batch, entry.pixels] = entry
            with atomic_path(path) as aside:
                write_table(aside, list(entries.values()))
    _report(outcomes)
    note(f"tuned {len(outcomes)} of {len(asked)} calls into {path}")


def _report(outcomes: list[Outcome]) -> None:
    table = Table("operator", "channels", "batch", "pixels", "before us", "after us", "configuration")
    for o in outcomes:
        times = (f"{1e6 * o.before:.1f}", f"{1e6 * o.after:.1f}")
        table.add_row(*map(str, astuple(o.question)), *times, str(o.config))
    output_console().print(table)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    app = make_app()
    app.command()(tune)
    return run_app(app, argv, prog="python -m bench.gpu.tune")


if __name__ == "__main__":
    sys.exit(main())
