"""`python -m bench.report.readme`: write the README's tables from the results that are committed under bench/results/.

A table stands between `<!-- NAME: FOLDER -->` and `<!-- end -->`; FOLDER is one of bench/results, with the results of a
sweep or of `bench.exports`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from bench.measure import exported
from bench.measure.record import Results, Row
from bench.report.tables import (
    Line,
    Table,
    exports_table,
    loader_table,
    number,
    path_label,
    percent,
    signed,
    spread,
    times_eager,
)
from fasthg.console import note, run_command
from fasthg.errors import FasthgError
from fasthg.files import write_text

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results"
_BLOCK = re.compile(r"(<!-- (?P<name>[a-z]+): (?P<folder>[\w.-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def ladder(rows: Sequence[Row]) -> Table:
    """Every path that ran `original`, slowest first: time, share of the machine's limit, what it does to PCKh."""
    mine = [row for row in rows if row.mode == "infer" and row.variant == "original" and row.median_ms]
    mine = [row for row in mine if row.batch_size == min(other.batch_size for other in mine)]
    lines = []
    for row in sorted(mine, key=lambda row: -(row.median_ms or 0.0)):
        values = [path_label(row), number(row.median_ms), spread(row), number(row.images_s)]
        values.append(number(times_eager(row, rows), 2))
        lines.append(Line([*values, percent(row.share), f"{row.error:.0e}", signed(row.pckh_change)]))
    columns = ["path", "ms", "p10–p90", "images/s", "× eager", "of the limit", "heatmap error", "PCKh change"]
    return Table(columns, lines)


def variants(rows: Sequence[Row]) -> Table:
    """Milliseconds of every variant on every path, and of a training step a person; WRONG where the answer is."""
    columns = {"infer": "{}", "train": "train {}"}
    first = {mode: min((row.batch_size for row in rows if row.mode == mode), default=1) for mode in columns}
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        if row.mode in columns and row.status in ("ok", "WRONG") and row.batch_size == first[row.mode]:
            time = "WRONG" if row.status == "WRONG" else number((row.median_ms or 0.0) / row.batch_size)
            found.setdefault(row.variant, {})[columns[row.mode].format(path_label(row))] = time
    paths = list(dict.fromkeys(path for times in found.values() for path in times))
    paths.sort(key=lambda path: path.startswith("train"))
    lines = [Line([variant, *(times.get(path, "") for path in paths)]) for variant, times in found.items()]
    return Table(["variant", *paths], lines)


def loaders(rows: Sequence[Row]) -> Table:
    """Every loader's images a second."""
    return loader_table([row for row in rows if row.mode == "loader"])


def of_sweep(table: Callable[[Sequence[Row]], Table]) -> Callable[[Path], Table]:
    """`table` of the rows of the sweep in a folder."""
    return lambda folder: table(Results(folder / "results.jsonl").rows)


TABLES: dict[str, Callable[[Path], Table]] = {
    "ladder": of_sweep(ladder),
    "variants": of_sweep(variants),
    "loaders": of_sweep(loaders),
    "exports": lambda folder: exports_table(exported.read_rows(folder / exported.RESULTS)),
}


def markdown(table: Table) -> str:
    """A table in Markdown; numbers to the right."""
    rules = ["---"] * table.words + ["---:"] * (len(table.columns) - table.words)
    rows = [table.columns, rules, *(line.values for line in table.lines)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def fill(text: str) -> str:
    """The README's text with every table made anew; raises FasthgError for one that cannot be made."""

    def table(block: re.Match[str]) -> str:
        folder = RESULTS / block["folder"]
        if block["name"] not in TABLES or not folder.is_dir():
            raise FasthgError(f"README: no table {block['name']!r} or no {folder}; tables are {', '.join(TABLES)}")
        return block[1] + markdown(TABLES[block["name"]](folder)) + block[4]

    return _BLOCK.sub(table, text)


def readme(file: Annotated[Path, typer.Option(help="File whose tables are written.")] = ROOT / "README.md") -> None:
    """Write the README's tables from the committed results."""
    before = file.read_text(encoding="utf-8")
    after = fill(before)
    if after != before:
        write_text(file, after)
    note(f"{file}: {len(_BLOCK.findall(after))} tables" + ("" if after != before else ", unchanged"))


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return run_command(readme, argv, "python -m bench.report.readme")


if __name__ == "__main__":
    sys.exit(main())
