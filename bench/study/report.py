"""The report on the reduced-size runs of the study's variants: table, curves, and which of its orderings they show."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from bench.study.published import BY_VARIANT
from fasthg.files import atomic_path, write_text
from fasthg.network.variants import STUDY_VARIANTS
from training.log import write_csv

REPORT = "report.md"
METRIC = "mean14_pckh@0.5"  # the study's protocol
_SIGNIFICANT = 2.0  # standard errors that a difference has to exceed


@dataclass(frozen=True)
class VariantScores:
    """Scores of one variant over its seeds."""

    variant: str
    scores: tuple[float, ...]
    parameters: int
    gflop: float

    @property
    def mean(self) -> float:
        return statistics.fmean(self.scores)


def scores_by_variant(rows: Sequence[dict[str, Any]]) -> list[VariantScores]:
    """One variant a variant, in the study's order."""
    found = []
    for variant in STUDY_VARIANTS:
        runs = sorted((row for row in rows if row["variant"] == variant), key=lambda row: row["seed"])
        if runs:
            scores = tuple(row["scores"][METRIC] for row in runs)
            found.append(VariantScores(variant, scores, runs[0]["parameters"], runs[0]["gflop"]))
    return found


def spread_of_seeds(found: Sequence[VariantScores]) -> float:
    """Standard deviation between seeds, pooled over the variants that were repeated; NaN where none was."""
    repeated = [variant for variant in found if len(variant.scores) > 1]
    degrees = sum(len(variant.scores) - 1 for variant in repeated)
    squares = sum((score - variant.mean) ** 2 for variant in repeated for score in variant.scores)
    return math.sqrt(squares / degrees) if degrees else math.nan


@dataclass(frozen=True)
class Pair:
    """Two variants, the study's better one first: differences in points, and the least one that is more than luck."""

    better: str
    worse: str
    study: float
    ours: float
    noise: float

    @property
    def verdict(self) -> str:
        if not abs(self.ours) > self.noise:
            return "within noise"
        return "holds" if self.ours > 0 else "reversed"


def compare(found: Sequence[VariantScores]) -> list[Pair]:
    """Every pair of variants, the study's largest difference first."""
    spread = spread_of_seeds(found)
    pairs = []
    for one, other in combinations(found, 2):
        study = BY_VARIANT[one.variant].pckh - BY_VARIANT[other.variant].pckh
        better, worse = (one, other) if study >= 0 else (other, one)
        noise = _SIGNIFICANT * spread * math.sqrt(1 / len(one.scores) + 1 / len(other.scores))
        pairs.append(Pair(better.variant, worse.variant, abs(study), better.mean - worse.mean, noise))
    return sorted(pairs, key=lambda pair: -pair.study)


def write_report(out: Path, rows: Sequence[dict[str, Any]], command: str) -> None:
    """Write report.md, results.csv and curves.png into `out`."""
    write_text(out / REPORT, report(rows, command))
    write_csv(out / "results.csv", flat(rows))
    draw_curves(out / "curves.png", rows)


def report(rows: Sequence[dict[str, Any]], command: str) -> str:
    """The report in Markdown."""
    found, first = scores_by_variant(rows), rows[0]
    pairs = compare(found)
    count = {verdict: sum(pair.verdict == verdict for pair in pairs) for verdict in ("holds", "reversed")}
    lines = [
        "# The study's variants at reduced size, on rendered people",
        "",
        f"Made by `{command}`.",
        "",
        f"Every variant has its widths divided by {first['shrink']} and sees {first['size']} px crops of the same "
        f"{first['people']} rendered people for {first['epochs']} epochs at batch {first['batch_size']}, that is "
        f"{first['steps']} steps: about 70 times fewer crops than in the study's runs, and of other data. The "
        "table says which variant learns fastest when it is small, not which is best in the end.",
        "",
        "| variant | study PCKh | PCKh@0.5 mean14 | each seed | parameters | GFLOP/image |",
        "|---|---|---|---|---|---|",
        *map(_variant_line, found),
        "",
        f"Standard deviation between seeds: {spread_of_seeds(found):.2f} points, pooled over the repeated variants and "
        f"taken for all. A difference counts when it exceeds {_SIGNIFICANT:g} standard errors.",
        "",
        f"Of the {len(pairs)} pairs, the study's order holds in {count['holds']} and is reversed in "
        f"{count['reversed']}; the rest are within noise.",
        "",
        "| the study's better | and worse | study, points | ours, points | noise | order |",
        "|---|---|---|---|---|---|",
        *map(_pair_line, pairs),
        "",
        "![PCKh over the epochs](curves.png)",
        "",
    ]
    return "\n".join(lines)


def _variant_line(variant: VariantScores) -> str:
    seeds = " ".join(f"{score:.2f}" for score in variant.scores)
    numbers = f"{BY_VARIANT[variant.variant].pckh:.2f} | {variant.mean:.2f} | {seeds}"
    return f"| {variant.variant} | {numbers} | {variant.parameters:,} | {variant.gflop:.3f} |"


def _pair_line(pair: Pair) -> str:
    numbers = f"{pair.study:+.2f} | {pair.ours:+.2f} | {pair.noise:.2f}"
    return f"| {pair.better} | {pair.worse} | {numbers} | {pair.verdict} |"


def flat(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs in the study's order, as lines of a table."""
    ordered = sorted(rows, key=lambda row: (STUDY_VARIANTS.index(row["variant"]), row["seed"]))
    nested = ("scores", "curve", "loss")
    return [{name: row[name] for name in row if name not in nested} | row["scores"] for row in ordered]


def draw_curves(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """PCKh and loss over the epochs, a line a run, a colour a variant."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), layout="constrained")
    pckh, loss = figure.subplots(1, 2)
    for row in rows:
        colour = f"C{STUDY_VARIANTS.index(row['variant'])}"
        epochs = range(1, len(row["curve"]) + 1)
        label = row["variant"] if row["seed"] == 0 else None
        pckh.plot(epochs, row["curve"], color=colour, label=label, alpha=1.0 if label else 0.5)
        loss.semilogy(epochs, row["loss"], color=colour, alpha=1.0 if label else 0.5)
    pckh.set(title="PCKh@0.5 mean14 on validation, %", xlabel="epoch")
    loss.set(title="training loss, summed over the stacks", xlabel="epoch")
    pckh.legend(fontsize="small")
    with atomic_path(path) as aside:
        figure.savefig(aside, dpi=100)
