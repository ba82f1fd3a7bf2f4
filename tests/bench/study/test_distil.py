"""The study of stacks and teachers: which runs it has, and that its report says their figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.study.distil import DistilPlan, draw, report

STACKS = [{"stack": k, "gflop": k / 100, "score": 30.0 + k, "protocol": "PCK@0.2"} for k in (1, 2)]
TIMES = {"original, 1": 1.0, "original, 2": 2.0, "original@2, 1": 0.5, "original@2, 2": 0.75}


def rows() -> list[dict]:
    common = {"size": 64, "shrink": 8, "batch_size": 32, "steps": 100}
    found = [{"variant": "original", "teacher_share": 0.0, "seed": 0, "stacks": STACKS, **common}]
    for share in (0.0, 0.5):
        for seed in range(3):
            last = {**STACKS[1], "score": 20 + 10 * share + seed}
            run = {"variant": "original@2", "teacher_share": share, "seed": seed, "stacks": [STACKS[0], last]}
            found.append(run | common)
    return found


def test_students_differ_in_their_teacher_alone() -> None:
    plan = DistilPlan(Path("data"), None, Path("work"), epochs=2, teacher_epochs=5)
    runs = plan.runs()
    assert runs[0] == ("original", 0.0, 0)
    assert sorted(runs[1:]) == [("original@2", share, seed) for share in (0.0, 0.5) for seed in range(3)]
    alone, taught = plan.recipe("original@2", 0.0, 1), plan.recipe("original@2", 0.5, 1)
    assert {n for n, value in vars(alone).items() if vars(taught)[n] != value} == {"teacher_share"}
    assert (plan.recipe("original", 0.0, 0).epochs, alone.epochs) == (5, 2)
    assert (alone.config.num_feats, alone.config.num_stacks) == (16, 2)
    assert plan.recipe("original", 0.0, 0).config.num_feats == 16


def test_the_report_has_every_figure() -> None:
    text = report(rows(), TIMES, "python -m bench.study.distil")
    assert "| 2 | 0.0200 | 2.00 | 32.00 |" in text
    assert "| 0 | 21.00 | 1.00 | 20.00 21.00 22.00 |" in text
    assert "| 0.5 | 26.00 | 1.00 | 25.00 26.00 27.00 |" in text
    assert "PCK@0.2" in text


def test_the_chart_has_a_line_for_each_training() -> None:
    pytest.importorskip("matplotlib")
    svg = draw(rows(), TIMES)
    assert all(name in svg for name in ("original, one training", "original@2, alone", "original@2, with a teacher"))
