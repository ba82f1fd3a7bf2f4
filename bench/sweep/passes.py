"""The passes of a sweep over its cells: first one honest figure of each, then more repeats until the time is over."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench.measure.isolate import Isolated, Outcome
from bench.measure.jobs import LEFT_OUT
from bench.measure.record import Cell, Results, Row
from bench.measure.turns import Turn
from bench.sweep.cells import Fields, Order
from bench.sweep.display import Display
from bench.sweep.preparation import jobs_of, prepare
from bench.sweep.rows import blank, least_rounds, now, remember, take_times, turns_of
from bench.sweep.settings import Settings

ROUNDS = 10  # of a group, after which nothing is refined
REPEATS = {"infer": 2, "train": 1}  # of a path in a round, at least
ROUNDS_SHARE = 1 / 300  # of the sweep's time for the rounds of a group in the first pass, after the first round
REFINING_SHARE = 1 / 40  # and in a later one
UNKNOWN_S = 15.0  # that preparing a group is expected to take which an earlier run prepared
SHORTEST_GROUP_S = 4.0  # with less time left, no group begins


@dataclasses.dataclass(frozen=True)
class Pace:
    """How much time there is.

    deadline    time.monotonic() at which everything that is measured has to be over
    total       seconds of the whole sweep
    cell_limit  seconds after which whatever does not answer is ended
    loader_s    seconds of timed repeats for a loader
    stream_s    seconds of single crops, one after the other, for the fastest path of each variant; 0 for none
    """

    deadline: float
    total: float
    cell_limit: float
    loader_s: float
    stream_s: float

    @property
    def left(self) -> float:
        return self.deadline - time.monotonic()

    @property
    def limit(self) -> float:
        """Seconds after which what begins now is ended."""
        return max(0.0, min(self.cell_limit, self.left))


class Measuring:
    """The cells of one sweep, group by group, and their rows."""

    def __init__(
        self, results: Results, settings: Settings, configuration: str, pace: Pace, workers: int, logs: Path
    ) -> None:
        self.results, self.settings, self.configuration = results, settings, configuration
        self.pace, self.workers, self.logs = pace, workers, logs
        self.seconds: dict[tuple[Cell, ...], float] = {}  # what preparing a group took
        self.refined: Counter[tuple[Cell, ...]] = Counter()  # how often a group was measured once more

    def run(self, groups: Sequence[Sequence[Cell]], display: Display) -> None:
        """Measure what has no figure, then refine what has the fewest repeats; `groups` in the order of their turn."""
        todo = [(group, missing) for group in groups if (missing := [c for c in group if not self.done(c)])]
        display.phase(len(todo))
        for _group, missing in todo:
            if self.pace.left < SHORTEST_GROUP_S:
                break
            self.measure(missing, self.pace.total * ROUNDS_SHARE, display)
            display.advance()
        while (rough := self.roughest(groups)) and self.pace.left > SHORTEST_GROUP_S:
            self.refined[tuple(rough)] += 1
            self.measure(rough, self.pace.total * REFINING_SHARE, display)

    def roughest(self, groups: Sequence[Sequence[Cell]]) -> list[Cell] | None:
        """The group with the fewest rounds that can still be prepared and timed; None where nothing is rough."""
        able = []
        for group in groups:
            cells = [cell for cell in group if cell.mode != "loader" and self.timed(cell)]
            cost = 1.2 * self.seconds.get(tuple(group), UNKNOWN_S) + self.pace.total * REFINING_SHARE
            if cells and cost < self.pace.left and self.refined[tuple(cells)] < ROUNDS:
                able.append((least_rounds([row for c in cells if (row := self.results.find(c))]), cells))
        rounds, cells = min(able, key=lambda pair: pair[0], default=(ROUNDS, []))
        return cells if rounds < ROUNDS else None

    def measure(self, cells: Sequence[Cell], budget: float, display: Display) -> None:
        """Prepare the paths of one group side by side, eager beside them, and time them in turns."""
        began = time.monotonic()
        group = self.with_eager(cells)
        display.now(f"{cells[0].mode} {cells[0].variant}, batch {cells[0].batch_size}: preparing {len(group)} paths")
        jobs = jobs_of(group, self.settings)
        held, ended, _ = prepare(jobs, self.workers, self.logs, self.pace.cell_limit, self.pace.deadline)
        held = {cell: held[cell] for cell in group if cell in held}  # eager first: the others' ratios need its turn
        for cell, outcome in ended.items():
            self.end(cell, outcome, display)
        self.seconds[tuple(cells)] = time.monotonic() - began
        found: dict[Cell, Fields] = {cell: process.told for cell, process in held.items()}
        display.now(f"{cells[0].mode} {cells[0].variant}, batch {cells[0].batch_size}: timing {len(held)} paths")
        if cells[0].mode != "loader":
            self.take_rounds(held, found, budget, display)
        self.close(held, found, display)

    def with_eager(self, cells: Sequence[Cell]) -> list[Cell]:
        """The cells, and eager first where it has a time: ratios come from rounds that both are timed in."""
        eager = cells[0].eager
        return list(cells) if eager in cells or not self.timed(eager) else [eager, *cells]

    def take_rounds(
        self, held: dict[Cell, Isolated], found: dict[Cell, Fields], budget: float, display: Display
    ) -> None:
        """Round after round, each path in its turn; every turn is on the disk before the next round begins."""
        number = 1 + max((turn.round for cell in held for turn in turns_of(self.results.find(cell))), default=0)
        began, taken = time.monotonic(), 0
        while held and taken < ROUNDS:
            for cell, process in list(held.items()):
                process.go(Order(number + taken, REPEATS[cell.mode]))
                if outcome := process.wait(self.pace.limit):
                    del held[cell]
                    self.end(cell, outcome, display)
                else:
                    self.keep(cell, found[cell], [Turn(**process.told)])
            taken += 1
            spent = time.monotonic() - began
            if spent * (taken + 1) / taken > budget or self.pace.left < spent / taken:
                break

    def close(self, held: dict[Cell, Isolated], found: dict[Cell, Fields], display: Display) -> None:
        """Let every cell that holds come to its end, together but for what is still timed, and write down what it says
        last."""
        streamed = self.fastest(held) if self.pace.stream_s else None
        alone = [cell for cell in held if cell == streamed or cell.mode == "loader"]
        together = [cell for cell in held if cell not in alone]
        for cells in (*([cell] for cell in alone), together):
            for cell in cells:
                stream_s = self.pace.stream_s if cell == streamed else 0.0
                held[cell].go(Order(stream_s=stream_s, budget=self.pace.loader_s))
            for cell in cells:
                outcome = held[cell].wait(self.pace.limit + (self.pace.stream_s if cell == streamed else 0.0))
                assert outcome is not None, "a cell that is told to end does not hold"
                if outcome.ok or cell.mode == "loader":  # else it has its times, but lacks what is told at the end
                    self.end(cell, outcome, display, found[cell])

    def fastest(self, cells: Sequence[Cell] | dict[Cell, Isolated]) -> Cell | None:
        """The fastest path of a group that is timed one crop at a time."""
        rows = [row for cell in cells if cell.mode == "infer" and cell.batch_size == 1 and (row := self.timed(cell))]
        return min(rows, key=lambda row: row.median_ms or 0.0).cell if rows else None

    # ---- rows

    def keep(self, cell: Cell, found: Fields, turns: Sequence[Turn]) -> None:
        """Write down a cell's turns behind those that it has; later fields over earlier ones."""
        before = self.timed(cell)
        row = before or blank(cell, self.settings, self.configuration)
        for name, value in found.items():
            setattr(row, name, value)
        all_turns = [*turns_of(before), *turns]
        theirs = all_turns if cell == cell.eager else turns_of(self.timed(cell.eager))
        if all_turns:
            take_times(row, all_turns, theirs, self.results.machine["limits"]["tflops"])
        row.finished = now()
        self.results.add(row)

    def end(self, cell: Cell, outcome: Outcome, display: Display, found: Fields | None = None) -> None:
        """Write down what became of a cell; a time that it has already is not lost to a later failure."""
        known = self.timed(cell)
        shown = known is not None and known.peak_memory_mb is not None and cell.mode != "loader"
        if outcome.ok and outcome.result["status"] == "ok":
            self.keep(cell, (found or {}) | outcome.result, [])
            row = self.results.find(cell)
            assert row is not None
            remember(row, self.settings)
            if not shown:
                display.row(row)
            return
        if outcome.ok:
            row = blank(cell, self.settings, self.configuration, **outcome.result)
        elif known or outcome is LEFT_OUT:
            return
        elif self.pace.left <= 0:
            return  # it had no time
        else:
            status = "skipped" if outcome.refused else "error"
            row = blank(cell, self.settings, self.configuration, status=status, reason=outcome.reason)
        row.finished = now()
        self.results.add(row)
        display.row(row)

    def timed(self, cell: Cell) -> Row | None:
        """The cell's row, where it has a time in this configuration."""
        row = self.results.find(cell)
        good = row is not None and row.configuration == self.configuration and row.status == "ok"
        return row if good else None

    def done(self, cell: Cell) -> bool:
        """Whether the folder holds the cell's answer for this configuration; what failed or was put off runs again."""
        row = self.results.find(cell)
        return row is not None and row.status in ("ok", "WRONG") and row.configuration == self.configuration
