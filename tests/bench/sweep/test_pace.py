"""A sweep with an end takes fewer repeats of every cell rather than leaving cells out."""

from pathlib import Path

from bench.measure.record import Cell
from bench.sweep.pace import budget_now, expected_seconds
from bench.sweep.settings import Settings

SETTINGS = Settings(cache=Path(), data=Path(), infer_budget=2.0, train_budget=4.0)
CELLS = [
    Cell(variant, "eager", "fp32", mode, 1)
    for mode in ("infer", "train")
    for variant in ("small", "original", "convs4")
]
TFLOPS = 0.3


def budget(left):
    return budget_now(CELLS, SETTINGS, left, TFLOPS)


def test_with_time_enough_a_cell_has_its_whole_budget():
    assert budget(1e4) == 2.0
    assert budget_now(CELLS[3:], SETTINGS, 1e4, TFLOPS) == 4.0


def test_the_less_time_the_less_for_each():
    given = [budget(left) for left in (1e4, 60, 50, 40, 1)]
    assert given == sorted(given, reverse=True)
    assert 0 < given[-1] < 2.0


def test_what_a_cell_is_given_leaves_the_others_theirs():
    whole = sum(expected_seconds(cell, SETTINGS, 1.0, TFLOPS) for cell in CELLS)
    least = sum(expected_seconds(cell, SETTINGS, 0.1, TFLOPS) for cell in CELLS)
    between = (whole + least) / 2
    factor = budget(between) / SETTINGS.infer_budget
    assert 0.1 <= factor < 1.0
    assert sum(expected_seconds(cell, SETTINGS, factor, TFLOPS) for cell in CELLS) <= between


def test_a_deeper_network_is_expected_to_take_longer():
    seconds = [expected_seconds(cell, SETTINGS, 1.0, TFLOPS) for cell in CELLS]
    assert seconds[0] < seconds[1] < seconds[2]
    # 89 GFLOP at 40 % of 0.3 TFLOP/s are 0.74 s forward and 2.2 s a step; three of each at least.
    assert seconds[2] > 3 * 0.74
    assert seconds[5] > 3 * 2.2
