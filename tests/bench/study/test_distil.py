"""The study of teachers: which runs it has, what they differ in, and that its report says their figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.study.distil import ALONE, TAUGHT, DistilPlan, draw, report
from fasthg.errors import FasthgError
from fasthg.network.load import WEIGHTS_DIR

TIMES = {"teacher, 1": 1.0, "teacher, 2": 2.0, "student, 1": 0.5, "student, 2": 0.75}
PLAN = DistilPlan(Path("data"), None, Path("work"))


def row(network: str, share: float | None, seed: int | None, last: float) -> dict:
    stacks = [{"stack": k, "gflop": k / 100, "score": last - 2 + k, "protocol": "PCK@0.2"} for k in (1, 2)]
    found = {"network": network, "teacher_share": share, "seed": seed, "stacks": stacks}
    return found | {"size": 128, "batch_size": 16, "steps": 100, "people": 50, "parameters": 1234}


def rows() -> list[dict]:
    """Students that gain 5, 5 and 8 points by their teacher, the last seed first."""
    both = [row("student", ALONE, seed, 20.0 + seed) for seed in (2, 1, 0)]
    both += [row("student", TAUGHT, seed, score) for seed, score in ((2, 30.0), (1, 26.0), (0, 25.0))]
    return [row("teacher", None, None, 50.0), row("start", None, None, 5.0), *both]


def test_students_differ_in_their_teacher_alone() -> None:
    assert sorted(PLAN.runs()) == [(share, seed) for share in (ALONE, TAUGHT) for seed in range(3)]
    alone, taught = PLAN.recipe(ALONE, 1), PLAN.recipe(TAUGHT, 1)
    assert {name for name, value in vars(alone).items() if vars(taught)[name] != value} == {"teacher_share"}
    assert {name for name, value in vars(alone).items() if vars(PLAN.recipe(ALONE, 2))[name] != value} == {"seed"}


def test_the_networks_that_ship_are_taken_by_name_and_others_by_path(tmp_path: Path) -> None:
    assert PLAN.weights("teacher") == WEIGHTS_DIR / "small.safetensors"
    assert PLAN.weights("student") == WEIGHTS_DIR / "reduced-original.safetensors"
    assert PLAN.recipe(ALONE, 0).config.architecture == PLAN.network("student").config.architecture
    own = DistilPlan(Path("data"), None, Path("work"), str(tmp_path / "t.safetensors"), str(tmp_path / "s.safetensors"))
    assert [own.weights(name).name for name in ("teacher", "student")] == ["t.safetensors", "s.safetensors"]
    with pytest.raises(FasthgError, match="nobody"):
        DistilPlan(Path("data"), None, Path("work"), student="nobody").weights("student")


def test_other_weights_are_another_table() -> None:
    other = DistilPlan(Path("data"), None, Path("work"), teacher="rendered")
    ours, theirs = PLAN.settings(), other.settings()
    assert {name for name, value in ours.items() if theirs[name] != value} == {"teacher_digest"}


def test_the_report_has_every_figure() -> None:
    text = report(rows(), TIMES, "python -m bench.study.distil")
    assert "| 0 | 2 | 21.00 | 1.00 | 20.00 21.00 22.00 |" in text
    assert "| 0.5 | 2 | 27.00 | 2.65 | 25.00 26.00 30.00 |" in text
    assert "| 0.5 | 1 | 26.00 |" in text
    assert "adds +6.00 points after the last stack: +5.00, +5.00, +8.00 by seed, a standard error of 1.00" in text
    assert "| teacher | 1,234 | 2 | 0.020 | 2.00 | 50.00 |" in text
    assert "| student | 1,234 | 1 | 0.010 | 0.50 | 4.00 |" in text
    assert "PCK@0.2" in text


def test_one_seed_has_no_spread() -> None:
    text = report([found for found in rows() if found["seed"] in (None, 0)], TIMES, "")
    assert "| 0.5 | 2 | 25.00 |  | 25.00 |" in text
    assert "+5.00 points after the last stack, by one seed" in text


def test_the_chart_has_a_line_for_each_network() -> None:
    pytest.importorskip("matplotlib")
    svg = draw(rows(), TIMES, "small")
    shown = ("teacher", "student alone", "student with the teacher", "small@1", "small", "student@1", "student")
    assert all(f">{name}<" in svg for name in shown)
