"""Score against milliseconds: variants, their stacks and students in one plane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.measure.record import Row
from bench.report.charts import colour_of, figure_of, plain_numbers, to_svg
from bench.report.tables import Line, Table, number, path_label

_WIDE = 8  # times from which on they stand on a logarithmic axis: the slowest over the quickest
_NEAR = 0.02  # of the span of the scores: closer ones of one name share their label
_TRAINED = ("given weights", "shipped weights")  # how the basis of a score begins that is the network's own


@dataclass(frozen=True)
class Point:
    """One network.

    series  what it belongs to, which has one colour
    label   written beside it; "NAME@K" and "NAME" of one series are joined, as stacks of one network
    ms      milliseconds an image
    score   percent
    spread  standard deviation of the score between seeds; None for one run
    """

    series: str
    label: str
    ms: float
    score: float
    spread: float | None = None


def tradeoff_chart(points: Sequence[Point], score: str) -> str:
    """The plane as SVG; `score` is the name of what stands on its upright axis."""
    figure, axes = figure_of(width=9.6, height=4.2)
    for place, series in enumerate(dict.fromkeys(point.series for point in points)):
        colour = colour_of(series, place)
        networks: dict[str, list[Point]] = {}
        for point in sorted((point for point in points if point.series == series), key=lambda point: point.ms):
            networks.setdefault(point.label.partition("@")[0], []).append(point)
        label = series  # of its first network alone, in the legend
        for stacks in networks.values():
            xs, ys = [point.ms for point in stacks], [point.score for point in stacks]
            axes.plot(xs, ys, "o-", color=colour, label=label, markersize=5, linewidth=1.2)
            label = ""
            spread = [point.spread or 0.0 for point in stacks]
            if any(spread):
                axes.errorbar(xs, ys, spread, fmt="none", ecolor=colour, elinewidth=1.2, capsize=3)
    for point in _labelled(points):
        axes.annotate(point.label, (point.ms, point.score), (6, -10), textcoords="offset points", fontsize=8)
    times = [point.ms for point in points]
    if max(times) > _WIDE * min(times):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(plain_numbers())
        axes.xaxis.set_minor_formatter(plain_numbers(only=(2, 5)))
        axes.tick_params(axis="x", which="both", labelsize=8.5, length=3.5)
    else:
        axes.set_xlim(left=0)
    axes.margins(0.08, 0.1)
    axes.set_xlabel("milliseconds an image", fontsize=9)
    axes.set_ylabel(f"{score}, %", fontsize=9)
    axes.legend(fontsize=8.5, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return to_svg(figure)


def _labelled(points: Sequence[Point]) -> list[Point]:
    """The slowest of those points that have one name and about one score, as paths of a network do."""
    scores = [point.score for point in points]
    near, found = _NEAR * (max(scores) - min(scores)), list[Point]()
    for point in sorted(points, key=lambda point: -point.ms):
        if not any(point.label == other.label and abs(point.score - other.score) <= near for other in found):
            found.append(point)
    return found


def tradeoff_table(points: Sequence[Point], score: str) -> Table:
    """The points of the plane, the quickest of each series first."""
    ordered = sorted(points, key=lambda point: (point.series, point.ms))
    lines = [Line([point.series, point.label, number(point.ms), f"{point.score:.2f}"]) for point in ordered]
    return Table(["Path", "Network", "ms", score], lines, words=2, grouped=True)


def points_of(rows: Sequence[Row]) -> list[Point]:
    """The cells of a sweep whose networks are trained, a series for each path."""
    return [
        Point(path_label(row), row.variant, row.median_ms / row.batch_size, row.pckh)
        for row in rows
        if row.status == "ok" and row.median_ms and row.pckh is not None and row.pckh_basis.startswith(_TRAINED)
    ]
