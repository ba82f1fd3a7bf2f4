"""`fasthg eval --by-stack`: what each stack of one network reaches, and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from fasthg.console import note, progress_bar
from fasthg.data.dataset import Dataset
from fasthg.errors import FasthgError
from fasthg.export.artefact import is_artefact
from fasthg.metrics.evaluate import EvalOptions, evaluate
from fasthg.network.flops import count_flops
from fasthg.network.load import load_network
from fasthg.network.stacks import first_stacks
from fasthg.pixels.skeleton import check_same_points
from fasthg.predict.depth import EarlyExit, measured_ms
from fasthg.predict.load import load_runner
from fasthg.predict.photo import LeftOut
from fasthg.runtimes.choose import choose_path
from fasthg.runtimes.request import Prepared


def eval_by_stack(
    weights: str | Path | None,
    variant: str | None,
    path: str,
    dataset: Dataset,
    flip: bool,
    left_out: LeftOut,
    how: dict[str, Any],
) -> dict[str, Any]:
    """The dataset's score, GFLOP and milliseconds a person after each stack, by one path.

    how   the device, the batch size, the crops' size and the threads, as `load_runner` takes them

    Milliseconds are the network's alone, for a person of a batch. A photograph that cannot be read is told to
    `left_out` once.
    """
    if weights and is_artefact(weights):
        raise FasthgError(f"artefact {weights} has one answer alone; give the weights that it was exported from")
    model, why, batch_size = load_network(weights, variant), "as asked", how["batch_size"]
    check_same_points(str(weights or "the shipped network"), model.config.skeleton, dataset.people.skeleton)
    if path == "auto":
        path, why = choose_path(model, how["device"], batch_size, how["threads"])
    rows: list[dict[str, Any]] = []
    content: dict[str, Any] = {"stacks": rows, "batch_size": batch_size, "flip": flip}
    told: Callable[[FasthgError], None] = left_out
    with progress_bar() as bar:
        task = bar.add_task("people", total=len(dataset) * model.config.num_stacks)
        for count in range(1, model.config.num_stacks + 1):
            served = load_runner(first_stacks(model, count), None, path, **how)
            runner = served.runner
            if count == 1:
                note(f"path {runner.path} ({runner.precision}, {runner.device}): {why}")
                content |= {"path": runner.path, "precision": runner.precision, "device": runner.device}
            options = EvalOptions(
                served.size, batch_size, flip, served.mean, lambda people: bar.advance(task, people), told
            )
            scores = evaluate(runner, dataset, None, options)
            told = _nobody
            gflop = count_flops(model.config.first(count), served.size) / 1e9
            ms = measured_ms(runner, torch.zeros(batch_size, 3, served.size, served.size))
            about = {"stack": count, "gflop": gflop, "ms": ms, "means": dict(scores.at.means)}
            rows.append(about | {"scores": scores.to_dict()})
            content |= {"protocol": str(scores.protocol), "size": served.size}
    return content


def _nobody(error: FasthgError) -> None:
    """Somebody was told before."""


def stacks_table(content: dict[str, Any]) -> Table:
    """The rows for people."""
    title = f"{content['protocol']} by stack, {content['path']} ({content['precision']}), {content['size']} px"
    means = content["stacks"][0]["means"]
    table = Table("stacks", *means, "GFLOP", "ms a person", title=title)
    for row in content["stacks"]:
        shown = [f"{value:.2f}" for value in row["means"].values()]
        table.add_row(str(row["stack"]), *shown, f"{row['gflop']:.3g}", f"{row['ms']:.3g}")
    return table


def exits(runner: Prepared, size: int) -> dict[str, Any]:
    """How many people left after each stack of an early exit, and the mean work; says so."""
    assert isinstance(runner.run, EarlyExit)
    left, config = runner.run.exits, runner.run.model.config
    gflop = {stack: count_flops(config.first(stack), size) / 1e9 for stack in range(1, config.num_stacks + 1)}
    total = sum(left.values())
    mean = sum(gflop[stack] * count for stack, count in left.items()) / total
    shares = ", ".join(f"{count / total:.1%} after stack {stack}" for stack, count in sorted(left.items()))
    note(f"early exit: {shares}; {mean:.3g} of {gflop[config.num_stacks]:.3g} GFLOP a person")
    return {"share": {stack: count / total for stack, count in sorted(left.items())}, "gflop": mean}
