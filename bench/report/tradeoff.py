"""Score against milliseconds: variants, their stacks and students in one plane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.measure.record import Row
from bench.report.charts import colour_of, figure_of, to_svg
from bench.report.tables import Line, Table, number, path_label

_TRAINED = ("given weights", "shipped weights")  # how the basis of a score begins that is the network's own


@dataclass(frozen=True)
class Point:
    """One network.

    series  what it belongs to; points of one series are joined in the order of their times
    label   written beside it
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
        mine = sorted((point for point in points if point.series == series), key=lambda point: point.ms)
        colour, spread = colour_of(series, place), [point.spread or 0.0 for point in mine]
        xs, ys = [point.ms for point in mine], [point.score for point in mine]
        axes.errorbar(xs, ys, spread, fmt="o-", color=colour, label=series, markersize=5, linewidth=1.2, capsize=3)
        for point in mine:
            axes.annotate(point.label, (point.ms, point.score), (5, -11), textcoords="offset points", fontsize=8)
    axes.set_xlabel("milliseconds an image")
    axes.set_ylabel(f"{score}, %")
    axes.set_xlim(left=0)
    axes.legend(fontsize=8.5, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return to_svg(figure)


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
