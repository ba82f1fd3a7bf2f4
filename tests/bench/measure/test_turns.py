"""Times taken in turns: what disturbs a round does not decide a ratio, and nothing is compared across rounds."""

import time
from typing import ClassVar

import pytest

from bench.measure import turns
from bench.measure.energy import Energy
from bench.measure.turns import Turn, counted, ratio_fields, summarise, take_turn, times_faster

EAGER = [Turn(1, 0.0, [100.0, 104.0, 102.0]), Turn(2, 0.0, [200.0]), Turn(3, 1.0, [900.0])]
QUICK = [Turn(1, 0.0, [50.0, 51.0, 49.0]), Turn(2, 0.1, [80.0]), Turn(3, 0.0, [90.0]), Turn(4, 0.0, [1.0])]


def test_ratios_are_of_rounds_in_which_both_were_timed_undisturbed():
    """102/50 and 200/80; round 3 was disturbed for eager, which has no round 4."""
    assert times_faster(QUICK, EAGER) == pytest.approx([2.04, 2.5])
    assert ratio_fields(QUICK, EAGER) == pytest.approx({"ratio": 2.27, "ratio_low": 2.04, "ratio_high": 2.5})


def test_where_every_round_was_disturbed_the_ratio_is_of_all():
    noisy = [Turn(1, 1.0, [50.0]), Turn(2, 1.0, [100.0])]
    assert times_faster(noisy, EAGER) == pytest.approx([2.0, 2.04])
    assert ratio_fields(noisy, []) == {}


def test_disturbed_repeats_count_only_where_there_are_too_few_others():
    assert [turn.round for turn in counted(EAGER)] == [1, 2]
    few = [Turn(1, 0.0, [10.0, 11.0]), Turn(2, 1.0, [30.0])]
    assert counted(few) == few
    assert summarise(few) | {"load": 0.5} == {
        "median_ms": 11.0,
        "p10_ms": pytest.approx(10.2),
        "p90_ms": pytest.approx(26.2),
        "repeats": 3,
        "rounds": 2,
        "load": 0.5,
        "disturbed": True,
        "joules": None,
        "data_wait_ms": None,
        "photo_ms": None,
    }
    assert not summarise(EAGER)["disturbed"]


def test_a_turn_has_its_repeats_or_lasts_long_enough_after_one_that_does_not_count(monkeypatch):
    monkeypatch.setattr(_Others, "seen", [0.0])
    monkeypatch.setattr(turns, "OtherLoad", _Others)
    calls = []
    short = take_turn(lambda: (calls.append(1), time.sleep(0.02)), 7, 2, turn_s=0.05)
    assert short["round"] == 7
    assert 2 <= len(short["ms"]) <= 5
    assert len(calls) == 1 + len(short["ms"])
    waits: list[float] = []
    fed = take_turn(lambda: None, 1, 4, between=lambda: waits.append(0.5), waits=waits, turn_s=0.0)
    assert fed["waits"] == [500.0] * 4


class _Others:
    """Stands in for the measured load: each part of a turn sees the next of `seen`, then the last again and again."""

    seen: ClassVar[list[float]] = []

    def cores(self) -> float:
        return self.seen.pop(0) if len(self.seen) > 1 else self.seen[0]


def take_beside(monkeypatch, seen, repeats, **options):
    """Ten-millisecond repeats numbered from 1, each a part, and how many were made after the one that warms up."""
    monkeypatch.setattr(_Others, "seen", list(seen))
    monkeypatch.setattr(turns, "OtherLoad", _Others)
    made: list[float] = []
    taken = take_turn(lambda: made.append(time.sleep(0.01)), 1, repeats, turn_s=0.0, **options)
    return taken, len(made) - 1


def test_what_others_disturbed_is_taken_again_and_only_the_rest_counts(monkeypatch):
    """Busy in the first repeat, still while it waits, then quiet twice: waiting looks twice, two repeats count."""
    taken, made = take_beside(monkeypatch, [1.0, 0.9, 0.1, 0.0, 0.08], 2)
    assert made == 3
    assert len(taken["ms"]) == 2
    assert taken["load"] == pytest.approx(0.04, abs=0.01)


def test_one_undisturbed_repeat_counts_more_than_those_that_others_disturbed(monkeypatch):
    taken, made = take_beside(monkeypatch, [1.0, 0.0, 0.0, 1.0], 3, patience_s=0.2)
    assert made >= 3
    assert len(taken["ms"]) == 1
    assert taken["load"] == 0.0


def test_where_others_never_let_go_a_turn_ends_and_says_so(monkeypatch):
    began = time.perf_counter()
    taken, made = take_beside(monkeypatch, [0.8], 2, patience_s=0.3)
    assert 2 <= made == len(taken["ms"])
    assert taken["load"] == pytest.approx(0.8)
    assert time.perf_counter() - began < 3.0


def test_where_all_were_disturbed_the_least_disturbed_count(monkeypatch):
    taken, made = take_beside(monkeypatch, [0.9, 0.3, 0.9], 2, patience_s=0.04)
    assert made >= 2
    assert len(taken["ms"]) == 1
    assert taken["load"] == pytest.approx(0.3)


def test_a_step_longer_than_the_patience_is_not_repeated(monkeypatch):
    assert take_beside(monkeypatch, [0.8], 1, patience_s=0.005)[1] == 1


def test_energy_is_the_difference_of_the_counters_across_their_end(tmp_path):
    package = tmp_path / "intel-rapl:0"
    package.mkdir()
    (package / "max_energy_range_uj").write_text("9999999\n")
    (package / "energy_uj").write_text("9000000\n")
    energy = Energy(tmp_path)
    (package / "energy_uj").write_text("1500000\n")
    assert energy.joules() == pytest.approx(2.5)
    assert Energy(tmp_path / "none").joules() is None
