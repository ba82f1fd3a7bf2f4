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
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from bench.measure import isolate
from bench.measure.exported import RESULTS, ExportRow, read_rows, write_rows
from bench.measure.jobs import Job, run_jobs
from bench.measure.record import commit
from fasthg.console import note, progress_bar, run_command
from fasthg.errors import FasthgError
from fasthg.export.export import RANDOM, ExportOptions, export
from fasthg.export.targets import PRECISIONS
from fasthg.files import make_folder
from fasthg.network.flops import count_flops
from fasthg.network.load import WEIGHTS_DIR
from fasthg.network.variants import VARIANTS, get_config, split_stacks

FORMATS = ("onnx:fp32", "onnx:fp16", "openvino:fp32", "openvino:bf16", "openvino:int8", "trt:fp16")
LIMIT_S = 1800.0  # for one export


def run_export(variant: str, text: str) -> dict[str, Any]:
    """Export one variant in one format ("onnx:fp16") and return the fields of its row; its graph has to be valid."""
    torch.set_num_threads(1)
    (target, precision), (name, stacks) = text.split(":"), split_stacks(variant)
    weights = None if (WEIGHTS_DIR / f"{name}.safetensors").is_file() else RANDOM
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "artefact"
        kept = export(ExportOptions(target, precision, name, weights, output=output, stacks=stacks)).folder
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
    jobs = [
        Job(f"{variant} {text}", run_export, (variant, text))
        for variant, text in sorted(missing, key=lambda pair: -count_flops(get_config(pair[0])))
    ]
    with tempfile.TemporaryDirectory() as logs, progress_bar() as bar:
        task = bar.add_task("exports", total=len(jobs))
        try:
            for job, outcome in run_jobs(jobs, workers, Path(logs), LIMIT_S):
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
    sys.exit(run_command(main, prog="python -m bench.exports"))
