"""Function calls in processes of their own, several at a time: what has to be prepared before something is timed."""

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
LEFT_OUT = Outcome(reason="no memory was left for its process beside the others")


@dataclass(frozen=True)
class Job:
    """One function call.

    cell   the cell that it measures: it holds when it is prepared; None for a call that just ends
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    cell: Cell | None = None


def run_jobs(
    jobs: Sequence[Job], workers: int, log_dir: Path, limit_s: float, deadline: float = float("inf")
) -> Iterator[tuple[Job, Outcome | Isolated]]:
    """Run the jobs, begun in their order, and yield each when it ends, with its outcome, or when it holds, with its
    process. Each has `limit_s` seconds, and all together until `deadline` (time.monotonic). A cell is left out where
    memory is short.
    """
    stopped = threading.Event()

    def run(job: Job) -> Outcome | Isolated:
        if job.cell and memory_is_short():
            return LEFT_OUT
        log = log_dir / f"{job.name.replace(' ', '-')}.log"
        process = Isolated(job.function, job.arguments, log, holds=job.cell is not None)
        if stopped.is_set():  # while it was being started: whoever ends all processes may have missed it
            process.end()
            return LEFT_OUT
        return process.wait(max(0.0, min(limit_s, deadline - time.monotonic()))) or process

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
