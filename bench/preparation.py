"""Everything that is made before the first timing: jobs in processes of their own, as many at once as cores.

Converting and compiling deep networks takes far longer than timing them, and uses one core; so it is done for all cells
beforehand, side by side, and the cells then run one after the other on a quiet machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.isolate import Outcome, run_isolated
from bench.loaders import PACKED_FILE
from bench.materials import first_start, make_reference
from bench.record import Cell
from bench.settings import Settings
from bench.short_training import reduced_name, short_training
from fasthg.variants import get_config

#: Paths whose first start is worth a job: the networks that they convert or compile are kept in the shared cache.
COMPILED = ("compile", "tensorrt", "torch_tensorrt")
CONVERTED = ("onnxruntime", "openvino")  # both read one ONNX file
COSTS = {"convert": 1.0, "compile": 3.0}  # of a first start, for each convolution of the network
TRAINING_COST = 700.0  # of a short training, in the same unit


@dataclass(frozen=True)
class Job:
    """One function call.

    key    what the sweep finds its outcome by
    cost   a guess in no particular unit; the costly ones begin first, so that the cores finish together
    """

    key: tuple[str, ...]
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    cost: float

    @property
    def name(self) -> str:
        return " ".join(self.key)


def reference_jobs(cells: Sequence[Cell], settings: Settings) -> list[Job]:
    """Weights and reference heatmaps of every variant, and the packed crops; all else builds on these."""
    jobs = [
        Job(("reference", variant), make_reference, (settings, variant), size_of(variant))
        for variant in variants_of(cells, "infer")
    ]
    if any(cell.path.endswith("packed") for cell in cells if cell.mode == "loader"):
        jobs.append(Job(("packed crops",), pack_crops, (settings,), 1000.0))
    return by_cost(jobs)


def starting_jobs(cells: Sequence[Cell], settings: Settings) -> list[Job]:
    """First starts of what is converted or compiled, and the short trainings."""
    jobs: dict[tuple[str, ...], Job] = {}
    for cell in cells:
        if cell.mode == "infer" and (cell.path in (*CONVERTED, *COMPILED) or cell.precision == "int8"):
            key = start_key(cell)
            threads = 1 if key[0] == "convert" else settings.threads
            arguments = (settings, cell.variant, cell.path, cell.precision, cell.batch_size, threads)
            jobs.setdefault(key, Job(key, first_start, arguments, COSTS[key[0]] * size_of(cell.variant)))
    if settings.short_training:
        paths = list(dict.fromkeys((cell.path, cell.precision) for cell in cells if scored_in_short(cell)))
        for variant in variants_of(cells, "infer"):
            if not settings.trained(variant):
                training = Job(
                    ("train", reduced_name(variant)), short_training, (settings, variant, paths), TRAINING_COST
                )
                jobs.setdefault(training.key, training)
    return by_cost(list(jobs.values()))


def start_key(cell: Cell) -> tuple[str, ...]:
    """The key of the job that starts a cell's network for the first time, where there is one."""
    if cell.path in CONVERTED and cell.precision != "int8":
        return ("convert", cell.variant)
    return ("compile", cell.variant, f"{cell.path}:{cell.precision}", f"b{cell.batch_size}")


def scored_in_short(cell: Cell) -> bool:
    """Whether the short training scores the cell's path: compiling another network for it would cost too much."""
    return cell.mode == "infer" and cell.path not in COMPILED


def pack_crops(settings: Settings) -> None:
    """Pack the training split's crops for the loaders that read them."""
    from training.pack import pack

    if not (settings.cache / PACKED_FILE).exists():
        pack(settings.data, settings.cache / PACKED_FILE, splits=("train",), threads=1, progress=False)


def run_jobs(
    jobs: Sequence[Job], workers: int, log_dir: Path, limit_s: float, deadline: float
) -> Iterator[tuple[Job, Outcome]]:
    """Run the jobs and yield each with its outcome as it ends.

    A job that could not begin before `deadline` (time.monotonic) is left out: a cell then does the work itself.
    """

    def run(job: Job) -> Outcome:
        if time.monotonic() >= deadline:
            return Outcome(reason="no time was left to prepare it beforehand")
        log = log_dir / f"prepare-{'-'.join(job.key).replace(' ', '-').replace(':', '-')}.log"
        return run_isolated(job.function, job.arguments, limit_s=limit_s, log=log)

    pool = ThreadPoolExecutor(workers)
    futures = {pool.submit(run, job): job for job in jobs}
    try:
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def variants_of(cells: Sequence[Cell], mode: str) -> list[str]:
    """The variants that some cell of a mode has, in their order."""
    return list(dict.fromkeys(cell.variant for cell in cells if cell.mode == mode))


def size_of(variant: str) -> float:
    """Convolutions of a variant, roughly: what an exporter or a compiler has to walk through."""
    config = get_config(variant)
    locations = sum(3 * depth + 2 for depth in config.stack_depths)
    return float(locations * config.num_blocks * config.num_convs)


def by_cost(jobs: Sequence[Job]) -> list[Job]:
    return sorted(jobs, key=lambda job: -job.cost)
