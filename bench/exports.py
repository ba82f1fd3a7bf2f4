"""Every variant in every format that people deploy, exported and compared with eager by one command.

    python -m bench.exports
    python -m bench.exports --variants small,original --formats openvino:int8

Each export runs in a process of its own by `fasthg export`; what it found out is a row of
`exports.json`, whose artefact is thrown away. Variants without trained weights are exported fresh: their heatmaps say
whether the format computes the same network, PCKh cannot. The same command goes on with what is missing.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from bench.measure import isolate
from bench.measure.record import commit, versions
from bench.report.tables import Line, Table
from bench.sweep.plan import flops
from bench.sweep.preparation import Job, run_jobs
from fasthg.console import make_app, note, progress_bar, run_app
from fasthg.errors import FasthgError
from fasthg.export.export import RANDOM, ExportOptions, export
from fasthg.export.targets import PRECISIONS
from fasthg.files import make_folder, write_json
from fasthg.network.checkpoint import WEIGHTS_DIR
from fasthg.network.variants import VARIANTS, get_config
from fasthg.runtimes.measured import device_model

RESULTS = "exports.json"
FORMATS = ("onnx:fp32", "onnx:fp16", "openvino:fp32", "openvino:bf16", "openvino:int8", "trt:fp16")
LIMIT_S = 1800.0  # for one export


@dataclass(frozen=True)
class ExportRow:
    """One variant in one format; `reason` says why there is none.

    megabytes        size of the artefact, 10^6 bytes
    heatmap_error    relative L2 distance from eager fp32, and the largest that is allowed
    pckh_change      percentage points; None for a network that has learnt nothing
    engine           what metadata says of a TensorRT engine
    """

    variant: str
    format: str
    commit: str
    reason: str = ""
    weights: str = ""
    megabytes: float | None = None
    heatmap_error: float | None = None
    heatmap_limit: float | None = None
    keypoint_p99: float | None = None
    pckh_change: float | None = None
    num_crops: int | None = None
    compared_through: str = ""
    engine: dict[str, Any] | None = None


def run_export(variant: str, text: str) -> dict[str, Any]:
    """Export one variant in one format ("onnx:fp16") and return the fields of its row; its graph has to be valid."""
    torch.set_num_threads(1)
    target, precision = text.split(":")
    weights = None if (WEIGHTS_DIR / f"{variant}.safetensors").is_file() else RANDOM
    with tempfile.TemporaryDirectory() as folder:
        kept = export(ExportOptions(target, precision, variant, weights, output=Path(folder) / "artefact")).folder
        if (kept / "model.onnx").exists():
            import onnx

            onnx.checker.check_model(str(kept / "model.onnx"), full_check=True)
        metadata = json.loads((kept / "metadata.json").read_text())
        comparison = metadata["comparison"]
        return {
            "weights": metadata["weights"],
            "megabytes": round(sum(file.stat().st_size for file in kept.iterdir()) / 1e6, 1),
            "heatmap_error": comparison["heatmap_error"],
            "heatmap_limit": comparison["heatmap_limit"],
            "keypoint_p99": comparison["keypoint_p99"],
            "pckh_change": comparison["pckh_change"] if comparison["pckh_counts"] else None,
            "num_crops": comparison["num_crops"],
            "compared_through": metadata["compared_through"],
            "engine": metadata["engine"] or None,
        }


def run_all(variants: Sequence[str], formats: Sequence[str], out: Path, workers: int) -> list[ExportRow]:
    """Export every variant in every format that `out` has no row of yet, `workers` at a time; returns all rows."""
    path = make_folder(out) / RESULTS
    rows = {(row.variant, row.format): row for row in read_rows(path) if not row.reason} if path.exists() else {}
    missing = [(variant, text) for variant in variants for text in formats if (variant, text) not in rows]
    jobs = [Job(f"{variant} {text}", run_export, (variant, text), flops(variant)) for variant, text in missing]
    jobs.sort(key=lambda job: -job.cost)
    with tempfile.TemporaryDirectory() as logs, progress_bar() as bar:
        task = bar.add_task("exports", total=len(jobs))
        try:
            for job, outcome in run_jobs(jobs, workers, Path(logs), LIMIT_S, float("inf")):
                assert isinstance(outcome, isolate.Outcome)
                variant, text = job.arguments
                row = ExportRow(variant, text, commit(), outcome.reason, **(outcome.result or {}))
                rows[row.variant, row.format] = row
                write_rows(path, rows.values())
                note(f"{job.name}: {row.reason or f'{row.heatmap_error:.1e}'}")
                bar.advance(task)
        finally:
            isolate.end_all()
    return list(rows.values())


def write_rows(path: Path, rows: Iterable[ExportRow]) -> None:
    """Write exports.json: where and with what the exports were made, and the rows in the order of VARIANTS."""
    ordered = sorted(rows, key=lambda row: (list(VARIANTS).index(row.variant), row.format))
    machine = {"model": device_model(), "cores": os.cpu_count(), "versions": versions()}
    write_json(path, {"machine": machine, "rows": [asdict(row) for row in ordered]})


def read_rows(path: Path) -> list[ExportRow]:
    """The rows of an exports.json; raises FasthgError for one of another version."""
    try:
        return [ExportRow(**row) for row in json.loads(path.read_text(encoding="utf-8"))["rows"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FasthgError(f"{path} holds no exports of this version ({error}); give another --out") from error


def exports_table(folder: Path) -> Table:
    """Variants by formats: relative heatmap error against eager fp32."""
    rows = read_rows(folder / RESULTS)
    formats = list(dict.fromkeys(row.format for row in rows))
    found = {(row.variant, row.format): row for row in rows}
    lines = []
    for variant in dict.fromkeys(row.variant for row in rows):
        mine = [found.get((variant, text)) for text in formats]
        lines.append(Line([variant, *("" if row is None else _cell(row) for row in mine)]))
    return Table(["variant", *formats], lines)


def _cell(row: ExportRow) -> str:
    return f"{row.heatmap_error:.1e}" if not row.reason else "none"


app = make_app()


@app.command()
def main(
    variants: Annotated[str, typer.Option(help="Networks, separated by commas.")] = ",".join(VARIANTS),
    formats: Annotated[str, typer.Option(help="Such as onnx:fp16,openvino:int8.")] = ",".join(FORMATS),
    out: Annotated[Path, typer.Option(help="Folder of exports.json.")] = Path("out/exports"),
    workers: Annotated[int, typer.Option(min=1, help="Exports side by side, one thread each.")] = os.cpu_count() or 1,
) -> None:
    """Export every variant in every format, compare each with eager, and write what was found to exports.json."""
    chosen, texts = tuple(variants.split(",")), tuple(formats.split(","))
    for variant in chosen:
        get_config(variant)
    for text in texts:
        if text not in {f"{target}:{precision}" for target, those in PRECISIONS.items() for precision in those}:
            raise FasthgError(f"unknown format {text!r}; give such as {', '.join(FORMATS)}")
    if failed := [row for row in run_all(chosen, texts, out, workers) if row.reason]:
        raise FasthgError(f"{len(failed)} exports have no artefact; {out / RESULTS} says why")
    note(f"{out / RESULTS}")


if __name__ == "__main__":
    sys.exit(run_app(app, prog="python -m bench.exports"))
