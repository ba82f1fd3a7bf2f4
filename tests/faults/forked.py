"""Processes that begin as a fork of one that has imported everything, so that what is disturbed is the work itself."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.faults.outcome import LIMIT_S

_NEW_MOUNTS = 0x20000  # CLONE_NEWNS
_READY = ("fasthg.predict.command", "fasthg.label.run", "fasthg.export.export", "training.train", "training.pack")
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(list(_READY))


@dataclass(frozen=True)
class Disk:
    """A small disk that a process finds mounted on a folder; what it holds at the end is copied to `kept`.

    variables  of the environment, beside
    """

    folder: Path
    options: str
    kept: Path
    variables: dict[str, str]

    def mount(self) -> None:
        if ctypes.CDLL(None, use_errno=True).unshare(_NEW_MOUNTS):
            raise OSError(ctypes.get_errno(), "unshare")
        for words in (["--make-rprivate", "/"], ["-t", "tmpfs", "-o", self.options, "tmpfs", str(self.folder)]):
            subprocess.run(["mount", *words], check=True)
        os.environ |= self.variables
        tempfile.tempdir = None


class Forked:
    """`python -m MODULE ARGUMENTS`, in a process group of its own."""

    def __init__(self, arguments: list[str], disk: Disk | None = None) -> None:
        os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        descriptor, name = tempfile.mkstemp(prefix="faults-")
        os.close(descriptor)
        self._output = Path(name)
        self._process = _context.Process(target=_run, args=(arguments[1:], name, disk))
        self._process.start()

    def has_ended(self) -> bool:
        return not self._process.is_alive()

    def kill(self, kind: signal.Signals) -> bool:
        """Send a signal to the whole group; whether it was still there."""
        try:
            os.killpg(self._process.pid or 0, kind)
        except ProcessLookupError:  # it has ended, or has not begun
            return False
        return True

    def ended(self) -> tuple[int | None, str]:
        """Exit code and output; None where it hung and had to be killed."""
        self._process.join(LIMIT_S)
        code = self._process.exitcode
        if code is None:
            self.kill(signal.SIGKILL)
        output = self._output.read_text(errors="replace")
        self._output.unlink()
        return code, output

    def first_file(self, out: Path) -> float:
        """When something appeared in `out`, or the process ended."""
        while not self.has_ended() and not (out.exists() and any(path.is_file() for path in out.rglob("*"))):
            time.sleep(0.005)
        return time.monotonic()


def _run(arguments: list[str], output: str, disk: Disk | None) -> None:
    os.setsid()
    with open(output, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = arguments
    if disk:
        disk.mount()
    try:
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    finally:
        if disk:
            shutil.copytree(disk.folder, disk.kept, symlinks=True)
