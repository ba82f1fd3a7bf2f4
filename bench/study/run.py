"""The study's table on our own people: all eight variants at reduced size, by one command that can be interrupted.

    python -m bench.study.run --data DIR --out bench/results/study-reduced

Every variant keeps what tells it apart (stacks, depths, blocks, convolutions, norm) at a fraction of its width and on
small crops, and learns from the same people in the same order for the same number of steps. Some variants are repeated
with other seeds, so that it is known how far luck alone moves a score. Each finished run is a line of results.jsonl;
the same command goes on with what is missing, a run that was cut short included.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.study.report import REPORT, write_report
from bench.study.trainings import RESULTS, SHORT, add_result, read_results, run_quietly
from fasthg.console import note, run_command
from fasthg.errors import FasthgError
from fasthg.files import make_folder
from fasthg.network.flops import count_flops, count_parameters
from fasthg.network.variants import STUDY_VARIANTS, HourglassConfig, get_config
from training.recipes import Recipe


@dataclass(frozen=True)
class StudyPlan:
    """What every run of the table has in common.

    shrink   every width (features, stem) is divided by it
    repeat   variants that are trained with `seeds` seeds; the rest with one
    """

    data: Path
    work: Path
    size: int = 64
    shrink: int = 4
    epochs: int = 4
    batch_size: int = 32
    lr: float = 2.5e-3
    repeat: tuple[str, ...] = ("original", "feats64")
    seeds: int = 3

    def runs(self) -> Iterator[tuple[str, int]]:
        """(variant, seed) of every run: first each variant once, then the repeats."""
        yield from ((variant, 0) for variant in STUDY_VARIANTS)
        yield from ((variant, seed) for seed in range(1, self.seeds) for variant in self.repeat)

    def config(self, variant: str) -> HourglassConfig:
        """The variant at reduced width."""
        config = get_config(variant)
        first, second = config.stem_feats
        stem = (first // self.shrink, second // self.shrink)
        return replace(config, num_feats=config.num_feats // self.shrink, stem_feats=stem)

    def recipe(self, variant: str, seed: int) -> Recipe:
        """The same for every variant."""
        return replace(
            SHORT,
            variant=self.config(variant),
            size=self.size,
            batch_size=self.batch_size,
            epochs=self.epochs,
            lr=self.lr,
            seed=seed,
        )

    def settings(self) -> dict[str, Any]:
        """What has to be the same for two runs to stand in one table."""
        names = ("size", "shrink", "epochs", "batch_size", "lr")
        return {name: value for name, value in asdict(self).items() if name in names}


def run_one(plan: StudyPlan, variant: str, seed: int) -> dict[str, Any]:
    """Train one variant with one seed, or go on with it; returns its line of the results."""
    trainer, result = run_quietly(plan.data, plan.recipe(variant, seed), plan.work / f"{variant}-{seed}")
    last = result.history[-1]
    return {
        "variant": variant,
        "seed": seed,
        **plan.settings(),
        "data": trainer.dataset.digest,
        "people": len(trainer.dataset),
        "steps": result.steps,
        "parameters": count_parameters(plan.config(variant)),
        "gflop": count_flops(plan.config(variant), plan.size) / 1e9,
        "scores": {name: value for name, value in last.items() if name.endswith(("pckh@0.5", "pckh@0.1", "auc"))},
        "curve": [row["mean14_pckh@0.5"] for row in result.history],
        "loss": [row["loss"] for row in result.history],
    }


def run_all(plan: StudyPlan, out: Path, jobs: int) -> list[dict[str, Any]]:
    """Every run of the plan that is not in the results yet, `jobs` at a time; returns all results."""
    done = read_results(out / RESULTS, plan.settings())
    if not done and (out / REPORT).exists():
        raise FasthgError(f"{out / REPORT} is of another run; give another --out")
    finished = {(row["variant"], row["seed"]) for row in done}
    todo = [run for run in plan.runs() if run not in finished]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(run_one, plan, *run) for run in todo]
        for future in as_completed(futures):
            row = future.result()
            add_result(out / RESULTS, row)
            note(f"{row['variant']} seed {row['seed']}: PCKh@0.5 mean14 {row['curve'][-1]:.2f}")
            done.append(row)
    return done


def _command(
    data: Annotated[Path, typer.Option(help="folder of people, such as training.synthesize renders")],
    out: Annotated[Path, typer.Option(help="folder of the table")],
    work: Annotated[Path, typer.Option(help="folder of the runs' checkpoints")] = Path("runs/study"),
    size: Annotated[int, typer.Option(help="side of the crops, pixels")] = StudyPlan.size,
    shrink: Annotated[int, typer.Option(help="divide every width by this")] = StudyPlan.shrink,
    epochs: Annotated[int, typer.Option(help="passes over the people, for every variant")] = StudyPlan.epochs,
    batch_size: Annotated[int, typer.Option(help="people in a step")] = StudyPlan.batch_size,
    lr: Annotated[float, typer.Option(help="learning rate after the warm-up")] = StudyPlan.lr,
    seeds: Annotated[int, typer.Option(help="runs of each variant that is repeated")] = StudyPlan.seeds,
    repeat: Annotated[str, typer.Option(help="variants to repeat, by comma")] = ",".join(StudyPlan.repeat),
    jobs: Annotated[int, typer.Option(help="runs at a time, one thread each")] = 2,
) -> None:
    """Train the study's eight variants at reduced size and compare their order with the study's."""
    repeated = tuple(name for name in repeat.split(",") if name)
    for name in repeated:
        get_config(name)
    import matplotlib  # noqa: F401  for the curves at the end

    plan = StudyPlan(data, work, size, shrink, epochs, batch_size, lr, repeated, seeds)
    rows = run_all(plan, make_folder(out), jobs)
    write_report(out, rows, " ".join(["python -m bench.study.run", *sys.argv[1:]]))
    note(f"{len(rows)} runs; the report is {out / 'report.md'}")


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return run_command(_command, argv, "python -m bench.study.run")


if __name__ == "__main__":
    sys.exit(main())
