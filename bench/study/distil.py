"""Less network for the same people: one training's stacks, and a small network with and without a teacher.

    python -m bench.study.distil --data LSP --pack crops.h5 --out bench/results/distil-reduced

The teacher is `original` with its widths divided by `shrink`, on small crops. Its score after each stack comes from one
training. The student is its first two stacks, trained from the start; it learns alone and with the teacher, with the
same seeds, people and steps. Each finished run is a line of results.jsonl; the same command goes on with what is
missing.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from bench.report.tradeoff import Point, tradeoff_chart
from bench.study.run import StudyPlan
from bench.study.trainings import RESULTS, add_result, read_results, run_quietly
from fasthg.console import note, run_command
from fasthg.data.dataset import load_dataset
from fasthg.files import make_folder, write_json, write_text
from fasthg.metrics.evaluate import EvalOptions, evaluate
from fasthg.network.checkpoint import load_model
from fasthg.network.flops import count_flops, count_parameters
from fasthg.network.model import HourglassNet
from fasthg.network.stacks import first_stacks
from fasthg.predict.depth import measured_ms
from fasthg.runtimes.paths import prepare
from training.recipes import Recipe
from training.trainer import LATEST

REPORT, CHART, TIMES = "report.md", "score-against-time.svg", "times.json"
TEACHER, STUDENT = "original", "original@2"
SHARES = (0.0, 0.5)  # of the teacher in the student's loss


@dataclass(frozen=True)
class DistilPlan:
    """What every run has in common; `StudyPlan` says the rest of the recipe."""

    data: Path
    pack: Path | None
    work: Path
    size: int = 64
    shrink: int = 8
    epochs: int = 4
    teacher_epochs: int = 5
    batch_size: int = 32
    lr: float = 2.5e-3
    seeds: int = 3

    def runs(self) -> list[tuple[str, float, int]]:
        """(variant, share of the teacher, seed) of every run, the teacher's first."""
        return [(TEACHER, 0.0, 0)] + [(STUDENT, share, seed) for seed in range(self.seeds) for share in SHARES]

    def folder(self, variant: str, share: float, seed: int) -> Path:
        return self.work / f"{variant}-{share:g}-{seed}"

    @property
    def teacher(self) -> Path:
        return self.folder(TEACHER, 0.0, 0) / LATEST

    def recipe(self, variant: str, share: float, seed: int) -> Recipe:
        epochs = self.teacher_epochs if variant == TEACHER else self.epochs
        study = StudyPlan(self.data, self.work, self.size, self.shrink, epochs, self.batch_size, self.lr)
        return replace(study.recipe(variant, seed), teacher_share=share)

    def settings(self) -> dict[str, Any]:
        """What has to be the same for two runs to stand in one table."""
        names = ("size", "shrink", "epochs", "teacher_epochs", "batch_size", "lr")
        return {name: value for name, value in asdict(self).items() if name in names}


def run_one(plan: DistilPlan, variant: str, share: float, seed: int) -> dict[str, Any]:
    """Train one network, or go on with it; returns its line of the results, with the scores after each stack."""
    out = plan.folder(variant, share, seed)
    _trainer, result = run_quietly(
        plan.data,
        plan.recipe(variant, share, seed),
        out,
        pack=plan.pack,
        teacher=plan.teacher if share else None,
        num_workers=0 if plan.pack is None else 1,
        validate_every=max(plan.epochs, plan.teacher_epochs),
    )
    model = load_model(out / LATEST)
    return {
        "variant": variant,
        "teacher_share": share,
        "seed": seed,
        **plan.settings(),
        "steps": result.steps,
        "parameters": count_parameters(model),
        "stacks": score_stacks(plan, model),
    }


def score_stacks(plan: DistilPlan, model: HourglassNet) -> list[dict[str, Any]]:
    """Score and GFLOP of a network after each of its stacks, by the people's own protocol."""
    people, found = load_dataset(plan.data, "val"), []
    options = EvalOptions(plan.size, 32, mean=model.config.mean)
    for count in range(1, model.config.num_stacks + 1):
        network = first_stacks(model, count)
        scores = evaluate(torch.inference_mode()(network.final), people, None, options)
        gflop = count_flops(network.config, plan.size) / 1e9
        score = scores.at.means["weighted14"]
        found.append({"stack": count, "gflop": gflop, "score": score, "protocol": str(scores.protocol)})
    return found


def run_all(plan: DistilPlan, out: Path) -> list[dict[str, Any]]:
    """Every run that is not in the results yet, one after the other; returns all results."""
    done = read_results(out / RESULTS, plan.settings())
    finished = {(row["variant"], row["teacher_share"], row["seed"]) for row in done}
    for run in plan.runs():
        if run in finished:
            continue
        row = run_one(plan, *run)
        add_result(out / RESULTS, row)
        note(f"{row['variant']} share {run[1]:g} seed {run[2]}: {row['stacks'][-1]['score']:.2f}")
        done.append(row)
    return done


def measure(plan: DistilPlan, path: str) -> dict[str, float]:
    """Milliseconds of one crop for every number of stacks of both networks, by name such as "original, 3"."""
    found = {}
    for variant in (TEACHER, STUDENT):
        model = HourglassNet(plan.recipe(variant, 0.0, 0).config).eval()
        example = torch.zeros(1, 3, plan.size, plan.size)
        for count in range(1, model.config.num_stacks + 1):
            prepared = prepare(first_stacks(model, count), path, example, device="cpu", threads=1)
            found[f"{variant}, {count}"] = measured_ms(prepared, example)
    return found


def draw(rows: Sequence[dict[str, Any]], times: dict[str, float]) -> str:
    """The stacks of the first training, and of the students without and with it, in one plane."""
    points = []
    for variant, share, series in (
        (TEACHER, 0.0, f"{TEACHER}, one training"),
        (STUDENT, 0.0, f"{STUDENT}, alone"),
        (STUDENT, SHARES[-1], f"{STUDENT}, with a teacher"),
    ):
        runs = [row for row in rows if (row["variant"], row["teacher_share"]) == (variant, share)]
        for stack in range(len(runs[0]["stacks"])):
            scores = [row["stacks"][stack]["score"] for row in runs]
            spread = statistics.stdev(scores) if len(scores) > 1 else None
            ms = times[f"{variant}, {stack + 1}"]
            points.append(Point(series, str(stack + 1), ms, statistics.fmean(scores), spread))
    return tradeoff_chart(points, rows[0]["stacks"][0]["protocol"])


def report(rows: Sequence[dict[str, Any]], times: dict[str, float], command: str) -> str:
    """The two tables in Markdown."""
    teacher = next(row for row in rows if row["variant"] == TEACHER)
    student = next(row for row in rows if row["variant"] == STUDENT)
    first = teacher["stacks"][0]
    lines = [
        "# One training's stacks, and a student with and without its teacher",
        "",
        f"Made by `{command}`.",
        "",
        f"Every width is divided by {teacher['shrink']}, crops have {teacher['size']} px, steps are of"
        f" {teacher['batch_size']} people. Scores are {first['protocol']} (weighted14) on the "
        "validation people of the same data.",
        "",
        f"`{TEACHER}` after each of its stacks, one training of {teacher['steps']} steps:",
        "",
        "| stacks | GFLOP | ms | score |",
        "|---:|---:|---:|---:|",
        *(_stack_line(row, times[f"{TEACHER}, {row['stack']}"]) for row in teacher["stacks"]),
        "",
        f"`{STUDENT}` by how much of its loss is held to that network, {student['steps']} steps each:",
        "",
        "| teacher's share | mean | standard deviation | each seed |",
        "|---:|---:|---:|---|",
        *(_student_line(rows, share) for share in SHARES),
        "",
        "Milliseconds are of one crop on one thread of a CPU.",
        "",
        f"![score against milliseconds]({CHART})",
        "",
    ]
    return "\n".join(lines)


def _stack_line(row: dict[str, Any], ms: float) -> str:
    return f"| {row['stack']} | {row['gflop']:.4f} | {ms:.2f} | {row['score']:.2f} |"


def _student_line(rows: Sequence[dict[str, Any]], share: float) -> str:
    runs = sorted((r for r in rows if (r["variant"], r["teacher_share"]) == (STUDENT, share)), key=lambda r: r["seed"])
    scores = [row["stacks"][-1]["score"] for row in runs]
    spread = f"{statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
    mean = f"{statistics.fmean(scores):.2f}" if scores else ""
    return f"| {share:g} | {mean} | {spread} | {' '.join(f'{score:.2f}' for score in scores)} |"


def _command(
    data: Annotated[Path, typer.Option(help="folder of people, such as that of LSP")],
    out: Annotated[Path, typer.Option(help="folder of the tables")],
    pack: Annotated[Path | None, typer.Option(help="packed crops of the same people")] = None,
    work: Annotated[Path, typer.Option(help="folder of the runs' checkpoints")] = Path("runs/distil"),
    size: Annotated[int, typer.Option(help="side of the crops, pixels")] = DistilPlan.size,
    shrink: Annotated[int, typer.Option(help="divide every width by this")] = DistilPlan.shrink,
    epochs: Annotated[int, typer.Option(help="passes over the people, for every student")] = DistilPlan.epochs,
    teacher_epochs: Annotated[int, typer.Option(help="the same, for the teacher")] = DistilPlan.teacher_epochs,
    batch_size: Annotated[int, typer.Option(help="people in a step")] = DistilPlan.batch_size,
    lr: Annotated[float, typer.Option(help="learning rate after the warm-up")] = DistilPlan.lr,
    path: Annotated[str, typer.Option(help="execution path that is timed")] = "fused:fp32",
    seeds: Annotated[int, typer.Option(help="runs of the student with each share")] = DistilPlan.seeds,
) -> None:
    """Train a network, score each of its stacks, and train a student with and without it."""
    plan = DistilPlan(data, pack, work, size, shrink, epochs, teacher_epochs, batch_size, lr, seeds)
    rows = run_all(plan, make_folder(out))
    if not (out / TIMES).exists():
        write_json(out / TIMES, measure(plan, path))
    times = json.loads((out / TIMES).read_text())
    write_text(out / CHART, draw(rows, times))
    write_text(out / REPORT, report(rows, times, " ".join(["python -m bench.study.distil", *sys.argv[1:]])))
    note(f"{len(rows)} runs; the report is {out / REPORT}")


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return run_command(_command, argv, "python -m bench.study.distil")


if __name__ == "__main__":
    sys.exit(main())
