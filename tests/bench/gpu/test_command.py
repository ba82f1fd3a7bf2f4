"""`make gpu` ends in an error where an answer is wrong, and only there."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from bench.gpu import __main__ as command
from bench.measure.roofline import Limits


@pytest.fixture
def rehearse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command on these rows instead of what it would measure; returns its exit code."""
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    monkeypatch.setattr(command, "measure_limits", lambda _device: Limits({"fp32": 1.0}, 1.0))
    monkeypatch.setattr(command, "small_limits", lambda _device: {})
    monkeypatch.setattr(command, "compare", lambda _plan, _out: None)

    def run(variant: dict[str, Any], operator: dict[str, Any]) -> int:
        row = {"variant": "small", "dtype": "float16", "error": 0.0, "correct": True, "overflow": None}
        of_operator = row | {"operator": "head", "layer": "stacks.0"} | operator
        monkeypatch.setattr(command, "check", lambda _plan: ([row | variant], [of_operator]))
        monkeypatch.setattr(command, "time_operators", lambda _plan, _limits: [])
        return command.main(["--rehearse", "--out", str(tmp_path / "out")])

    return run


def test_right_answers_end_well(rehearse: Any) -> None:
    assert rehearse({}, {}) == 0


@pytest.mark.parametrize("wrong", [({"correct": False}, {}), ({}, {"correct": False})], ids=["network", "operator"])
def test_one_wrong_answer_ends_in_an_error(wrong: Any, rehearse: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert rehearse(*wrong) == 3
    assert "wrong answers from" in capsys.readouterr().err


@pytest.mark.parametrize("error", [math.inf, math.nan])
def test_an_error_that_is_not_finite_is_recorded_and_told(
    error: float, rehearse: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {"error": error, "correct": False}
    assert rehearse(wrong, wrong) == 3
    printed = capsys.readouterr()
    assert "not finite" in printed.out
    assert "wrong answers from head of small, network of small" in printed.err
    kept = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert [row["error"] for row in kept["variants"] + kept["operators"]] == [None, None]
