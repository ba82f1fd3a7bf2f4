"""One sweep: what is measured, in which order, and what becomes of it."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import filelock
import psutil
import torch

from bench.measure import isolate
from bench.measure.isolate import Outcome, end_all, run_isolated
from bench.measure.jobs import LEFT_OUT, run_jobs
from bench.measure.record import Cell, Results, Row, commit, digest_of, versions
from bench.measure.roofline import measure_limits
from bench.report.report import REPORTS, write_reports
from bench.report.summary import summary
from bench.sweep import preparation
from bench.sweep.cells import measure_cell
from bench.sweep.display import Display
from bench.sweep.materials import checked_weights
from bench.sweep.pace import budget_now
from bench.sweep.plan import MODES, default_paths, plan, too_costly, why_not
from bench.sweep.settings import Settings
from bench.sweep.short_training import reduced_pckh
from fasthg.console import note
from fasthg.data.dataset import load_dataset
from fasthg.errors import FasthgError
from fasthg.files import make_folder, sha256
from fasthg.network.variants import INPUT_SIZE, VARIANTS
from fasthg.runtimes.measured import Measurement, device_model, remember_measurement
from fasthg.runtimes.request import resolve_device

RUNS = Path("out")  # where a sweep without --out makes its folder
MINUTES = 10.0  # a sweep without --full ends within
PREPARATION_SHARE = 0.6  # of the minutes: nothing is prepared after them
REPORT_S = 6.0  # kept free for the reports
SHORTEST_CELL_S = 4.0  # with less time left, no cell begins
CELL_LIMIT_S = 120.0
#: What a cell's process has imported when it begins, and what some paths need beside that.
PRELOAD = (
    "torch",
    "fasthg.runtimes.paths",
    "fasthg.metrics.evaluate",
    "training.learner",
    "bench.sweep.cells",
    "bench.sweep.short_training",
)
_ONNX = ("torch.onnx", "onnx")
PATH_PRELOAD = {
    "compile": ("torch._dynamo", "torch._inductor.compile_fx"),
    "onnxruntime": (*_ONNX, "onnxruntime"),
    "openvino": (*_ONNX, "openvino"),
    "ncnn": ("ncnn",),
}
FULL_CELL_LIMIT_S = 1800.0
TRAIN_PEOPLE, VAL_PEOPLE, PEOPLE_SEED, PEOPLE_SIZE = 64, 64, 2016, (1280, 720)  # rendered where no data is given


@dataclasses.dataclass(frozen=True)
class SweepRequest:
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
    """One run over the cells of a request, in the folder `out`."""

    def __init__(self, request: SweepRequest, cells: Sequence[Cell], out: Path, display: Display) -> None:
        self.request, self.cells, self.out, self.display = request, cells, out, display
        self.device = device_string(request.device)
        minutes = request.minutes or (None if request.full else MINUTES)
        self.began = time.monotonic()
        self.deadline = self.began + 60 * minutes - REPORT_S if minutes else float("inf")
        self.cell_limit = request.cell_limit or (FULL_CELL_LIMIT_S if request.full else CELL_LIMIT_S)
        self.logs = make_folder(out / "logs")
        self.results = Results(out / "results.jsonl")
        reports = any((out / name).exists() for name in REPORTS)
        if (self.results.rows or reports) and not request.resume:
            raise FasthgError(f"{out} holds a sweep already; give --resume to go on with it, or another --out")
        self.settings = self.make_settings()
        self.waiting: list[Cell] = []  # cells that are still to be measured
        self.held: dict[Cell, isolate.Isolated] = {}  # cells that are prepared and wait for their turn
        self.ended: dict[Cell, Outcome] = {}  # cells that ended while they were prepared

    def make_settings(self) -> Settings:
        """What the cells share; renders the dataset where none is given."""
        request = self.request
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
            infer_budget=5.0 if full else 1.0,
            train_budget=15.0 if full else 2.0,
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

        self.display.say(f"rendering {TRAIN_PEOPLE} + {VAL_PEOPLE} people")
        folder = self.out / "people"
        return synthesize(folder, TRAIN_PEOPLE, VAL_PEOPLE, PEOPLE_SEED, size=PEOPLE_SIZE, progress=False)

    def preload(self) -> None:
        """Have every process start with the modules that the cells need, and with one cache of inductor's."""
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str((self.settings.cache / "inductor").resolve())
        paths = {cell.path for cell in self.cells}
        isolate.preload([*PRELOAD, *(module for path in paths for module in PATH_PRELOAD.get(path, ()))])

    # ---- the run

    def run(self) -> None:
        """Measure every cell that is not done, and write the reports, whatever happens."""
        try:
            self.preload()
            self.measure_machine()
            for row in [self.absent(cell) for cell in self.cells if not self.done(cell)]:
                self.waiting.append(row.cell) if row.status == "ok" else self.record(row)
            self.prepare(self.waiting)
            self.display.phase(len(self.waiting))
            self.display.heading()
            for row in self.results.rows:
                self.display.row(row)
            for cell in list(self.waiting):
                self.record(self.measure(cell))
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
        """Everything that is made before the first timing; see `bench.sweep.preparation`."""
        workers = 1 if self.device.startswith("cuda") else max(1, min(self.settings.threads, os.cpu_count() or 1))
        deadline = self.began + PREPARATION_SHARE * (self.deadline - self.began)
        rounds = preparation.rounds(cells, self.settings)
        self.display.phase(sum(map(len, rounds)))
        for jobs in rounds:
            self.display.now(f"preparing networks, {workers} at a time")
            for job, result in run_jobs(jobs, workers, self.logs, self.cell_limit, deadline):
                self.display.advance()
                if isinstance(result, isolate.Isolated):
                    assert job.cell is not None
                    self.held[job.cell] = result
                elif job.cell and result is not LEFT_OUT:
                    self.ended[job.cell] = result
                elif not result.ok and result is not LEFT_OUT:
                    self.display.say(f"preparing {job.name}: {result.reason}", "yellow")

    def measure(self, cell: Cell) -> Row:
        """The row of a cell that takes its times now."""
        self.waiting.remove(cell)
        if self.deadline - time.monotonic() < SHORTEST_CELL_S:
            minutes = (self.deadline - self.began + REPORT_S) / 60
            reason = f"the {minutes:.0f} minutes are spent; --resume goes on, --full takes its time"
            return dataclasses.replace(self.blank(cell), status="left out", reason=reason)
        self.display.now(f"{cell.mode} {cell.variant} {cell.path}:{cell.precision} batch {cell.batch_size}")
        row = self.blank(cell)
        outcome = self.ended.pop(cell, None) or self.time_cell(cell)
        self.display.advance()
        if not outcome.ok:
            row.status, row.reason = ("skipped" if outcome.refused else "error"), outcome.reason
            return row
        for name, value in outcome.result.items():
            setattr(row, name, value)
        self.complete(row)
        return row

    def time_cell(self, cell: Cell) -> Outcome:
        """What becomes of a cell that holds or has yet to begin."""
        process = self.held.pop(cell, None)
        if process is None:
            process = isolate.Isolated(measure_cell, (cell, self.settings), self.logs / f"{cell.name}.log", holds=True)
            if outcome := process.wait(self.limit_now()):
                return outcome
        rest = [cell, *(other for other in self.waiting if other not in self.ended)]
        tflops = self.results.machine["limits"]["tflops"].get("fp32")
        process.go(budget_now(rest, self.settings, self.deadline - time.monotonic(), tflops))
        outcome = process.wait(self.limit_now())
        assert outcome is not None, "a cell has one turn"
        return outcome

    def limit_now(self) -> float:
        """Seconds after which a cell is ended."""
        return max(0.0, min(self.cell_limit, self.deadline - time.monotonic()))

    def complete(self, row: Row) -> None:
        """Fields that the sweep knows and the cell does not; nothing for a cell that was wrong."""
        if row.status != "ok":
            return
        limit = self.results.machine["limits"]["tflops"].get(row.precision)
        row.share = row.tflops / limit if row.tflops and limit else None
        if row.mode == "infer" and row.pckh is None:
            for name, value in reduced_pckh(self.settings, row.variant, row.path, row.precision).items():
                setattr(row, name, value)
        if row.mode == "infer" and self.settings.size == INPUT_SIZE:
            threads = 0 if self.device.startswith("cuda") else self.settings.threads
            path, milliseconds = f"{row.path}:{row.precision}", 1e3 / (row.images_s or 1.0)
            model = device_model(self.device)
            weights = checked_weights(self.settings, row.variant)
            remember_measurement(Measurement(row.variant, path, model, threads, row.batch_size, milliseconds, weights))

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

    def absent(self, cell: Cell) -> Row:
        """The row of a cell that cannot run here or is left out for its cost; a blank one where it is to be measured.

        Nothing is left out of a full sweep, nor where the user named the paths.
        """
        if reason := why_not(cell, self.device):
            return dataclasses.replace(self.blank(cell), status="skipped", reason=reason)
        asked_for = self.request.full or self.request.paths
        if reason := "" if asked_for else too_costly(cell, self.device):
            return dataclasses.replace(self.blank(cell), status="left out", reason=reason)
        return self.blank(cell)

    def done(self, cell: Cell) -> bool:
        """Whether the folder holds the cell's answer for this configuration; what failed or was put off runs again."""
        row = self.results.find(cell)
        return row is not None and row.status in ("ok", "WRONG") and row.configuration == self.configuration


def plan_request(request: SweepRequest) -> list[Cell]:
    """The cells of a request; raises FasthgError for anything in it that cannot be, before a file is written."""
    for module in ("jinja2", "matplotlib"):  # the reports at the end need them
        importlib.import_module(module)
    device = device_string(request.device)
    paths = request.paths or default_paths(request.full)
    cells = plan(request.variants, paths, request.modes, request.batch_sizes, device)
    if request.weights and not request.weights.is_dir():
        raise FasthgError(f"weights {request.weights}: no such folder; give one with <variant>.safetensors in it")
    if request.data:
        load_dataset(request.data, "val")
        load_dataset(request.data, "train")
    return cells


def device_string(device: str) -> str:
    """ "cpu" or "cuda:0"."""
    target = resolve_device(device)
    if target.type == "cuda" and not torch.cuda.is_available():
        raise FasthgError(f"device {device}: no CUDA device that this PyTorch ({torch.__version__}) can use; give cpu")
    return str(target)


def choose_folder(request: SweepRequest) -> Path:
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
    return datetime.now(UTC).isoformat(timespec="seconds")


def sweep(request: SweepRequest) -> Path:
    """Run a sweep and return its folder; raises FasthgError for a bad request before anything is written."""
    cells = plan_request(request)
    out = choose_folder(request)
    with _lock(out), Display() as display:
        try:
            run = Sweep(request, cells, out, display)
            run.run()
        except KeyboardInterrupt:
            note(f"interrupted: what was measured is kept; --resume --out {out} goes on")
            raise
        minutes = (time.monotonic() - run.began) / 60
        for sentence in summary(run.results.rows, f"python -m bench.sweep --full --resume --out {out}"):
            display.say(sentence)
        display.say(f"{out / 'report.html'} ({minutes:.1f} minutes)")
    return out


@contextlib.contextmanager
def _lock(out: Path) -> Iterator[None]:
    lock = filelock.FileLock(out / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise FasthgError(f"{out} is in use by another sweep; wait for it, or give another --out") from None
    try:
        yield
    finally:
        lock.release()
