"""What the study's commands share: a training that is kept and silent, and a file with a line for each that is done."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bench.measure.record import add_line, whole_lines
from fasthg.console import note
from fasthg.errors import FasthgError
from training.options import TrainOptions
from training.recipes import Recipe
from training.state import LAST
from training.trainer import Trainer, TrainResult

RESULTS = "results.jsonl"
#: What short trainings have in common: Adam with decoupled decay, as RMSProp needs many more epochs to get anywhere.
SHORT = Recipe(optimizer="adamw", weight_decay=0.01, schedule="cosine", warmup=50, ema=0.99)


def run_quietly(data: Path, recipe: Recipe, out: Path, **options: Any) -> tuple[Trainer, TrainResult]:
    """Train in the folder `out` on one thread, or go on with the run that it holds; `options` of TrainOptions."""
    torch.set_num_threads(1)
    usual = {"num_workers": 0, "checkpoint_seconds": 60.0, "tensorboard": False, "progress": False}
    trainer = Trainer(
        TrainOptions(data=data, recipe=recipe, out=out, resume=(out / LAST).exists(), **usual | options)  # type: ignore[arg-type]
    )
    return trainer, trainer.run()


def read_results(path: Path, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The lines of a results file; a last one that was cut short is dropped.

    Raises FasthgError for a line that is of other settings.
    """
    rows = []
    for line in whole_lines(path):
        try:
            rows.append(json.loads(line))
        except ValueError:
            note(f"{path}: a line that was cut short is left out, and its run repeated")
    if any(row[name] != value for row in rows for name, value in settings.items()):
        raise FasthgError(f"{path} holds runs of other settings; give the same options or another --out")
    return rows


def add_result(path: Path, row: Mapping[str, Any]) -> None:
    """Put a line behind those of a results file."""
    add_line(path, json.dumps(row))
