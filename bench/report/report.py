"""The sweep's results to read: results.csv, report.md and report.html with its charts, made from results.jsonl."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.measure.record import Results, Row, write_csv
from bench.report import tables
from bench.report.charts import parity_chart, speed_chart
from bench.report.summary import peers, summary
from bench.report.tables import Table
from bench.report.tradeoff import points_of, tradeoff_chart, tradeoff_table
from fasthg.files import write_text

TEMPLATES = Path(__file__).parent / "templates"

INFER_NOTE = (
    "Median of the repeats after warm-up, crops already on the device; p90 is the 90th percentile. The paths of a "
    "network take turns, round after round: × eager is the median of the rounds' ratios, with their range. Repeats "
    "with ~ were disturbed by others on the machine. Photo: from one JPEG and a box to the joints in the photograph. "
    "Limit: share of the matrix product of the same precision, measured in this run. MB: what running takes beyond "
    "the bare process. Start: seconds from a plain model to the first answer, conversion and compilation included, "
    "taken while others were prepared. Error: relative L2 distance of the heatmaps from eager fp32, at full size on "
    "the same weights. * extrapolated to MPII's 2,958 people of validation."
)
CSV = "results.csv"
PAGES = ("report.md", "report.html")
REPORTS = (CSV, *PAGES)
PARITY_NOTE = (
    "PCKh is PCKh@0.5 (weighted14) by each path minus that of eager fp32 on the same weights and people. A path "
    "whose heatmaps are further off than allowed, or which loses more PCKh than its precision may, prints WRONG and no "
    "time."
)
TRADEOFF_NOTE = (
    "Networks with trained weights alone; NAME@K are the first K stacks of NAME, of one training. To the upper left is "
    "better."
)
TRAIN_NOTE = (
    "A step is forward, loss over all stacks, backward and RMSProp, fed by the reference loader; the wait for "
    "data is not part of ms. A step counts as three forward passes. Loss error: relative difference of the first loss "
    "from eager fp32's; gradient error: relative L2 distance over all parameters in a step whose norm layers "
    "use running statistics (those of a single image make gradients chaotic). * extrapolated to an "
    "epoch of MPII's 22,246 people."
)
LOADER_NOTE = "Loaders by themselves, two workers each, full augmentation, photographs of the same folder."
STUDY_NOTE = (
    "Published figures beside ours. * ours are extrapolated from the rates above, by the fastest path that was "
    "right and by eager; the study does not name its hardware. At batch 20 it took the same time for 17 and for "
    "89 GFLOP an image: it measured its loader. Our PCKh stands only where the variant has trained weights of "
    "full size."
)
MISSING_NOTE = "Every cell that was not timed."


@dataclass
class Section:
    """A heading, what to know about the numbers, tables, and a chart as SVG that is also kept as a file."""

    title: str
    note: str
    tables: list[Table]
    chart: str = ""

    @property
    def chart_file(self) -> str:
        return f"{self.title.lower().replace(' ', '-')}.svg" if self.chart else ""


def write_reports(results: Results, out: Path) -> None:
    """Write results.csv, report.md, report.html and the charts into `out`, each as a whole or not at all."""
    write_csv(results.rows, out / CSV)
    sections = make_sections(results.rows)
    for section in sections:
        if section.chart:
            write_text(out / section.chart_file, section.chart)
    for name in PAGES:
        write_text(out / name, render(name, results, sections))


def render(name: str, results: Results, sections: Sequence[Section]) -> str:
    """One of the templates, filled in."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=name.endswith(".html"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    title = results.machine.get("model", "unknown machine")
    found = [peers(results.rows), *summary(results.rows, "python -m bench.sweep --full --resume")]
    template = environment.get_template(f"{name}.j2")
    return template.render(title=title, summary=found, facts=facts(results), cards=cards(results), sections=sections)


def make_sections(rows: Sequence[Row]) -> list[Section]:
    """What the report shows, in order; a section with nothing to show is left out."""
    shown = [row for row in rows if row.status not in ("skipped", "left out")]
    infer, train, load = ([row for row in shown if row.mode == mode] for mode in ("infer", "train", "loader"))
    bases: dict[str, list[str]] = {}
    for row in infer:
        if row.pckh_basis and row.variant not in bases.setdefault(row.pckh_basis, []):
            bases[row.pckh_basis].append(row.variant)
    measured = "".join(f" {', '.join(variants)}: {basis}." for basis, variants in bases.items())
    parity_note = PARITY_NOTE + (f" PCKh was measured on: {measured}" if bases else "")
    study = [tables.study_table(rows), tables.published_table()] if infer or train else []
    points = points_of(infer)
    if len({point.label for point in points}) < 2:
        points = []  # the paths' scores of a single network are those of the parity table
    tradeoff = tradeoff_chart(points, "PCKh@0.5") if points else ""
    sections = [
        Section("Inference", INFER_NOTE, [tables.infer_table(infer)], _chart(speed_chart, infer)),
        Section("Parity with eager", parity_note, [tables.parity_table(rows)], _chart(parity_chart, infer)),
        Section("Score against time", TRADEOFF_NOTE, [tradeoff_table(points, "PCKh@0.5")], tradeoff),
        Section("Training step", TRAIN_NOTE, [tables.train_table(train)], _chart(speed_chart, train)),
        Section("Loaders", LOADER_NOTE, [tables.loader_table(load)]),
        Section("Beside the study", STUDY_NOTE, study),
        Section("Without a time", MISSING_NOTE, [tables.missing_table(rows)]),
    ]
    for section in sections:
        section.tables = [table for table in section.tables if table.lines]
    return [section for section in sections if section.tables]


def _chart(draw: Callable[[Sequence[Row]], str], rows: Sequence[Row]) -> str:
    """The chart of the rows that have a time, at the first batch size only; "" where there are none."""
    timed = [row for row in rows if row.status == "ok"]
    return draw([row for row in timed if row.batch_size == timed[0].batch_size]) if timed else ""


def facts(results: Results) -> list[str]:
    """What a reader has to know about the machine and the run."""
    machine = results.machine
    if not machine:
        return []
    limits = machine["limits"]
    matrix = ", ".join(f"{tables.number(value)} TFLOP/s in {name}" for name, value in limits["tflops"].items())
    loads = [row.load for row in results.rows if row.load is not None]
    first = machine.get("niceness", 0)
    return [
        f"{machine['device']}: {machine['threads']} threads of {machine['cores']} cores, {machine['memory_gb']} GB; "
        f"others kept {min(loads, default=0):.1f} to {max(loads, default=0):.1f} cores busy while cells were timed"
        + (f"; cells ran before everything else (niceness {first})" if first < 0 else ""),
        f"limit measured in this run: {matrix or machine['limits_reason']}"
        + (f"; copy {tables.number(limits['copy_gb_s'])} GB/s" if limits["copy_gb_s"] else ""),
        f"energy of the processors: {machine.get('energy', 'not told here')}",
        f"crops of {machine['size']} px; data {machine['data']}; begun {machine['began']}; "
        f"commit {machine['commit'] or 'unknown'}",
        ", ".join(f"{name} {version}" for name, version in machine["versions"].items()),
    ]


def cards(results: Results) -> list[dict[str, str]]:
    """The run in a few numbers."""
    rows = results.rows
    timed = [row for row in rows if row.status == "ok"]
    found = [
        {"value": f"{len(timed)} of {len(rows)}", "label": "cells have a time"},
        {"value": str(sum(row.status == "WRONG" for row in rows)), "label": "cells are WRONG"},
    ]
    for variant in ("original", "small"):
        mine = [row for row in timed if row.mode == "infer" and row.variant == variant and row.images_s]
        mine = [row for row in mine if row.batch_size == min(other.batch_size for other in mine)]
        eager = next((row.images_s for row in mine if row.path == "eager"), None)
        if mine and eager:
            best = max(mine, key=lambda row: row.images_s or 0.0)
            times = tables.times_eager(best, rows) or 0.0
            label = f"images/s, {variant} by {tables.path_label(best)}: {times:.1f} × eager"
            found.append({"value": tables.number(best.images_s), "label": label})
    return found
