"""Running a function in a process of its own under a time limit, and ending everything that it started.

Processes come from a fork server that can have torch and the network's modules imported already, so that one costs
about a tenth of a second rather than three. What the function prints goes to a log file.

A function may prepare itself while others do, and then hold: it calls the `turn` that it is given, which hands over
what the function has found out so far and returns when the machine is its own, with what `go` is told. It may do so
again and again.
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
_FAREWELL_S = 0.3  # for a process to end by itself once it has answered
_running: set[Isolated] = set()  # several threads may run functions at once
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


@dataclass(frozen=True)
class _Holds:
    """What a function sends when it waits for its turn."""

    told: Any


def hush() -> None:
    """Keep Python from telling at the end what the processes that were killed left unclosed.

    Who tells it takes over the environment when it starts: with the first process of any kind.
    """
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")


def preload(modules: Sequence[str]) -> None:
    """Have the fork server import these modules; what is not installed is passed over.

    Takes effect where no process has been started yet. None of them may start threads when it is imported.
    """
    _context.set_forkserver_preload(list(modules))


def run_isolated(function: Callable[..., Any], arguments: tuple[Any, ...], *, limit_s: float, log: Path) -> Outcome:
    """Call `function(*arguments)` in a new process and wait for its outcome."""
    outcome = Isolated(function, arguments, log).wait(limit_s)
    assert outcome is not None, "the function holds and nobody gives it its turn"
    return outcome


class Isolated:
    """`function(*arguments)` in a process of its own; both must be importable or picklable.

    With `holds`, the function takes one argument more, last: `turn`, which it calls when it is prepared, and which
    returns `value` after `go(value)`; what it gave to the last call of `turn` is in `told`. The process and all its
    descendants are killed at a limit, when the function is over, and when this process dies.
    """

    def __init__(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], log: Path, holds: bool = False
    ) -> None:
        self.log = log
        self.told: Any = None
        self._connection, theirs = _context.Pipe()
        self._process = _context.Process(target=_child, args=(theirs, log, function, arguments, holds))
        with _lock:
            self._process.start()
            _running.add(self)
        theirs.close()

    def wait(self, limit_s: float) -> Outcome | None:
        """Wait until the function is over, and return its outcome, or until it holds, and return None."""
        outcome: Outcome | None = None
        try:
            if not self._connection.poll(limit_s):
                outcome = Outcome(reason=f"ran past its limit of {limit_s:.0f} s")
            elif isinstance(message := self._connection.recv(), _Holds):
                self.told = message.told
            else:
                outcome = message
                wait([self._process.sentinel], _FAREWELL_S)
        except (EOFError, ConnectionError):
            with _lock:
                self._process.join(_GRACE_S)
            outcome = Outcome(reason=f"{_death(self._process.exitcode)}; see {self.log}")
        except BaseException:
            self.end()
            raise
        if outcome is not None:
            self.end()
        return outcome

    def go(self, value: Any = None) -> None:
        """Give the function its turn; to be called after `wait` has returned None."""
        with contextlib.suppress(ConnectionError):  # it died while it held, which the next `wait` finds out
            self._connection.send(value)

    def end(self) -> None:
        """Kill the process and its descendants."""
        psutil.wait_procs(self.kill(), timeout=_GRACE_S)
        with _lock:
            self._process.join(_GRACE_S)
            _running.discard(self)
        self._connection.close()

    def kill(self) -> list[psutil.Process]:
        """Kill the process and its descendants, whatever sessions they made for themselves; returns them all."""
        family: list[psutil.Process] = []
        with _lock:
            if self._process.exitcode is not None:
                return family  # its number may be another's by now
        with contextlib.suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self._process.pid)
            family = [*parent.children(recursive=True), parent]
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        return family


def end_all() -> None:
    """Kill every process that is left; calls that wait for one in another thread then return."""
    with _lock:  # one that is just being started is not forgotten
        left = list(_running)
    for process in left:
        process.kill()


def _death(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        return f"the process was killed by {name}" + (", perhaps for memory" if name == "SIGKILL" else "")
    return f"the process ended without an answer (exit code {exitcode})"


def _child(
    connection: Connection, log: Path, function: Callable[..., Any], arguments: tuple[Any, ...], holds: bool
) -> None:
    os.setsid()
    _die_with_parent()
    with open(log, "w", buffering=1, encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)

    def turn(told: Any = None) -> Any:
        connection.send(_Holds(told))
        return connection.recv()

    try:
        outcome = Outcome(result=function(*arguments, turn) if holds else function(*arguments))
    except FasthgError as error:
        outcome = Outcome(reason=str(error), refused=isinstance(error, BackendUnavailable))
    except BaseException as error:
        traceback.print_exc()
        lines = str(error).strip().splitlines()
        outcome = Outcome(reason=f"{type(error).__name__}: {lines[0] if lines else 'no message'}; see {log}")
    connection.send(outcome)


def _die_with_parent() -> None:
    """End this process and its descendants as soon as the sweep is gone, so that a killed sweep leaves nothing."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        for member in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
