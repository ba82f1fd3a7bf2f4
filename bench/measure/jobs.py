"""Function calls in processes of their own, several at a time: what has to be prepared before anything is timed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.measure.isolate import Isolated, Outcome
from bench.measure.record import Cell

SPARE_MEMORY = 0.25  # of the machine's, that stays free; with less, no further cell starts ahead of its turn
LEFT_OUT = Outcome(reason="no time or memory was left to prepare it beforehand")


@dataclass(frozen=True)
class Job:
    """One function call.

    cell   the cell that it measures: it holds when it is prepared; None for a call that just ends
    cost   a guess in no particular unit; the costly ones begin first, so that the cores finish together
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    cost: float
    cell: Cell | None = None


def run_jobs(
    jobs: Sequence[Job], workers: int, log_dir: Path, limit_s: float, deadline: float
) -> Iterator[tuple[Job, Outcome | Isolated]]:
    """Run the jobs and yield each when it ends, with its outcome, or when it holds, with its process.

    A job is left out where `deadline` (time.monotonic) has passed or memory is short: a cell then does the work itself.
    """

    stopped = threading.Event()

    def run(job: Job) -> Outcome | Isolated:
        if time.monotonic() >= deadline or (job.cell and memory_is_short()):
            return LEFT_OUT
        log = log_dir / f"{job.name.replace(' ', '-')}.log"
        process = Isolated(job.function, job.arguments, log, holds=job.cell is not None)
        if stopped.is_set():  # while it was being started: whoever ends all processes may have missed it
            process.end()
            return LEFT_OUT
        return process.wait(limit_s) or process

    pool = ThreadPoolExecutor(workers)
    futures = {pool.submit(run, job): job for job in jobs}
    try:
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        stopped.set()
        pool.shutdown(wait=False, cancel_futures=True)


def memory_is_short() -> bool:
    """Whether processes that hold may take no more."""
    memory = psutil.virtual_memory()
    return memory.available < SPARE_MEMORY * memory.total
