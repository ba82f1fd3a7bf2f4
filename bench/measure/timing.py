"""How a time is taken: warm-up apart, enough repeats under a budget, percentiles rather than one number."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch

from training.memory import give_back_freed_memory

MIN_REPEATS = 5  # fewer say nothing about spread; a step slower than the budget still gets `FLOOR_REPEATS`
FLOOR_REPEATS = 3
FIRST = -15  # niceness; the least is -20, which would leave nothing for what keeps the system alive


@dataclass(frozen=True)
class Timing:
    """Seconds of each repeat, in the order they were taken."""

    seconds: tuple[float, ...]

    def percentile(self, percent: float) -> float:
        """Seconds below which `percent` of the repeats stay."""
        return float(np.percentile(self.seconds, percent))

    @property
    def median(self) -> float:
        return self.percentile(50)

    @property
    def repeats(self) -> int:
        return len(self.seconds)


def enough(repeats: int, spent: float, budget: float, max_repeats: int) -> bool:
    """Whether to stop: at `max_repeats`, at the budget with `MIN_REPEATS`, at twice the budget with `FLOOR_REPEATS`."""
    if repeats >= max_repeats or (repeats >= MIN_REPEATS and spent >= budget):
        return True
    return repeats >= FLOOR_REPEATS and spent >= 2 * budget


def measure(
    step: Callable[[], object],
    *,
    device: str = "cpu",
    budget: float = 1.5,
    warmup: int = 2,
    max_repeats: int = 100,
) -> Timing:
    """Time `step` again and again for about `budget` seconds (see `enough`), after `warmup` calls that do not count."""
    for _ in range(warmup):
        step()
    synchronise(device)
    seconds: list[float] = []
    while not enough(len(seconds), sum(seconds), budget, max_repeats):
        start = time.perf_counter()
        step()
        synchronise(device)
        seconds.append(time.perf_counter() - start)
    return Timing(tuple(seconds))


def go_first() -> None:
    """Let this process, and what it starts, run before others of this system where that is allowed, as it is for root.

    The rest get a thirtieth of a core that is wanted by both. Nothing helps against neighbours outside a virtual
    machine.
    """
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, FIRST)


def synchronise(device: str) -> None:
    """Wait for the queue of `device`, such as "cuda:1"; nothing to wait for on a CPU."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


class PeakMemory:
    """Most memory that a cell needs while it runs, beyond what its process had when this was made.

    On a CPU resident memory of the process; on a GPU what the device gave out, by whatever library: torch's own counter
    would miss TensorRT's.
    """

    def __init__(self, device: str) -> None:
        self.device, self.cuda = device, device.startswith("cuda")
        give_back_freed_memory()  # else `restart` would give back what counts as having been there before
        self.before = self._used()

    def restart(self) -> None:
        """Forget the peak so far, so that start-up (an export, a compiler, a check) does not count."""
        give_back_freed_memory()
        if not self.cuda and sys.platform == "linux":
            Path("/proc/self/clear_refs").write_text("5")  # resets the kernel's high-water mark of this process

    def megabytes(self) -> float:
        """10^6 bytes at the peak since `restart`, less those at construction."""
        if not self.cuda and sys.platform == "linux":
            status = Path("/proc/self/status").read_text()
            return (1024 * int(status.split("VmHWM:")[1].split()[0]) - self.before) / 1e6
        return (self._used() - self.before) / 1e6

    def _used(self) -> int:
        if self.cuda:
            free, total = torch.cuda.mem_get_info(self.device)
            return total - free
        return psutil.Process().memory_info().rss


class OtherLoad:
    """How many cores were busy with anything but this process and its children, on average since this was made.

    Time that the host of a virtual machine kept for itself counts as such.
    """

    def __init__(self) -> None:
        self._start, self._others = time.perf_counter(), self._busy()

    def cores(self) -> float:
        """Cores, 0 on a quiet machine."""
        return max(0.0, (self._busy() - self._others) / (time.perf_counter() - self._start))

    @staticmethod
    def _busy() -> float:
        """Seconds of all cores that were not idle, less those of this process and of its children."""
        machine, this = psutil.cpu_times(), psutil.Process()
        idle = machine.idle + getattr(machine, "iowait", 0.0)
        guests = getattr(machine, "guest", 0.0) + getattr(machine, "guest_nice", 0.0)  # counted in user and nice too
        mine = 0.0
        for process in (this, *this.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                mine += process.cpu_times().user + process.cpu_times().system
        return sum(machine) - idle - guests - mine
