"""One sweep: what is asked for, where it goes, and what it does from the first process to the last sentence."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import filelock
import psutil
import torch

from bench.measure import isolate
from bench.measure.energy import Energy
from bench.measure.isolate import end_all, run_isolated
from bench.measure.record import Cell, Results, commit, digest_of, versions
from bench.measure.roofline import measure_limits
from bench.report.report import REPORTS, write_reports
from bench.report.summary import summary
from bench.sweep.display import Display
from bench.sweep.passes import Measuring, Pace
from bench.sweep.people import load_people
from bench.sweep.plan import MODES, default_paths, grouped, plan, too_costly, why_not
from bench.sweep.preparation import first_jobs, prepare
from bench.sweep.rows import blank, now
from bench.sweep.settings import Settings
from fasthg.console import note
from fasthg.data.dataset import check_images
from fasthg.errors import FasthgError
from fasthg.files import cannot_write, make_folder, sha256
from fasthg.network.variants import INPUT_SIZE, VARIANTS, get_config
from fasthg.runtimes.measured import device_model
from fasthg.runtimes.request import resolve_device

RUNS = Path("out")  # where a sweep without --out makes its folder
MINUTES = 10.0  # a sweep without --full ends within
REPORT_S = 6.0  # kept free for the reports
WEEK_S = 7 * 24 * 3600.0  # the most that is waited for; the system counts no further than 24 days
CELL_LIMIT_S, FULL_CELL_LIMIT_S = 120.0, 1800.0
LOADER_S, FULL_LOADER_S = 2.0, 10.0  # of timed repeats for a loader
PEOPLE = 32  # that PCKh is measured on without --full
STREAM_S = 600.0  # of single crops for the fastest path of each variant, with --full
FULL_TOTAL_S = 3600.0  # what a full sweep, which has no end, takes its shares of
#: What a cell's process has imported when it begins, and what some paths need beside that.
PRELOAD = ("torch", "fasthg.runtimes.paths", "fasthg.metrics.evaluate", "training.learner", "bench.sweep.cells")
_ONNX = ("torch.onnx", "onnx")
PATH_PRELOAD = {
    "compile": ("torch._dynamo", "torch._inductor.compile_fx"),
    "onnxruntime": (*_ONNX, "onnxruntime"),
    "openvino": (*_ONNX, "openvino"),
    "ncnn": ("ncnn",),
}
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
    cell_limit: float | None = None


class Sweep:
    """One run over the cells of a request, in the folder `out`."""

    def __init__(self, request: SweepRequest, cells: Sequence[Cell], out: Path, display: Display) -> None:
        self.request, self.cells, self.out, self.display = request, cells, out, display
        self.device = device_string(request.device)
        self.began = time.monotonic()
        self.minutes = request.minutes or (None if request.full else MINUTES)
        total = 60 * self.minutes if self.minutes else FULL_TOTAL_S
        self.pace = Pace(
            deadline=self.began + total - REPORT_S if self.minutes else float("inf"),
            total=total,
            cell_limit=request.cell_limit or (FULL_CELL_LIMIT_S if request.full else CELL_LIMIT_S),
            loader_s=FULL_LOADER_S if request.full else LOADER_S,
            stream_s=STREAM_S if request.full and not self.minutes else 0.0,
        )
        self.logs = make_folder(out / "logs")
        self.results = Results(out / "results.jsonl")
        reports = any((out / name).exists() for name in REPORTS)
        if (self.results.rows or reports) and not request.resume:
            raise FasthgError(f"{out} holds a sweep already; give --resume to go on with it, or another --out")
        self.settings = self.make_settings()
        cores = 1 if self.device.startswith("cuda") else max(1, min(self.settings.threads, os.cpu_count() or 1))
        self.workers = cores  # processes that prepare themselves at once
        self.measuring = Measuring(self.results, self.settings, self.configuration, self.pace, self.workers, self.logs)

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
            people=request.people or (10**9 if full else PEOPLE),
        )
        trained = {variant: settings.trained(variant) for variant in request.variants}
        trained |= {f"reduced {variant}": settings.reduced(variant) for variant in request.variants}
        weights = {variant: sha256(path) for variant, path in trained.items() if path}
        self.configuration = digest_of(
            {k: v for k, v in dataclasses.asdict(settings).items() if k not in ("cache", "data", "weights")},
            load_people(data, "val").digest,
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
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str((self.settings.cache / "inductor").resolve()))
        paths = {cell.path for cell in self.cells}
        isolate.preload([*PRELOAD, *(module for path in paths for module in PATH_PRELOAD.get(path, ()))])

    def run(self) -> None:
        """Measure every cell that is not done, and write the reports, whatever happens."""
        try:
            self.preload()
            self.measure_machine()
            todo = self.look_over()
            self.prepare_references(todo)
            self.display.heading()
            for row in self.results.rows:
                self.display.row(row)
            self.measuring.run(grouped(todo, self.device), self.display)
            self.leave_out(todo)
        finally:
            end_all()
            write_reports(self.results, self.out)

    def look_over(self) -> list[Cell]:
        """The cells that this sweep measures; rows say why of those that cannot run here, or cost too much.

        Nothing is left out of a full sweep, nor where the user named the paths.
        """
        asked_for = self.request.full or self.request.paths
        todo = []
        for cell in self.cells:
            absent, costly = why_not(cell, self.device), "" if asked_for else too_costly(cell)
            if self.measuring.done(cell) or not (absent or costly):
                todo.append(cell)
                continue
            self.record(cell, "skipped" if absent else "left out", absent or costly)
        return todo

    def prepare_references(self, cells: Sequence[Cell]) -> None:
        """What paths are compared with; see `bench.sweep.preparation.first_jobs`."""
        waiting = [cell for cell in cells if not self.measuring.done(cell)]
        jobs = first_jobs(waiting, self.settings)
        self.display.now("references")
        for reason in prepare(jobs, self.workers, self.logs, self.pace.cell_limit, self.pace.deadline)[2]:
            self.display.say(reason, "yellow")

    def leave_out(self, cells: Sequence[Cell]) -> None:
        """Rows of what no time was left for."""
        for cell in cells:
            row = self.results.find(cell)
            if row is None or row.configuration != self.configuration:
                spent = f"the {self.minutes:.0f} minutes are spent" if self.minutes else "no memory was left for it"
                self.record(cell, "left out", f"{spent}; --resume goes on, --full takes its time")

    def record(self, cell: Cell, status: str, reason: str) -> None:
        row = blank(cell, self.settings, self.configuration, status=status, reason=reason)
        row.finished = now()
        self.results.add(row)

    def measure_machine(self) -> None:
        """The limits that shares are taken of, in a process of their own; only the first time for a folder."""
        niceness, known = os.getpriority(os.PRIO_PROCESS, 0), self.results.machine
        if known.get("configuration") == self.configuration:
            self.results.describe({"niceness": max(niceness, known.get("niceness", 0))})  # of the cells that went last
            return
        self.display.say("measuring the machine's limit")
        outcome = run_isolated(
            measure_limits, (self.device,), limit_s=self.pace.cell_limit, log=self.logs / "roofline.log"
        )
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
                "niceness": niceness,
                "energy": "told" if Energy().joules() is not None else "not told here",
            }
        )


def plan_request(request: SweepRequest) -> list[Cell]:
    """The cells of a request; raises FasthgError for anything in it that cannot be, before a file is written."""
    for module in ("jinja2", "matplotlib"):  # the reports at the end need them
        importlib.import_module(module)
    for value, what, most in (
        (request.minutes, "minutes", WEEK_S / 60),
        (request.cell_limit, "seconds for a cell", WEEK_S),
    ):
        if value is not None and not 0 < value <= most:
            raise FasthgError(f"{value:g} {what}; give more than 0, and at most a week")
    device = device_string(request.device)
    paths = request.paths or default_paths(request.full)
    cells = plan(request.variants, paths, request.modes, request.batch_sizes, device)
    for variant in dict.fromkeys(cell.variant for cell in cells if cell.mode != "loader"):
        multiple = get_config(variant).min_input_multiple
        if request.size % multiple:
            raise FasthgError(f"size is {request.size}; {variant} takes multiples of {multiple}")
    if request.weights and not request.weights.is_dir():
        raise FasthgError(f"weights {request.weights}: no such folder; give one with <variant>.safetensors in it")
    if request.data:
        for split in ("val", "train"):
            check_images(load_people(request.data, split))
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
        if request.resume and not request.out.is_dir():
            raise FasthgError(f"{request.out}: no such folder to resume; give that of a sweep, or leave --resume out")
        return make_folder(request.out)
    if request.resume:
        earlier = sorted(RUNS.glob("sweep-*/results.jsonl"))
        if not earlier:
            raise FasthgError(f"no sweep under {RUNS.resolve()} to resume; give --out")
        return earlier[-1].parent
    return make_folder(RUNS / datetime.now().strftime("sweep-%Y%m%d-%H%M%S"))


def sweep(request: SweepRequest) -> Path:
    """Run a sweep and return its folder; raises FasthgError for a bad request before anything is written."""
    cells = plan_request(request)
    out = choose_folder(request)
    isolate.hush()
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
        (out / ".lock").touch()  # filelock may take a folder that cannot be written for one in use
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise FasthgError(f"{out} is in use by another sweep; wait for it, or give another --out") from None
    except OSError as error:
        raise cannot_write(out, error) from error
    try:
        yield
    finally:
        lock.release()
