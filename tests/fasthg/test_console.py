"""Command lines whose output is cut off, full or closed, and errors that typer would hide."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.table import Table

from fasthg.console import make_app, note, output_console, run_app
from fasthg.errors import FasthgError


def run(action: Callable[[], object]) -> int:
    app = make_app()
    app.command()(lambda: action() and None)
    return run_app(app, [])


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], io.TextIOWrapper]:
    """stdout as a stream on a file descriptor of the test's."""

    def replace(descriptor: int) -> io.TextIOWrapper:
        stream = os.fdopen(descriptor, "w")
        monkeypatch.setattr(sys, "stdout", stream)
        return stream

    return replace


@pytest.mark.parametrize("size", [1, 1_000_000])
def test_a_reader_who_goes_away_is_no_error(size: int, output: Callable[[int], io.TextIOWrapper]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stream = output(writing)
    assert run(lambda: print("x" * size)) == 0
    stream.close()  # nothing waits in it that would fail again


def test_a_reader_who_goes_away_from_a_table_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "fasthg.cli", "list", "--weights"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("size", [1, 1_000_000])
def test_output_that_cannot_be_written_is_one_line(
    size: int, output: Callable[[int], io.TextIOWrapper], capfd: pytest.CaptureFixture[str]
) -> None:
    stream = output(os.open("/dev/full", os.O_WRONLY))
    assert run(lambda: print("x" * size)) == 2
    assert "fasthg: the output cannot be written" in capfd.readouterr().err
    stream.close()


def test_another_broken_pipe_is_a_defect() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with pytest.raises(BrokenPipeError):
        run(lambda: os.write(writing, b"x"))
    os.close(writing)


def test_an_end_of_file_is_no_interruption() -> None:
    def fail() -> None:
        raise EOFError("ran out of input")

    with pytest.raises(EOFError, match="ran out"):
        run(fail)


class Falls:
    """Sends this process a signal from a finalizer, where Python drops what the signal raises."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self.number)


@pytest.fixture
def in_foreground() -> Iterator[None]:
    """As what a terminal starts, also where these tests run in the background."""
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, earlier)


@pytest.fixture
def in_background() -> Iterator[None]:
    """SIGINT is ignored, as in what a script starts with `&`."""
    earlier = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, earlier)


def fall_and_go_on(number: int) -> None:
    Falls(number)
    time.sleep(5)
    raise FasthgError("went on")


@pytest.mark.usefixtures("in_foreground")
def test_an_interrupt_that_falls_into_a_finalizer_is_not_lost(capsys: pytest.CaptureFixture[str]) -> None:
    hook = sys.unraisablehook
    assert run(lambda: fall_and_go_on(signal.SIGINT)) == 130
    assert sys.unraisablehook is hook
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.usefixtures("in_background")
def test_an_end_that_falls_into_a_finalizer_is_not_lost_in_the_background(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lambda: fall_and_go_on(signal.SIGTERM)) == 130
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.usefixtures("in_foreground")
def test_an_interrupt_does_not_come_after_the_command() -> None:
    assert run(lambda: Falls(signal.SIGINT)) == 0
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]


def test_a_terminal_that_is_closed_ends_like_ctrl_c(capsys: pytest.CaptureFixture[str]) -> None:
    def closed() -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(5)

    assert run(closed) == 130
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL


def test_a_current_folder_that_was_removed_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert run(lambda: pytest.fail("the command was run")) == 2
    monkeypatch.undo()
    assert capsys.readouterr().err == "fasthg: the current folder is gone; change to one that exists\n"


def test_blanks_in_a_name_stay_and_a_message_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise FasthgError("a  b.jpg is no image:\n    really")

    assert run(fail) == 2
    assert capsys.readouterr().err == "fasthg: a  b.jpg is no image: really\n"


def test_brackets_and_colons_of_names_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("file")
    table.add_row("pip install 'fasthg[ort]'")
    table.add_row("shots :cat: [bold]/1.jpg")
    output_console().print(table)
    printed = capsys.readouterr().out
    assert "pip install 'fasthg[ort]'" in printed
    assert "shots :cat: [bold]/1.jpg" in printed


def test_a_note_without_a_place_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        note("to nobody")


PROCESS = """
import os, sys
from fasthg.console import make_app, note, run_app
app = make_app()

@app.command()
def work():
    with open("result", "w") as file:
        os.write(1, b"a library's noise")
        os.write(2, b"a library's noise")
        note("a note")
        print("printed")
        file.write("result")

sys.exit(run_app(app, []))
"""


def test_closed_streams_do_not_lead_into_files(tmp_path: Path) -> None:
    script = 'exec "$0" -c "$1" <&- >&- 2>&-'
    command = ["sh", "-c", script, sys.executable, PROCESS]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    assert subprocess.run(command, cwd=tmp_path, env=environment, timeout=200, check=False).returncode == 0
    assert (tmp_path / "result").read_text() == "result"
