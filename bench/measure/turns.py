"""Times taken in turns: the paths of one network take a few repeats each, round after round: drift hits all alike.

How many times faster one path is than another is told from the rounds in which both were timed, not from medians that
were taken minutes apart.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bench.measure.energy import Energy
from bench.measure.timing import OtherLoad, synchronise

QUIET_CORES = 0.1  # that others may keep busy in a turn that counts as undisturbed; a quiet machine stays below
TURN_S = 0.1  # a turn lasts at least this long: the kernel counts the cores' time in hundredths of a second
MAX_REPEATS = 30  # in a part of a turn
PATIENCE_S = 1.5  # that a disturbed turn may go on for undisturbed repeats
LOOK_S = 0.05  # that others are watched for, to see whether they have let go of the cores
TICK_S = 0.01  # the unit of the kernel's books
ENOUGH_QUIET = 3  # undisturbed repeats, from which on the disturbed ones do not count


@dataclass(frozen=True)
class Turn:
    """The repeats of one path in one round.

    load     cores that anything else kept busy meanwhile
    ms       of each repeat, in the order they were taken
    joules   of the processors for the whole turn; None where the machine does not tell
    waits    ms that each repeat waited for its data beforehand; empty where there is nothing to wait for
    photo    ms from one photograph with a box to its joints; None where that is not timed
    """

    round: int
    load: float
    ms: list[float]
    joules: float | None = None
    waits: list[float] | None = None
    photo: float | None = None

    @property
    def quiet(self) -> bool:
        return self.load <= QUIET_CORES


def take_turn(
    step: Callable[[], object],
    round_number: int,
    repeats: int,
    *,
    device: str = "cpu",
    between: Callable[[], object] = lambda: None,
    waits: list[float] | None = None,
    turn_s: float = TURN_S,
    patience_s: float = PATIENCE_S,
) -> dict[str, Any]:
    """Time `step` at least `repeats` times and for at least `turn_s`, after one call that is not counted: what others
    computed since the last turn has driven this one's weights out of the caches. Returns the fields of a `Turn`.

    Others often take a core for a moment and let go of it. So a turn is taken in parts of `turn_s` or one repeat, each
    with its own load; the disturbed ones do not count beside one that was not, and more are taken for `patience_s`.
    Where all are disturbed, the least disturbed ones count.

    between   called before each call of `step`, its time not counted
    waits     list that `between` adds its seconds to
    """
    between()
    step()
    synchronise(device)
    parts: list[Turn] = []
    began, over, took = time.perf_counter(), 0.0, math.inf
    while True:
        start = time.perf_counter()
        parts.append(_take_part(step, round_number, device, between, waits, turn_s))
        took = min(took, time.perf_counter() - start)
        quiet = [part for part in parts if part.quiet]
        if not over and _whole(parts, repeats, turn_s):
            over = time.perf_counter() + patience_s
        if _whole(quiet, repeats, turn_s) or (over and time.perf_counter() + took > over):
            least = min(part.load for part in parts)
            return asdict(_join(quiet or [part for part in parts if part.load <= least + QUIET_CORES]))
        if not parts[-1].quiet:
            _await_quiet((over or began + patience_s) - took)


def _take_part(
    step: Callable[[], object],
    round_number: int,
    device: str,
    between: Callable[[], object],
    waits: list[float] | None,
    part_s: float,
) -> Turn:
    """As many repeats as take `part_s`, one at least."""
    skipped = len(waits or ())
    load, energy = OtherLoad(), Energy()
    ms: list[float] = []
    while not ms or (sum(ms) < 1e3 * part_s and len(ms) < MAX_REPEATS):
        between()
        start = time.perf_counter()
        step()
        synchronise(device)
        ms.append(1e3 * (time.perf_counter() - start))
    waited = [1e3 * wait for wait in waits[skipped:]] if waits is not None else None
    return Turn(round_number, load.cores(), ms, energy.joules(), waited)


def _whole(parts: Sequence[Turn], repeats: int, turn_s: float) -> bool:
    """Whether the parts make a turn."""
    ms = [value for part in parts for value in part.ms]
    return len(ms) >= MAX_REPEATS or (len(ms) >= repeats and sum(ms) >= 1e3 * turn_s)


def _await_quiet(until: float) -> None:
    """Wait until others have let go of the cores, or time.perf_counter() is `until`."""
    while time.perf_counter() + LOOK_S < until:
        others = OtherLoad()
        time.sleep(LOOK_S)
        if others.cores() <= max(QUIET_CORES, TICK_S / LOOK_S):
            return


def _join(parts: Sequence[Turn]) -> Turn:
    """The parts as one turn."""
    ms = [value for part in parts for value in part.ms]
    load = sum(part.load * sum(part.ms) for part in parts) / sum(ms)
    joules = [part.joules for part in parts if part.joules is not None]
    waits = [value for part in parts for value in part.waits or ()]
    told, fed = len(joules) == len(parts), parts[0].waits is not None
    return Turn(parts[0].round, load, ms, sum(joules) if told else None, waits if fed else None)


def counted(turns: Sequence[Turn]) -> list[Turn]:
    """The undisturbed turns where they hold enough repeats, else all."""
    quiet = [turn for turn in turns if turn.quiet]
    return quiet if sum(len(turn.ms) for turn in quiet) >= ENOUGH_QUIET else list(turns)


def summarise(turns: Sequence[Turn]) -> dict[str, Any]:
    """The fields of a row that follow from a cell's turns: milliseconds, how many repeats, what disturbed them."""
    used = counted(turns)
    ms = [value for turn in used for value in turn.ms]
    waits = [value for turn in used for value in turn.waits or ()]
    joules = [turn.joules / len(turn.ms) for turn in used if turn.joules is not None]
    photos = [turn.photo for turn in used if turn.photo is not None]
    return {
        "median_ms": float(np.median(ms)),
        "p10_ms": float(np.percentile(ms, 10)),
        "p90_ms": float(np.percentile(ms, 90)),
        "repeats": len(ms),
        "rounds": len(used),
        "load": float(np.mean([turn.load for turn in used])),
        "disturbed": not all(turn.quiet for turn in used),
        "joules": float(np.median(joules)) if joules else None,
        "data_wait_ms": float(np.median(waits)) if waits else None,
        "photo_ms": float(np.median(photos)) if photos else None,
    }


def times_faster(turns: Sequence[Turn], reference: Sequence[Turn]) -> list[float]:
    """How many times faster than the reference each round was that has both, the undisturbed rounds where there are
    some; sorted."""
    theirs = {turn.round: turn for turn in reference}
    pairs = [(turn, theirs[turn.round]) for turn in turns if turn.round in theirs]
    quiet = [pair for pair in pairs if pair[0].quiet and pair[1].quiet]
    return sorted(float(np.median(other.ms) / np.median(mine.ms)) for mine, other in quiet or pairs)


def ratio_fields(turns: Sequence[Turn], reference: Sequence[Turn]) -> dict[str, float | None]:
    """`times_faster` as the fields of a row: the median, the least and the largest."""
    found = times_faster(turns, reference)
    low, middle, high = (found[0], float(np.median(found)), found[-1]) if found else (math.nan,) * 3
    return {"ratio": middle, "ratio_low": low, "ratio_high": high} if found else {}
