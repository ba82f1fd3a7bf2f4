"""The report's tables, made from rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from bench.measure.exported import ExportRow
from bench.measure.record import Row
from bench.study import published
from fasthg.metrics.agreement import TOLERANCES
from fasthg.network.flops import count_flops
from fasthg.network.variants import VARIANTS, get_config

#: A table's columns: what stands above each, and what a row has in it.
Columns = dict[str, Callable[[Row], str]]


@dataclass
class Line:
    """One line of a table; `share` of the column's largest value draws a bar behind that column."""

    values: list[str]
    classes: list[str] = field(default_factory=list)
    share: float | None = None


@dataclass
class Table:
    """words: leading columns that hold words; bar: the column that has bars, -1 for none.

    grouped   the first column is the same in lines that belong together
    """

    columns: list[str]
    lines: list[Line]
    words: int = 1
    bar: int = -1
    grouped: bool = False


def path_label(row: Row) -> str:
    """The path as a reader writes it: "openvino:bf16", or the loader's name."""
    return row.path if row.mode == "loader" else f"{row.path}:{row.precision}"


def number(value: float | None, digits: int = 3) -> str:
    """A number with some significant digits and no exponent; "" for None."""
    if value is None:
        return ""
    if value == 0:
        return "0"
    magnitude = f"{value:.{digits}g}"
    decimals = max(0, digits - 1 - int(f"{float(magnitude):e}".partition("e")[2]))
    return f"{value:,.{decimals}f}"


def signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}"


def percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def spread(row: Row) -> str:
    return f"{number(row.p10_ms)}–{number(row.p90_ms)}"


def times_eager(row: Row, rows: Iterable[Row]) -> float | None:
    """How many times faster than eager: from the rounds that both were timed in, else from their rates; None where
    either is missing."""
    if row.ratio is not None:
        return row.ratio
    group = (row.variant, row.mode, row.batch_size)
    eager = next((r for r in rows if r.path == "eager" and (r.variant, r.mode, r.batch_size) == group), None)
    return row.images_s / eager.images_s if row.images_s and eager and eager.images_s else None


def ratio_range(row: Row) -> str:
    """The least and the largest ratio to eager of single rounds."""
    return "" if row.ratio_low is None else f"{number(row.ratio_low, 2)}–{number(row.ratio_high, 2)}"


def repeats(row: Row) -> str:
    """How often a cell was timed, with a mark where others kept the machine busy meanwhile."""
    return "" if row.repeats is None else f"{row.repeats}{'~' if row.disturbed else ''}"


def infer_table(rows: Sequence[Row]) -> Table:
    """Every inference cell that ran; a wrong one says so in place of a time. What larger batches give stands beside the
    times of the smallest."""
    sizes = sorted({row.batch_size for row in rows})
    larger = {(row.variant, path_label(row), row.batch_size): row for row in rows}
    rows = [row for row in rows if row.batch_size == sizes[0]]
    told = any(row.joules is not None for row in rows)

    def rate_at(size: int) -> Callable[[Row], str]:
        return lambda row: _rate(larger.get((row.variant, path_label(row), size)))

    columns: Columns = {
        "Photo ms": lambda row: number(row.photo_ms),
        "TFLOP/s": lambda row: number(row.tflops, 2),
        "Limit": lambda row: percent(row.share),
        "MB": lambda row: number(row.peak_memory_mb, 3),
        "Start s": lambda row: number(row.startup_s, 2),
        "Error": lambda row: _error(row.error),
        "PCKh": lambda row: "" if row.pckh is None else f"{row.pckh:.1f}",
        "Change": lambda row: signed(row.pckh_change),
        "min / 2,958*": lambda row: number(row.validation_minutes, 2),
    }
    columns |= {f"images/s at {size}": rate_at(size) for size in sizes[1:]}
    if told:
        columns["J / image"] = lambda row: number(row.joules / row.batch_size if row.joules else None)
    return _speed_table(rows, columns)


def train_table(rows: Sequence[Row]) -> Table:
    """Every training cell that ran."""
    columns: Columns = {
        "Data wait ms": lambda row: "" if row.data_wait_ms is None else f"{row.data_wait_ms:.1f}",
        "TFLOP/s": lambda row: number(row.tflops, 2),
        "Limit": lambda row: percent(row.share),
        "MB": lambda row: number(row.peak_memory_mb, 3),
        "Loss error": lambda row: _error(row.error),
        "Gradient error": lambda row: _error(row.gradient_error),
        "min / epoch*": lambda row: number(row.epoch_minutes),
    }
    return _speed_table(rows, columns)


def loader_table(rows: Sequence[Row]) -> Table:
    """Every loader that ran, and how many times the reference DataLoader's rate it reaches."""
    reference = next((row.images_s for row in rows if row.path == "dataloader"), None)
    top = max((row.images_s or 0.0 for row in rows), default=0.0)
    lines = []
    for row in rows:
        times = row.images_s / reference if row.images_s and reference else None
        values = [row.path, str(row.batch_size), number(row.images_s), number(times, 2)]
        values += [number(row.startup_s, 2), number(row.peak_memory_mb, 3)]
        lines.append(Line(_or_status(row, values, 2), [row.status], row.images_s / top if row.images_s else None))
    return Table(["Loader", "Batch", "images/s", "× dataloader", "Start s", "MB"], lines, bar=2)


def parity_table(rows: Sequence[Row]) -> Table:
    """For each path over all variants: how far from eager's heatmaps, what is allowed, what that does to PCKh."""
    lines = []
    ran = [row for row in rows if row.mode == "infer" and row.error is not None]
    for label in dict.fromkeys(path_label(row) for row in ran):
        mine = [row for row in ran if path_label(row) == label]
        worst = max(mine, key=lambda row: row.error or 0.0)
        changes = [row.pckh_change for row in mine if row.pckh_change is not None]
        change = "" if not changes else f"{min(changes):+.2f} to {max(changes):+.2f}" if any(changes) else "0"
        wrong = sum(row.status == "WRONG" for row in mine)
        allowed = TOLERANCES[worst.precision].heatmaps
        lines.append(
            Line(
                [label, str(len(mine)), _error(worst.error), worst.variant, f"{allowed:.0e}", change, str(wrong)],
                ["WRONG"] if wrong else [],
            )
        )
    columns = ["Path", "Variants", "Largest error", "In", "Allowed", "PCKh change", "WRONG"]
    return Table(columns, lines)


def study_table(rows: Sequence[Row]) -> Table:
    """The study's minutes and PCKh beside ours: the fastest path that was right, and eager."""
    columns = ["Variant", "GFLOP", "Study min/epoch", "Ours*", "by", "eager*"]
    columns += ["Study min/2,958", "Ours*", "by", "eager*", "Study PCKh", "Ours"]
    lines = []
    for run in published.SHORT_RUNS:
        mine = [row for row in rows if row.variant == run.variant and row.status == "ok"]
        train, infer = _fastest(mine, "train"), _fastest(mine, "infer")
        if not (train or infer):
            continue
        values = [run.variant, number(count_flops(get_config(run.variant)) / 1e9, 4), number(run.epoch_minutes)]
        values += [number(train.epoch_minutes if train else None), path_label(train) if train else ""]
        values += [number(_eager(mine, "train", "epoch_minutes")), number(run.validation_minutes)]
        values += [number(infer.validation_minutes if infer else None), path_label(infer) if infer else ""]
        values += [number(_eager(mine, "infer", "validation_minutes")), f"{run.pckh:.2f}", _own_pckh(infer)]
        lines.append(Line(values))
    return Table(columns, lines)


def published_table() -> Table:
    """The study's PCKh for each pair of joints, short and long runs."""
    lines = [
        Line(
            [
                f"{run.label} {run.variant}",
                str(run.batch_size),
                f"{run.pckh:.2f}",
                *(f"{part:.2f}" for part in run.parts),
            ]
        )
        for run in (*published.SHORT_RUNS, *published.LONG_RUNS)
    ]
    return Table(["The study's runs", "Batch", "PCKh", *published.PARTS], lines)


def exports_table(rows: Sequence[ExportRow]) -> Table:
    """Variants by formats: relative heatmap error against eager fp32."""
    formats = list(dict.fromkeys(row.format for row in rows))
    found = {(row.variant, row.format): row for row in rows}
    lines = []
    for variant in dict.fromkeys(row.variant for row in rows):
        mine = [found.get((variant, text)) for text in formats]
        lines.append(Line([variant, *("" if row is None else _export_error(row) for row in mine)]))
    return Table(["variant", *formats], lines)


def missing_table(rows: Sequence[Row]) -> Table:
    """Cells without a time, those with the same reason in one line."""
    groups: dict[tuple[str, str, str, str], list[Row]] = {}
    for row in rows:
        if row.status != "ok":
            groups.setdefault((row.mode, path_label(row), row.status, row.reason), []).append(row)
    lines = []
    for (mode, label, status, reason), members in groups.items():
        variants = list(dict.fromkeys(row.variant for row in members))
        whom = "every variant" if len(variants) == len(VARIANTS) else ", ".join(v for v in variants if v != "-")
        lines.append(Line([mode, label, status, whom, reason], [status]))
    return Table(["Mode", "Path", "Status", "Variants", "Reason"], lines, words=5)


def _speed_table(rows: Sequence[Row], more: Columns) -> Table:
    """Rows grouped by variant, the fastest of each group marked, a bar for each rate within its group."""
    columns: Columns = {
        "Variant": lambda row: row.variant,
        "Path": path_label,
        "Batch": lambda row: str(row.batch_size),
        "ms": lambda row: number(row.median_ms),
        "p90": lambda row: number(row.p90_ms),
        "images/s": lambda row: number(row.images_s),
        "× eager": lambda row: number(times_eager(row, rows), 2),
        "of rounds": ratio_range,
        "Repeats": repeats,
        **more,
    }
    lines = []
    for variant in dict.fromkeys(row.variant for row in rows):
        group = [row for row in rows if row.variant == variant]
        top = max((row.images_s or 0.0 for row in group), default=0.0)
        for place, row in enumerate(group):
            classes: list[str] = [row.status] if place else [row.status, "first"]
            if top and row.images_s == top:
                classes.append("best")
            values = _or_status(row, [value(row) for value in columns.values()], 3)
            lines.append(Line(values, classes, row.images_s / top if row.images_s else None))
    return Table(list(columns), lines, words=2, bar=5, grouped=True)


def _rate(row: Row | None) -> str:
    """Images a second, or the status of a row without a time."""
    return "" if row is None else number(row.images_s) if row.status == "ok" else row.status


def _or_status(row: Row, values: list[str], names: int) -> list[str]:
    """The values, or the status and nothing else for a row without a time; the reason stands in its own table."""
    return values if row.status == "ok" else [*values[:names], row.status, *[""] * (len(values) - names - 1)]


def _export_error(row: ExportRow) -> str:
    return f"{row.heatmap_error:.1e}" if not row.reason else "none"


def _error(error: float | None) -> str:
    return "" if error is None else f"{error:.1e}" if error else "0"


def _fastest(rows: Iterable[Row], mode: str) -> Row | None:
    return max((row for row in rows if row.mode == mode), key=lambda row: row.images_s or 0.0, default=None)


def _eager(rows: Iterable[Row], mode: str, name: str) -> float | None:
    return next((getattr(row, name) for row in rows if (row.mode, row.path) == (mode, "eager")), None)


def _own_pckh(row: Row | None) -> str:
    """PCKh at full size; that of a reduced network is no result of the variant."""
    return f"{row.pckh:.1f}" if row and row.pckh is not None and "reduced" not in row.pckh_basis else ""
