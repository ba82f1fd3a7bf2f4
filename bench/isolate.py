"""Running a function in a process of its own under a time limit, and ending everything that it started.

Processes come from a fork server that can have torch and the network's modules imported already, so that one costs
about a tenth of a second rather than three. What the function prints goes to a log file.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import psutil

from fasthg.errors import BackendUnavailable, FasthgError

_context = multiprocessing.get_context("forkserver")
_GRACE_S = 5.0  # for a process to die once it was killed
_FAREWELL_S = 2.0  # for a process to end by itself once it has answered
_running: set[Any] = set()  # processes that a call waits for; several threads may call at once
_lock = threading.Lock()  # `multiprocessing` keeps books on its processes that threads must not change together


@dataclass(frozen=True)
class Outcome:
    """What became of a function: its result, or the reason why there is none, in one line.

    refused   the reason is BackendUnavailable: it cannot be done here, and nothing is wrong
    """

    result: Any = None
    reason: str = ""
    refused: bool = False

    @property
    def ok(self) -> bool:
        return not self.reason


def preload(modules: Sequence[str]) -> None:
    """Have the fork server import these modules; what is not installed is passed over.

    Takes effect where no process has been started yet. None of them may start threads when it is imported.
    """
    # The server takes over the environment: nobody wants to hear of what the ones that were killed left unclosed.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")
    _context.set_forkserver_preload(list(modules))


def run_isolated(function: Callable[..., Any], arguments: tuple[Any, ...], *, limit_s: float, log: Path) -> Outcome:
    """Call `function(*arguments)` in a new process; both must be importable or picklable.

    The process and all its descendants are killed at the limit, when the call is over, and when this process dies.
    """
    receiver, sender = _context.Pipe(duplex=False)
    process = _context.Process(target=_child, args=(sender, log, function, arguments))
    with _lock:
        process.start()
        _running.add(process)
    sender.close()
    try:
        if not receiver.poll(limit_s):
            return Outcome(reason=f"ran past its limit of {limit_s:.0f} s")
        outcome = receiver.recv()
        wait([process.sentinel], _FAREWELL_S)
        return outcome
    except EOFError:
        with _lock:
            process.join(_GRACE_S)
        return Outcome(reason=f"{_death(process.exitcode)}; see {log}")
    finally:
        receiver.close()
        _end(process)


def end_all() -> None:
    """Kill every process that a call in another thread waits for; those calls then return."""
    for process in list(_running):
        _kill(process)


def _death(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        return f"the process was killed by {name}" + (", perhaps for memory" if name == "SIGKILL" else "")
    return f"the process ended without an answer (exit code {exitcode})"


def _end(process: Any) -> None:
    family = _kill(process)
    psutil.wait_procs(family, timeout=_GRACE_S)
    with _lock:
        process.join(_GRACE_S)
        _running.discard(process)


def _kill(process: Any) -> list[psutil.Process]:
    """Kill a process and its descendants, whatever sessions they made for themselves; returns them all."""
    family = []
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        family = [*parent.children(recursive=True), parent]
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    return family


def _child(sender: Connection, log: Path, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.setsid()
    _die_with_parent()
    with open(log, "w", buffering=1, encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    try:
        outcome = Outcome(result=function(*arguments))
    except FasthgError as error:
        outcome = Outcome(reason=str(error), refused=isinstance(error, BackendUnavailable))
    except BaseException as error:
        traceback.print_exc()
        lines = str(error).strip().splitlines()
        outcome = Outcome(reason=f"{type(error).__name__}: {lines[0] if lines else 'no message'}; see {log}")
    sender.send(outcome)


def _die_with_parent() -> None:
    """End this process's whole group as soon as the sweep is gone, so that a killed sweep leaves nothing running."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        for member in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
