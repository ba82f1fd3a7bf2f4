"""What a sweep found, in three sentences."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from bench.measure.record import Row
from bench.report.tables import number, path_label, signed


def summary(rows: Sequence[Row], command: str) -> list[str]:
    """The fastest exact path, the fastest within its tolerance, and what was left out.

    command   measures what was left out
    """
    timed = [row for row in rows if row.mode == "infer" and row.status == "ok" and row.images_s]
    eager = {(row.variant, row.batch_size): row.images_s or 0.0 for row in timed if row.path == "eager"}
    others = [row for row in timed if row.path != "eager" and (row.variant, row.batch_size) in eager]
    exact = _fastest((row for row in others if row.precision == "fp32"), eager)
    rounded = _fastest((row for row in others if row.precision != "fp32"), eager)
    return [
        f"Fastest exact path: {exact or 'none was measured beside eager'}.",
        f"Fastest within its tolerance: {rounded or 'none was measured'}.",
        _left_out(rows, command),
    ]


def _fastest(rows: Iterable[Row], eager: dict[tuple[str, int], float]) -> str:
    """The path with the largest median speed-up, of those that were measured on the most networks; "" for no rows."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(path_label(row), []).append(row)
    speeds = {
        path: sorted((row.images_s or 0.0) / eager[row.variant, row.batch_size] for row in mine)
        for path, mine in found.items()
    }
    path = max(speeds, key=lambda path: (len(speeds[path]), statistics.median(speeds[path])), default="")
    if not path:
        return ""
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
