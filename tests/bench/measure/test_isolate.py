"""A cell that crashes, hangs or is refused must not take the sweep with it, nor leave anything running."""

import operator
import os
import subprocess
import sys
import time

import psutil
import pytest

from bench.measure.isolate import Isolated, end_all, preload, run_isolated
from fasthg.network.variants import get_config
from fasthg.runtimes.paths import prepare

TAKE_TURN = operator.methodcaller("__call__")  # a function of `turn` that only calls it


@pytest.fixture(scope="module", autouse=True)
def _quick_starts():
    preload(["torch", "bench.measure.isolate", "fasthg.runtimes.paths"])


@pytest.fixture
def log(tmp_path):
    return tmp_path / "cell.log"


def test_a_result_comes_back(log):
    outcome = run_isolated(divmod, (7, 2), limit_s=60, log=log)
    assert outcome.ok
    assert outcome.result == (3, 1)


def test_a_crash_of_the_process_is_a_reason(log):
    outcome = run_isolated(os.abort, (), limit_s=60, log=log)
    assert not outcome.ok
    assert "SIGABRT" in outcome.reason


def test_a_process_that_ends_without_an_answer_is_a_reason(log):
    assert "exit code 7" in run_isolated(os._exit, (7,), limit_s=60, log=log).reason


def test_an_exception_is_one_line_and_its_traceback_is_in_the_log(log):
    outcome = run_isolated(int, ("seven",), limit_s=60, log=log)
    assert outcome.reason.startswith("ValueError: invalid literal")
    assert not outcome.refused
    assert "\n" not in outcome.reason
    assert "Traceback" in log.read_text()


def test_an_absent_backend_is_told_from_a_defect(log):
    outcome = run_isolated(prepare, (None, "tensorrt", None), limit_s=60, log=log)
    assert outcome.refused
    assert outcome.reason.startswith("tensorrt: runs on cuda only")
    assert not run_isolated(get_config, ("vast",), limit_s=60, log=log).refused


def test_a_hanging_cell_ends_at_its_limit_with_everything_it_started(log):
    marker = "86.4201"
    start = time.monotonic()
    outcome = run_isolated(subprocess.run, (["sleep", marker],), limit_s=1.0, log=log)
    assert time.monotonic() - start < 20
    assert "past its limit of 1 s" in outcome.reason
    assert not [p for p in psutil.process_iter(["cmdline"]) if marker in (p.info["cmdline"] or [])]


def test_what_a_cell_prints_goes_to_its_log(log, capfd):
    run_isolated(print, ("noise",), limit_s=60, log=log)
    assert log.read_text() == "noise\n"
    assert "noise" not in capfd.readouterr().out


def test_a_cell_holds_until_its_turn_and_hears_what_it_is_told(log):
    process = Isolated(TAKE_TURN, (), log, holds=True)
    assert process.wait(60) is None
    process.go(1.5)
    assert process.wait(60).result == 1.5


def test_a_cell_that_dies_while_it_holds_is_a_reason(log):
    process = Isolated(TAKE_TURN, (), log, holds=True)
    assert process.wait(60) is None
    process.kill()
    process.go()
    assert "SIGKILL" in process.wait(60).reason


def test_nothing_that_holds_is_left_behind(log):
    process = Isolated(TAKE_TURN, (), log, holds=True)
    assert process.wait(60) is None
    end_all()
    assert "SIGKILL" in process.wait(60).reason


def test_python_tells_nothing_of_what_was_killed(tmp_path):
    held = "import multiprocessing, time; held = multiprocessing.Semaphore(); time.sleep(60)"
    script = f"""
from pathlib import Path
from bench.measure import isolate
isolate.hush()
print(isolate.run_isolated(exec, ({held!r},), limit_s=5, log=Path({str(tmp_path / "log")!r})).reason)
"""
    command = [sys.executable, "-c", script]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "past its limit" in found.stdout
    assert "leaked semaphore" not in found.stderr
