"""What a sweep found, in a few sentences."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from bench.measure.record import Row
from bench.report.tables import number, path_label, signed, times_eager

OURS = ("fused", "eager", "channels_last", "amp")  # of our own, or PyTorch as it is: no other library's compiler


def peers(rows: Sequence[Row]) -> str:
    """Whether another library has an exact path that is faster here than our own, one crop at a time."""
    timed = [row for row in rows if row.mode == "infer" and row.status == "ok" and row.precision == "fp32"]
    timed = [row for row in timed if row.batch_size == min(other.batch_size for other in timed)]
    own = {row.variant: row for row in timed if row.path == "fused"}
    others = [row for row in timed if row.path not in OURS and row.variant in own]
    if not others:
        return "No exact path of another library was timed beside fused:fp32."
    compared = _networks(len({row.variant for row in others}))
    faster: dict[str, list[float]] = {}
    for row in others:
        gain = (times_eager(row, rows) or 0.0) / (times_eager(own[row.variant], rows) or 1.0)
        if gain > 1:
            faster.setdefault(path_label(row), []).append(gain)
    if not faster:
        return f"No exact path of another library is faster here than fused:fp32, on {compared}."
    found = sorted(faster.items(), key=lambda item: (-len(item[1]), -max(item[1])))
    parts = [f"{path} on {len(gains)} (up to {number(max(gains), 2)} ×)" for path, gains in found]
    return f"An exact path of another library is faster here than fused:fp32, of {compared}: {', '.join(parts)}."


def summary(rows: Sequence[Row], command: str) -> list[str]:
    """The fastest exact path, the fastest within its tolerance, and what was left out.

    command   measures what was left out
    """
    timed = [row for row in rows if row.mode == "infer" and row.status == "ok" and row.images_s]
    others = [row for row in timed if row.path != "eager" and times_eager(row, rows)]
    exact = _fastest((row for row in others if row.precision == "fp32"), rows)
    rounded = _fastest((row for row in others if row.precision != "fp32"), rows)
    return [
        f"Fastest exact path: {exact or 'none was measured beside eager'}.",
        f"Fastest within its tolerance: {rounded or 'none was measured'}.",
        _left_out(rows, command),
    ]


def _fastest(mine: Iterable[Row], rows: Sequence[Row]) -> str:
    """The path with the largest median speed-up, of those measured on more than half as many networks as any was; ""
    for no rows."""
    found: dict[str, list[Row]] = {}
    for row in mine:
        found.setdefault(path_label(row), []).append(row)
    speeds = {path: sorted(times_eager(row, rows) or 0.0 for row in some) for path, some in found.items()}
    if not speeds:
        return ""
    most = max(map(len, speeds.values()))
    median = {path: statistics.median(times) for path, times in speeds.items() if 2 * len(times) > most}
    path = max(median, key=lambda path: median[path])
    low, *_, high = times = speeds[path] if len(speeds[path]) > 1 else speeds[path] * 2
    networks = len({row.variant for row in found[path]})
    text = f"{path}, {number(statistics.median(times), 2)} × eager ({number(low, 2)} to {number(high, 2)}"
    text += f" on {networks} networks" if networks > 1 else f" on {found[path][0].variant}"
    changes = [row.pckh_change for row in found[path] if row.pckh_change is not None]
    if found[path][0].precision != "fp32" and changes:
        text += f"; PCKh {signed(min(changes))} to {signed(max(changes))}"
    return text + ")"


def _left_out(rows: Sequence[Row], command: str) -> str:
    count = {status: sum(row.status == status for row in rows) for status in ("left out", "skipped", "error", "WRONG")}
    without = [
        f"{count['skipped']} cannot run here" if count["skipped"] else "",
        f"{count['error']} failed" if count["error"] else "",
        f"{count['WRONG']} are WRONG" if count["WRONG"] else "",
    ]
    rest = "".join(f", {part}" for part in without if part)
    if not count["left out"]:
        return f"Nothing of {len(rows)} cells was left out{rest}."
    return f"Left out for their time: {count['left out']} of {len(rows)} cells{rest}; {command} measures them."


def _networks(count: int) -> str:
    return "1 network" if count == 1 else f"{count} networks"
