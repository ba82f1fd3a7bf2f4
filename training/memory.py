"""Memory of a training process on CPUs."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

#: Parameters of glibc's mallopt (malloc.h).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Have glibc keep what a step frees for the next step; returns whether it does. Does nothing under another libc.

    Activations of a training step are large, so that by default each is mapped afresh and given back, and the kernel
    clears every page of it again: 18 % of the CPU time of `small` at 256 pixels on two cores, 2 % with this.
    """
    mallopt = _of_libc("mallopt")
    wanted = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1, _M_TOP_PAD: 2**28}
    return mallopt is not None and all(mallopt(name, value) == 1 for name, value in wanted.items())


def give_back_freed_memory() -> None:
    """Have glibc return what was freed so far to the system, kept or not. Does nothing under another libc."""
    if malloc_trim := _of_libc("malloc_trim"):
        malloc_trim(0)


def _of_libc(name: str) -> Any:
    """A function of the C library that the process runs with; None where it has none of that name."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
