"""Every variant by every execution path: time, memory, share of the machine's limit, and parity with the reference.

    python -m bench.sweep
    python -m bench.sweep --variants small,original --paths eager,openvino:bf16 --modes infer
    python -m bench.sweep --weights DIR --data MPII --full
    python -m bench.sweep --resume

Results go to results.jsonl row by row, each on the disk before the next cell begins; results.csv, report.md and
report.html are made from it at the end, after Ctrl-C too. A killed sweep loses the cell that was running.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated

import filelock
import psutil
import torch
import typer

from bench import preparation
from bench.cells import measure_cell
from bench.display import Display
from bench.isolate import Outcome, end_all, run_isolated
from bench.plan import MODES, default_paths, plan, why_not
from bench.record import Cell, Results, Row, commit, digest_of, versions
from bench.report import write_reports
from bench.roofline import measure_limits
from bench.settings import Settings
from bench.short_training import reduced_pckh
from fasthg.console import note, run_app
from fasthg.errors import FasthgError
from fasthg.files import make_folder, sha256
from fasthg.measured import Measurement, device_model, remember_measurement
from fasthg.mpii import load_dataset
from fasthg.runtimes.base import resolve_device
from fasthg.variants import INPUT_SIZE, VARIANTS

RUNS = Path("out")  # where a sweep without --out makes its folder
MINUTES = 10.0  # a sweep without --full ends within
PREPARATION_SHARE = 0.6  # of the minutes: nothing is prepared after them
REPORT_S = 6.0  # kept free for the reports
SHORTEST_CELL_S = 4.0  # with less time left, no cell begins
CELL_LIMIT_S = 120.0
FULL_CELL_LIMIT_S = 1800.0
#: The rendered dataset of a sweep without --data: people and pixels like MPII's photographs.
PEOPLE = {"train": 64, "val": 64, "seed": 2016, "size": (1280, 720)}


@dataclasses.dataclass(frozen=True)
class Request:
    """What the user asked for; the fields are the options of the command line."""

    variants: tuple[str, ...] = tuple(VARIANTS)
    paths: tuple[str, ...] = ()
    modes: tuple[str, ...] = MODES
    batch_sizes: tuple[int, ...] = ()
    data: Path | None = None
    weights: Path | None = None
    device: str = "auto"
    full: bool = False
    out: Path | None = None
    resume: bool = False
    minutes: float | None = None
    size: int = INPUT_SIZE
    threads: int | None = None
    people: int | None = None
    short_training: bool = True
    cell_limit: float | None = None


class Sweep:
    """One run over the cells of a request."""

    def __init__(self, request: Request, display: Display) -> None:
        self.request, self.display = request, display
        minutes = request.minutes or (None if request.full else MINUTES)
        self.began = time.monotonic()
        self.deadline = self.began + 60 * minutes - REPORT_S if minutes else float("inf")
        self.cell_limit = request.cell_limit or (FULL_CELL_LIMIT_S if request.full else CELL_LIMIT_S)
        self.device = device_string(request.device)
        paths = request.paths or default_paths(request.full)
        self.cells = plan(request.variants, paths, request.modes, request.batch_sizes, self.device)
        self.out = choose_folder(request)
        self.logs = make_folder(self.out / "logs")
        self.results = Results(self.out / "results.jsonl")
        if self.results.rows and not request.resume:
            raise FasthgError(f"{self.out} holds a sweep already; give --resume to go on with it, or another --out")
        self.settings = self.make_settings()
        self.outcomes: dict[tuple[str, ...], tuple[Outcome, float]] = {}

    def make_settings(self) -> Settings:
        """What the cells share; renders the dataset where none is given."""
        request = self.request
        if request.weights and not request.weights.is_dir():
            raise FasthgError(f"weights {request.weights}: no such folder; give one with <variant>.safetensors in it")
        data = request.data or self.render_people()
        threads = request.threads or torch.get_num_threads()
        full = request.full
        settings = Settings(
            cache=self.out,
            data=data,
            weights=request.weights,
            device=self.device,
            size=request.size,
            threads=threads,
            people=request.people or (10**9 if full else 64),
            infer_budget=5.0 if full else 1.5,
            train_budget=15.0 if full else 3.0,
            loader_budget=10.0 if full else 2.0,
            short_training=request.short_training,
        )
        trained = {variant: settings.trained(variant) for variant in request.variants}
        weights = {variant: sha256(path) for variant, path in trained.items() if path}
        self.configuration = digest_of(
            {k: v for k, v in dataclasses.asdict(settings).items() if k not in ("cache", "data", "weights")},
            load_dataset(data, "val").digest,
            weights,
            versions(),
            commit(),
        )
        return dataclasses.replace(settings, cache=make_folder(self.out / "cache" / self.configuration))

    def render_people(self) -> Path:
        from training.synthesize import synthesize

        self.display.say(f"rendering {PEOPLE['train']} + {PEOPLE['val']} people")
        return synthesize(self.out / "people", progress=False, **PEOPLE)  # type: ignore[arg-type]

    # ---- the run

    def run(self) -> None:
        """Measure every cell that is not done, and write the reports, whatever happens."""
        try:
            self.measure_machine()
            todo = [cell for cell in self.cells if not self.done(cell)]
            runnable = [cell for cell in todo if not self.skip(cell)]
            self.prepare(runnable)
            self.display.phase(len(runnable))
            self.display.heading()
            for row in self.results.rows:
                self.display.row(row)
            for cell in todo:
                reason = self.skip(cell)
                self.record(self.skipped(cell, reason) if reason else self.measure(cell))
        finally:
            end_all()
            write_reports(self.results, self.out)

    def measure_machine(self) -> None:
        """The limits that shares are taken of, in a process of their own; only the first time for a folder."""
        if self.results.machine.get("configuration") == self.configuration:
            return
        self.display.say("measuring the machine's limit")
        outcome = run_isolated(measure_limits, (self.device,), limit_s=self.cell_limit, log=self.logs / "roofline.log")
        limits = dataclasses.asdict(outcome.result) if outcome.ok else {"tflops": {}, "copy_gb_s": None}
        self.results.describe(
            {
                "configuration": self.configuration,
                "model": device_model(self.device),
                "device": self.device,
                "cores": os.cpu_count(),
                "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
                "threads": self.settings.threads,
                "size": self.settings.size,
                "limits": limits,
                "limits_reason": outcome.reason,
                "versions": versions(),
                "commit": commit(),
                "began": now(),
                "data": "given" if self.request.data else "rendered",
                "full": self.request.full,
            }
        )

    def prepare(self, cells: Sequence[Cell]) -> None:
        """Everything that is made before the first timing; see `bench.preparation`."""
        workers = 1 if self.device.startswith("cuda") else max(1, min(self.settings.threads, os.cpu_count() or 1))
        deadline = self.began + PREPARATION_SHARE * (self.deadline - self.began)
        batches = [preparation.reference_jobs(cells, self.settings), preparation.starting_jobs(cells, self.settings)]
        self.display.phase(sum(map(len, batches)))
        for jobs in batches:
            self.display.now(f"preparing {len(jobs)} networks, {workers} at a time")
            for job, outcome, seconds in preparation.run_jobs(jobs, workers, self.logs, self.cell_limit, deadline):
                self.outcomes[job.key] = outcome, seconds
                self.display.advance()
                if not outcome.ok:
                    self.display.say(f"preparing {job.name}: {outcome.reason}", "yellow")

    def measure(self, cell: Cell) -> Row:
        """The row of a cell that runs now."""
        left = self.deadline - time.monotonic()
        if left < SHORTEST_CELL_S:
            minutes = (self.deadline - self.began + REPORT_S) / 60
            return self.skipped(cell, f"the {minutes:.0f} minutes are spent; --resume goes on, --full takes its time")
        self.display.now(f"{cell.mode} {cell.variant} {cell.path}:{cell.precision} batch {cell.batch_size}")
        load = os.getloadavg()[0]
        log = self.logs / f"{cell.name}.log"
        outcome = run_isolated(
            measure_cell, (cell, self.settings), limit_s=min(self.cell_limit, left), log=log
        )
        self.display.advance()
        row = self.blank(cell)
        row.load = round(load, 2)
        if not outcome.ok:
            row.status, row.reason = ("skipped" if outcome.refused else "error"), outcome.reason
            return row
        for name, value in outcome.result.items():
            setattr(row, name, value)
        self.complete(row)
        return row

    def complete(self, row: Row) -> None:
        """Fields that the sweep knows and the cell does not; nothing for a cell that was wrong."""
        if row.status != "ok":
            return
        limit = self.results.machine["limits"]["tflops"].get(row.precision)
        row.share = row.tflops / limit if row.tflops and limit else None
        first = self.outcomes.get(preparation.start_key(row.cell))
        if first and first[0].ok and row.mode == "infer":
            row.first_startup_s = first[0].result
        if row.mode == "infer" and row.pckh is None:
            for name, value in reduced_pckh(self.settings, row.variant, row.path, row.precision).items():
                setattr(row, name, value)
        if row.mode == "infer" and self.settings.size == INPUT_SIZE:
            threads = 0 if self.device.startswith("cuda") else self.settings.threads
            path, milliseconds = f"{row.path}:{row.precision}", 1e3 / (row.images_s or 1.0)
            model = device_model(self.device)
            remember_measurement(Measurement(row.variant, path, model, threads, row.batch_size, milliseconds))

    # ---- rows

    def record(self, row: Row) -> None:
        row.finished = now()
        self.results.add(row)
        self.display.row(row)

    def blank(self, cell: Cell) -> Row:
        """A row with everything but an outcome."""
        return Row(
            **dataclasses.asdict(cell),
            status="ok",
            device=self.device,
            size=self.settings.size,
            threads=self.settings.threads,
            commit=commit(),
            versions=versions(),
            configuration=self.configuration,
        )

    def skipped(self, cell: Cell, reason: str) -> Row:
        return dataclasses.replace(self.blank(cell), status="skipped", reason=reason)

    def skip(self, cell: Cell) -> str:
        return why_not(cell, self.device, self.request.full, asked_for=bool(self.request.paths))

    def done(self, cell: Cell) -> bool:
        """Whether the folder holds the cell's answer for this configuration; what failed or was put off is tried again."""
        row = self.results.find(cell)
        return row is not None and row.status in ("ok", "WRONG") and row.configuration == self.configuration


def device_string(device: str) -> str:
    """ "cpu" or "cuda:0"."""
    target = resolve_device(device)
    if target.type == "cuda" and not torch.cuda.is_available():
        raise FasthgError(f"device {device}: no CUDA device that this PyTorch ({torch.__version__}) can use; give cpu")
    return str(target)


def choose_folder(request: Request) -> Path:
    """The folder of the run: --out, else the newest under out/ for --resume, else a new one named by the time."""
    if request.out:
        return make_folder(request.out)
    if request.resume:
        earlier = sorted(RUNS.glob("sweep-*/results.jsonl"))
        if not earlier:
            raise FasthgError(f"no sweep under {RUNS.resolve()} to resume; give --out")
        return earlier[-1].parent
    return make_folder(RUNS / datetime.now().strftime("sweep-%Y%m%d-%H%M%S"))


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def sweep(request: Request) -> Path:
    """Run a sweep and return its folder; raises FasthgError for a request that cannot be, before anything is measured."""
    with Display() as display:
        run = Sweep(request, display)
        try:
            with filelock.FileLock(run.out / ".lock", timeout=0):
                run.run()
        except filelock.Timeout:
            raise FasthgError(f"{run.out} is in use by another sweep; wait for it, or give another --out") from None
        except KeyboardInterrupt:
            rows = sum(run.done(cell) for cell in run.cells)
            note(f"interrupted: {rows} of {len(run.cells)} cells are in {run.out}; --resume --out {run.out} goes on")
            raise
        minutes = (time.monotonic() - run.began) / 60
        display.say(f"{run.out / 'report.html'}  ({minutes:.1f} minutes)")
    return run.out


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part for part in text.replace(",", " ").split()))


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in _names(text))
    except ValueError:
        raise FasthgError(f"--batch-sizes {text!r}; give whole numbers such as 1,8,64") from None


@app.command()
def main(
    variants: Annotated[str, typer.Option(help="Networks, separated by commas.")] = ",".join(VARIANTS),
    paths: Annotated[str, typer.Option(help="Execution paths such as eager,openvino:bf16; all where left out.")] = "",
    modes: Annotated[str, typer.Option(help="infer, train, loader.")] = ",".join(MODES),
    batch_sizes: Annotated[str, typer.Option(help="Images at a time, such as 1,8,64.")] = "",
    data: Annotated[Path | None, typer.Option(help="Dataset; one is rendered where left out.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Folder of <variant>.safetensors to measure PCKh with.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    full: Annotated[bool, typer.Option("--full", help="Every cell, more repeats, no limit of time.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of the results; a new one under out/ where left out.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the sweep in --out, or with the newest.")] = False,
    minutes: Annotated[
        float | None, typer.Option(min=0.1, help=f"End within this time; {MINUTES:.0f} without --full.")
    ] = None,
    size: Annotated[int, typer.Option(min=64, help="Side of the crops in pixels; the study's is 256.")] = INPUT_SIZE,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; PyTorch's own number where left out.")] = None,
    people: Annotated[int | None, typer.Option(min=1, help="People that PCKh is measured on.")] = None,
    short_training: Annotated[
        bool, typer.Option(help="Train reduced networks of variants without weights, for their PCKh parity.")
    ] = True,
    cell_limit: Annotated[float | None, typer.Option(min=0.1, help="Seconds after which a cell is ended.")] = None,
) -> None:
    """Measure every variant by every execution path and write results.jsonl, results.csv, report.md and report.html."""
    request = Request(
        _names(variants),
        _names(paths),
        _names(modes),
        _sizes(batch_sizes),
        data,
        weights,
        device,
        full,
        out,
        resume,
        minutes,
        size,
        threads,
        people,
        short_training,
        cell_limit,
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sweep(request)


if __name__ == "__main__":
    raise SystemExit(run_app(app, prog="python -m bench.sweep"))
