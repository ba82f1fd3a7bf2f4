"""What every command line of the project shares: one line and an exit code for each error, and where output goes.

Results go to stdout, so that they can be piped; notes, progress and errors go to stderr.
"""

from __future__ import annotations

import _thread
import contextlib
import errno
import io
import os
import re
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fasthg.errors import BackendUnavailable, FasthgError

#: The extra of pyproject.toml that brings each library which not everybody needs.
EXTRAS = {
    **dict.fromkeys(("h5py", "scipy", "yaml", "faster_coco_eval"), "formats"),
    **dict.fromkeys(("pandas", "tables"), "deeplabcut"),
    "sleap_io": "sleap",
    **dict.fromkeys(("simplejpeg", "tensorboard", "matplotlib"), "train"),
    "jinja2": "bench",
    **dict.fromkeys(("ray", "pyarrow"), "ray"),
}
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
_FULL_OUTPUT = "the output cannot be written; free some space, or send it to another place"
INTERRUPTED = 130  # what a shell reports for a command that Ctrl-C ended
#: The base of typer's usage errors; where it is imported from differs between typer's versions.
_UsageError: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


def make_app(**settings: Any) -> typer.Typer:
    """A typer app as every command line of the project is one: plain help, and a defect's traceback as Python's own."""
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None, **settings)


def run_app(app: typer.Typer, argv: Sequence[str] | None = None, prog: str = "fasthg") -> int:
    """Run a typer app on `argv` (default: the process's arguments) and return its exit code.

    FasthgError, usage errors and a library of an extra that is not installed print one line on stderr and return their
    code; Ctrl-C, SIGTERM and a terminal that is closed return 130. A reader who goes away, as `head` does, is no error.
    Any other exception is a defect of the program and passes, with its traceback.
    """
    _open_streams()
    _take_any_name()
    try:
        os.getcwd()
    except FileNotFoundError:  # MKL, for one, ends the process then
        return _fail(prog, "the current folder is gone; change to one that exists", 2)
    try:
        code = _run(app, argv, prog)
    except FasthgError as error:
        code = _fail(prog, str(error), error.exit_code)
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in EXTRAS:
            raise
        message = f"{library} is not installed; pip install 'fasthg[{EXTRAS[library]}]'"
        code = _fail(prog, message, BackendUnavailable.exit_code)
    except _UsageError as error:
        code = _fail(prog, f"{error.format_message().rstrip('.')}; see {prog} --help", 2)
    except KeyboardInterrupt:
        code = INTERRUPTED
    if code == INTERRUPTED:
        return _fail(prog, "interrupted; nothing half-written is left", INTERRUPTED)
    lost = _flush_error()
    if lost and not code and not isinstance(lost, BrokenPipeError):
        return _fail(prog, _FULL_OUTPUT, 2)
    return code


def _run(app: typer.Typer, argv: Sequence[str] | None, prog: str) -> int:
    """The app's exit code. Typer calls an EOFError an abort, and ends the process where a pipe has no reader."""
    output, file = sys.stdout, os.fstat(1)
    try:
        with _end_like_ctrl_c(), _hold_on_to_ctrl_c():
            code = app(None if argv is None else list(argv), prog_name=prog, standalone_mode=False)
    except typer.Abort as error:
        if isinstance(error.__cause__, EOFError):
            raise error.__cause__ from None
        return INTERRUPTED
    except SystemExit as error:
        if not isinstance(error.__context__, BrokenPipeError):
            raise
        sys.stdout = output
        replaced = not os.path.samestat(file, os.fstat(1))  # Rich puts the null device where a reader has gone
        if not replaced and not _has_no_reader():  # another pipe
            raise error.__context__ from None
        return 0  # results are printed when everything else is done
    except OSError as error:
        if error.filename is not None or error.errno not in _FULL:
            raise
        return _fail(prog, _FULL_OUTPUT, 2)
    return code if isinstance(code, int) else 0


def _flush_error() -> OSError | None:
    """Why what was printed does not come out, if so; it is dropped then, for Python would try once more at its end."""
    try:
        sys.stdout.flush()
    except OSError as error:
        _drop(sys.stdout)
        return error
    return None


def _drop(stream: TextIO) -> None:
    """Let everything that is printed to a stream, also what waits in it, go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _has_no_reader() -> bool:
    """Whether stdout is a pipe whose other end is closed."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    return any(events & select.POLLERR for _number, events in poll.poll(0))


def _open_streams() -> None:
    """The null device in place of stdin, stdout and stderr that are closed: the next files that are opened would get
    their numbers, and what libraries print would go into those."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # has the lowest number that is free
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - as long as the process runs


def run_command(command: Callable[..., None], argv: Sequence[str] | None = None, prog: str = "fasthg") -> int:
    """`run_app` of an app that has one function as its only command."""
    app = make_app()
    app.command()(command)
    return run_app(app, argv, prog)


def _take_any_name() -> None:
    """Let stdout and stderr take every file name: its own bytes in UTF-8, with escapes in a smaller character set."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            utf8 = stream.encoding.lower().replace("-", "") == "utf8"
            stream.reconfigure(errors="surrogateescape" if utf8 else "backslashreplace")


@contextlib.contextmanager
def _end_like_ctrl_c() -> Iterator[None]:
    """Let SIGTERM, by which batch systems and containers end a process, and SIGHUP, by which a terminal does that is
    closed, clean up as Ctrl-C does; what is ignored, as by nohup, stays so."""
    if threading.current_thread() is not threading.main_thread():  # only that one may set handlers
        yield
        return
    ours = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) == signal.SIG_DFL]
    for number in ours:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def _hold_on_to_ctrl_c() -> Iterator[None]:
    """Interrupt again where the interrupt fell into a finalizer: Python drops what is raised there."""
    earlier = sys.unraisablehook
    with contextlib.ExitStack() as held:

        def again(unraisable: Any) -> None:
            if unraisable.exc_type is not KeyboardInterrupt:
                earlier(unraisable)
                return
            timer = threading.Timer(0.05, _thread.interrupt_main, [_interrupting()])  # here it would fall into the hook
            held.callback(timer.join)
            held.callback(timer.cancel)  # it does not come after the block
            timer.start()

        held.callback(setattr, sys, "unraisablehook", earlier)
        sys.unraisablehook = again
        yield


def _interrupting() -> int:
    """A signal that interrupts: SIGINT, unless it is ignored, as in what a script starts with `&`."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    return next((n for n in numbers if signal.getsignal(n) is signal.default_int_handler), signal.SIGINT)


def note(message: str) -> None:
    """Tell the user something beside the result, on stderr; a place that is full or gone is given up."""
    try:
        print(message, file=sys.stderr, flush=True)
    except OSError:
        _drop(sys.stderr)


def output_console() -> Console:
    """Console for tables on stdout; wide enough for a table where the output is piped."""
    width = None if sys.stdout.isatty() else 160
    return Console(width=width, markup=False, emoji=False)  # names have brackets and colons of their own


def progress_bar() -> Progress:
    """A progress bar on stderr with counts and times; silent where stderr is not a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal)


def _fail(prog: str, message: str, code: int) -> int:
    one_line = re.sub(r"\s*\n\s*", " ", message.strip())  # blanks in names stay as they are
    note(f"{prog}: {one_line}")
    return code
