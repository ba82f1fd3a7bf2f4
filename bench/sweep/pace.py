"""How long each cell may take its times, so that a sweep with an end reaches every cell: rather fewer repeats."""

from __future__ import annotations

from collections.abc import Sequence

from bench.measure.record import Cell
from bench.measure.timing import enough
from bench.sweep.settings import Settings
from fasthg.network.flops import count_flops
from fasthg.network.variants import get_config

EXPECTED_SHARE = 0.4  # of the machine's limit, that a network is expected to reach
OVERHEAD_S = {"loader": 3.0, "infer": 0.7, "train": 2.5}  # a process, weights, loaders
BATCHES_BEFORE = {"loader": 0, "infer": 3, "train": 1}  # that a cell computes before its timed ones
COST = {"infer": 1, "train": 3}  # of a timed batch, in forward passes
FACTORS = (1.0, 0.7, 0.5, 0.3, 0.2, 0.1)


def budget_now(cells: Sequence[Cell], settings: Settings, left: float, tflops: float | None) -> float:
    """Seconds of timed repeats for the first of the cells that are still to be timed: what the settings give, or the
    largest share of it with which all cells are expected to fit.

    left     seconds for all of them
    tflops   the machine's limit in fp32, where it is known
    """
    for factor in FACTORS:
        if sum(expected_seconds(cell, settings, factor, tflops) for cell in cells) <= left:
            break
    return factor * settings.budget(cells[0].mode)


def expected_seconds(cell: Cell, settings: Settings, factor: float, tflops: float | None) -> float:
    """What a cell takes with some share of its budget, roughly."""
    budget = factor * settings.budget(cell.mode)
    if cell.mode == "loader" or not tflops:
        return OVERHEAD_S[cell.mode] + budget
    flops = COST[cell.mode] * cell.batch_size * count_flops(get_config(cell.variant), settings.size)
    step = flops / (EXPECTED_SHARE * tflops * 1e12)
    repeats = next(n for n in range(1, 101) if enough(n, n * step, budget, 100))
    return OVERHEAD_S[cell.mode] + (BATCHES_BEFORE[cell.mode] + repeats) * step
