"""Less network for the same people: a small network that learns alone, and the same one with a teacher.

    python -m training.pack --data LSP --out crops.h5 --density 136
    python -m bench.study.distil --data LSP --pack crops.h5 --out bench/results/distil

The teacher is a trained network: the `small` that ships, or `--teacher`. The student starts from a reduced network that
ships for the sweep, or from `--student`. It learns with and without the teacher by the same seeds, people, order and
steps. Each finished run is a line of results.jsonl; the same command goes on with what is missing.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from bench.report.tradeoff import Point, tradeoff_chart
from bench.study.trainings import RESULTS, SHORT, add_result, read_results, run_quietly
from fasthg.console import note, run_command
from fasthg.data.dataset import load_dataset
from fasthg.files import make_folder, write_json, write_text
from fasthg.metrics.evaluate import EvalOptions, evaluate
from fasthg.network.checkpoint import load_model, variant_name, weights_digest
from fasthg.network.flops import count_flops, count_parameters
from fasthg.network.load import WEIGHTS_DIR, find_weights
from fasthg.network.model import HourglassNet
from fasthg.network.stacks import first_stacks
from fasthg.predict.depth import measured_ms
from fasthg.runtimes.paths import prepare
from training.recipes import Recipe
from training.trainer import LATEST

REPORT, CHART, TIMES = "report.md", "score-against-time.svg", "times.json"
ALONE, TAUGHT = 0.0, 0.5  # shares of the teacher in the student's loss


@dataclass(frozen=True)
class DistilPlan:
    """The two networks, and what every run of the student has in common."""

    data: Path
    pack: Path | None
    work: Path
    teacher: str = "default"
    student: str = "original"
    size: int = 128
    epochs: int = 1
    batch_size: int = 16
    lr: float = 1.5e-3
    clip_norm: float = 0.0
    seeds: int = 3

    def runs(self) -> list[tuple[float, int]]:
        """(share of the teacher, seed) of every run; both shares of a seed before the next one."""
        return [(share, seed) for seed in range(self.seeds) for share in (ALONE, TAUGHT)]

    def folder(self, share: float, seed: int) -> Path:
        return self.work / f"{share:g}-{seed}"

    def weights(self, name: str) -> Path:
        """The checkpoint of the teacher, or of the student as it starts."""
        reduced = WEIGHTS_DIR / f"reduced-{self.student}.safetensors"
        if name == "teacher":
            return find_weights(self.teacher)
        return reduced if reduced.is_file() else find_weights(self.student)

    def network(self, name: str) -> HourglassNet:
        """The network of `weights`."""
        return load_model(self.weights(name))

    def recipe(self, share: float, seed: int) -> Recipe:
        """The seed decides the order of the people and their augmentation."""
        return replace(
            SHORT,
            variant=self.network("student").config,
            size=self.size,
            batch_size=self.batch_size,
            epochs=self.epochs,
            lr=self.lr,
            clip_norm=self.clip_norm,
            path="amp",
            teacher_share=share,
            seed=seed,
        )

    def settings(self) -> dict[str, Any]:
        """What has to be the same for two runs to stand in one table."""
        digests = {f"{name}_digest": weights_digest(self.network(name)) for name in ("teacher", "student")}
        return {name: getattr(self, name) for name in ("size", "epochs", "batch_size", "lr", "clip_norm")} | digests


def run_one(plan: DistilPlan, share: float, seed: int) -> dict[str, Any]:
    """Train one student, or go on with it; returns what its line of the results says of it."""
    out = plan.folder(share, seed)
    _trainer, result = run_quietly(
        plan.data,
        plan.recipe(share, seed),
        out,
        pack=plan.pack,
        init_weights=plan.weights("student"),
        teacher=plan.weights("teacher") if share else None,
        validate_every=0,
    )
    return {"steps": result.steps, **describe(plan, load_model(out / LATEST))}


def describe(plan: DistilPlan, model: HourglassNet) -> dict[str, Any]:
    """Parameters of a network; score and GFLOP after each of its stacks, by the people's own protocol."""
    people, stacks = load_dataset(plan.data, "val"), []
    options = EvalOptions(plan.size, 32, mean=model.config.mean)
    for count in range(1, model.config.num_stacks + 1):
        network = first_stacks(model, count)
        scores = evaluate(torch.inference_mode()(network.final), people, None, options)
        gflop = count_flops(network.config, plan.size) / 1e9
        score = scores.at.means["weighted14"]
        stacks.append({"stack": count, "gflop": gflop, "score": score, "protocol": str(scores.protocol)})
    return {"people": len(people), "parameters": count_parameters(model.config), "stacks": stacks}


def run_all(plan: DistilPlan, out: Path) -> list[dict[str, Any]]:
    """Every line that is not in the results yet, both networks as they start first; returns all of them."""
    settings = plan.settings()
    done = read_results(out / RESULTS, settings)
    finished = {(row["network"], row["teacher_share"], row["seed"]) for row in done}
    todo: list[tuple[str, float | None, int | None]] = [("teacher", None, None), ("start", None, None)]
    todo += [("student", share, seed) for share, seed in plan.runs()]
    for network, share, seed in todo:
        if (network, share, seed) in finished:
            continue
        found = describe(plan, plan.network(network)) if share is None or seed is None else run_one(plan, share, seed)
        row = {"network": network, "teacher_share": share, "seed": seed, **settings, **found}
        add_result(out / RESULTS, row)
        note(f"{network}{'' if share is None else f' share {share:g} seed {seed}'}: {row['stacks'][-1]['score']:.2f}")
        done.append(row)
    return done


def measure(plan: DistilPlan, path: str) -> dict[str, float]:
    """Milliseconds of one crop for every number of stacks of both networks, by name such as "student, 2"."""
    found = {}
    for name in ("teacher", "student"):
        model, example = plan.network(name), torch.zeros(1, 3, plan.size, plan.size)
        for count in range(1, model.config.num_stacks + 1):
            prepared = prepare(first_stacks(model, count), path, example, device="cpu", threads=1)
            found[f"{name}, {count}"] = measured_ms(prepared, example)
    return found


def of(rows: Sequence[dict[str, Any]], network: str, share: float | None = None) -> list[dict[str, Any]]:
    """The lines of a network, by seed."""
    found = [row for row in rows if (row["network"], row["teacher_share"]) == (network, share)]
    return sorted(found, key=lambda row: row["seed"] or 0)


def last_scores(rows: Sequence[dict[str, Any]]) -> list[float]:
    """The scores after the last stack."""
    return [row["stacks"][-1]["score"] for row in rows]


def spread(values: Sequence[float]) -> float | None:
    """Standard deviation; None for one value."""
    return statistics.stdev(values) if len(values) > 1 else None


def draw(rows: Sequence[dict[str, Any]], times: dict[str, float], teacher: str) -> str:
    """The stacks of the teacher, a network of that name, and of the students, in one plane."""
    points = []
    for series, network, name, runs in (
        ("teacher", "teacher", teacher, of(rows, "teacher")),
        ("student alone", "student", "student", of(rows, "student", ALONE)),
        ("student with the teacher", "student", "student", of(rows, "student", TAUGHT)),
    ):
        last = len(runs[0]["stacks"])
        for stack in range(1, last + 1):
            scores = [row["stacks"][stack - 1]["score"] for row in runs]
            label, ms = name if stack == last else f"{name}@{stack}", times[f"{network}, {stack}"]
            points.append(Point(series, label, ms, statistics.fmean(scores), spread(scores)))
    return tradeoff_chart(points, rows[0]["stacks"][0]["protocol"])


def report(rows: Sequence[dict[str, Any]], times: dict[str, float], command: str) -> str:
    """The two tables in Markdown."""
    alone, taught = of(rows, "student", ALONE), of(rows, "student", TAUGHT)
    some = alone[0]
    lines = [
        "# A student with and without its teacher",
        "",
        f"Made by `{command}`.",
        "",
        f"Crops have {some['size']} px. The student starts from the same weights each time and learns {some['steps']}"
        f" steps of {some['batch_size']} people; a seed decides their order and augmentation. Scores are"
        f" {some['stacks'][0]['protocol']} (weighted14) on the {some['people']} validation people.",
        "",
        "| share of the teacher in the loss | stacks | mean | standard deviation | each seed |",
        "|---:|---:|---:|---:|---|",
        *(line for share in (ALONE, TAUGHT) for line in _student_lines(of(rows, "student", share), share)),
        "",
        _gain(last_scores(alone), last_scores(taught)),
        "",
        "Both networks before that, and what they cost, in milliseconds of one crop on one thread of a CPU:",
        "",
        "| network | parameters | stacks | GFLOP | ms | score |",
        "|---|---:|---:|---:|---:|---:|",
        *(line for name in ("teacher", "start") for line in _network_lines(name, of(rows, name)[0], times)),
        "",
        f"![score against milliseconds]({CHART})",
        "",
    ]
    return "\n".join(lines)


def _student_lines(runs: Sequence[dict[str, Any]], share: float) -> list[str]:
    """A line of the first table for each stack."""
    lines = []
    for stack in range(len(runs[0]["stacks"])):
        scores = [row["stacks"][stack]["score"] for row in runs]
        deviation = "" if (found := spread(scores)) is None else f"{found:.2f}"
        each = " ".join(f"{score:.2f}" for score in scores)
        lines.append(f"| {share:g} | {stack + 1} | {statistics.fmean(scores):.2f} | {deviation} | {each} |")
    return lines


def _gain(alone: Sequence[float], taught: Sequence[float]) -> str:
    """What the teacher adds after the last stack, seed by seed."""
    gains = [with_it - without for without, with_it in zip(alone, taught)]
    said = f"The teacher adds {statistics.fmean(gains):+.2f} points after the last stack"
    if (deviation := spread(gains)) is None:
        return f"{said}, by one seed."
    each = ", ".join(f"{gain:+.2f}" for gain in gains)
    return f"{said}: {each} by seed, a standard error of {deviation / math.sqrt(len(gains)):.2f}."


def _network_lines(name: str, row: dict[str, Any], times: dict[str, float]) -> list[str]:
    """A line of the second table for each stack."""
    known = "student" if name == "start" else name
    lines = []
    for found in row["stacks"]:
        stack, ms = found["stack"], times[f"{known}, {found['stack']}"]
        cost = f"{row['parameters']:,} | {stack} | {found['gflop']:.3f} | {ms:.2f}"
        lines.append(f"| {known} | {cost} | {found['score']:.2f} |")
    return lines


def _command(
    data: Annotated[Path, typer.Option(help="folder of people, such as that of LSP Extended")],
    out: Annotated[Path, typer.Option(help="folder of the tables")],
    pack: Annotated[Path | None, typer.Option(help="packed crops of the same people")] = None,
    work: Annotated[Path, typer.Option(help="folder of the runs' checkpoints")] = Path("runs/distil"),
    teacher: Annotated[str, typer.Option(help="trained network: a checkpoint or a name")] = DistilPlan.teacher,
    student: Annotated[str, typer.Option(help="its start: a reduced variant or a checkpoint")] = DistilPlan.student,
    size: Annotated[int, typer.Option(help="side of the crops, pixels")] = DistilPlan.size,
    epochs: Annotated[int, typer.Option(help="passes over the people")] = DistilPlan.epochs,
    batch_size: Annotated[int, typer.Option(help="people in a step")] = DistilPlan.batch_size,
    lr: Annotated[float, typer.Option(help="learning rate after the warm-up")] = DistilPlan.lr,
    clip_norm: Annotated[float, typer.Option(help="largest norm of the gradient; 0: any")] = DistilPlan.clip_norm,
    path: Annotated[str, typer.Option(help="execution path that is timed")] = "fused:fp32",
    seeds: Annotated[int, typer.Option(help="runs of the student with each share")] = DistilPlan.seeds,
) -> None:
    """Train a student with and without its teacher, and say what the teacher adds."""
    plan = DistilPlan(data, pack, work, teacher, student, size, epochs, batch_size, lr, clip_norm, seeds)
    rows = run_all(plan, make_folder(out))
    if not (out / TIMES).exists():
        write_json(out / TIMES, measure(plan, path))
    times = json.loads((out / TIMES).read_text())
    write_text(out / CHART, draw(rows, times, variant_name(plan.network("teacher").config) or "teacher"))
    write_text(out / REPORT, report(rows, times, " ".join(["python -m bench.study.distil", *sys.argv[1:]])))
    note(f"{len(rows)} lines; the report is {out / REPORT}")


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return run_command(_command, argv, "python -m bench.study.distil")


if __name__ == "__main__":
    sys.exit(main())
