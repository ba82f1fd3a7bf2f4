"""What every command line of the project shares: one line and an exit code for each error, and where output goes.

Results go to stdout, so that they can be piped; notes, progress and errors go to stderr.
"""

from __future__ import annotations

import contextlib
import io
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

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
INTERRUPTED = 130  # what a shell reports for a command that Ctrl-C ended
#: The base of typer's usage errors; where it is imported from differs between typer's versions.
_UsageError: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


def make_app(**settings: Any) -> typer.Typer:
    """A typer app as every command line of the project is one: plain help, and a defect's traceback as Python's own."""
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None, **settings)


def run_app(app: typer.Typer, argv: Sequence[str] | None = None, prog: str = "fasthg") -> int:
    """Run a typer app on `argv` (default: the process's arguments) and return its exit code.

    FasthgError, usage errors and a library of an extra that is not installed print one line on stderr and return their
    code; Ctrl-C and SIGTERM return 130. Any other exception is a defect of the program and passes, with its traceback.
    """
    _take_any_name()
    try:
        with _terminate_like_ctrl_c():
            code = app(None if argv is None else list(argv), prog_name=prog, standalone_mode=False)
    except FasthgError as error:
        return _fail(prog, str(error), error.exit_code)
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in EXTRAS:
            raise
        message = f"{library} is not installed; pip install 'fasthg[{EXTRAS[library]}]'"
        return _fail(prog, message, BackendUnavailable.exit_code)
    except _UsageError as error:
        return _fail(prog, f"{error.format_message().rstrip('.')}; see {prog} --help", 2)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    if code == INTERRUPTED:
        return _fail(prog, "interrupted; nothing half-written is left", INTERRUPTED)
    return code if isinstance(code, int) else 0


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
def _terminate_like_ctrl_c() -> Iterator[None]:
    """Let SIGTERM, by which batch systems and containers end a process, clean up as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():  # only that one may set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def note(message: str) -> None:
    """Tell the user something beside the result, on stderr."""
    print(message, file=sys.stderr, flush=True)


def output_console() -> Console:
    """Console for tables on stdout; wide enough for a table where the output is piped."""
    return Console(width=None if sys.stdout.isatty() else 160)


def progress_bar() -> Progress:
    """A progress bar on stderr with counts and times; silent where stderr is not a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal)


def _fail(prog: str, message: str, code: int) -> int:
    note(f"{prog}: {' '.join(message.split())}")
    return code
