"""A cell's row: what its process found out, and what follows from the times of its turns."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from bench.measure.record import Cell, Row, commit, versions
from bench.measure.turns import Turn, ratio_fields, summarise
from bench.study.published import epoch_minutes, validation_minutes
from bench.sweep.materials import checked_weights
from bench.sweep.plan import COST
from bench.sweep.settings import Settings
from fasthg.network.flops import count_flops
from fasthg.network.variants import INPUT_SIZE, get_config
from fasthg.runtimes.measured import Measurement, device_model, remember_measurement

GIGA = 1e9


def blank(cell: Cell, settings: Settings, configuration: str, **fields: Any) -> Row:
    """A row with everything but an outcome, or with the one that is given."""
    row = Row(
        **dataclasses.asdict(cell),
        status=fields.pop("status", "ok"),
        device=settings.device,
        size=settings.size,
        threads=settings.threads,
        commit=commit(),
        versions=versions(),
        configuration=configuration,
    )
    for name, value in fields.items():
        setattr(row, name, value)
    return row


def turns_of(row: Row | None) -> list[Turn]:
    """The turns that a row holds; none for no row."""
    return [Turn(**fields) for fields in row.turns] if row else []


def take_times(row: Row, turns: Sequence[Turn], eager: Sequence[Turn], limits: dict[str, float]) -> None:
    """Fill in what follows from the turns of a cell and of eager; `limits` are the machine's TFLOP/s by precision."""
    row.turns = [dataclasses.asdict(turn) for turn in turns]
    for name, value in (summarise(turns) | ratio_fields(turns, eager)).items():
        setattr(row, name, value)
    assert row.median_ms is not None
    row.images_s = 1e3 * row.batch_size / row.median_ms
    row.gflop = count_flops(get_config(row.variant), row.size) / GIGA
    row.tflops = row.images_s * row.gflop * COST[row.mode] / 1e3
    limit = limits.get(row.precision)
    row.share = row.tflops / limit if limit else None
    if row.mode == "infer":
        row.validation_minutes = validation_minutes(row.images_s)
    else:
        row.epoch_minutes = epoch_minutes(row.images_s)


def remember(row: Row, settings: Settings) -> None:
    """Let `auto` know of an inference time that passed parity, at the size that people use."""
    if row.mode != "infer" or row.status != "ok" or settings.size != INPUT_SIZE or not row.images_s:
        return
    threads = 0 if settings.device.startswith("cuda") else settings.threads
    path, milliseconds = f"{row.path}:{row.precision}", 1e3 / row.images_s
    weights = checked_weights(settings, row.variant)
    model = device_model(settings.device)
    remember_measurement(Measurement(row.variant, path, model, threads, row.batch_size, milliseconds, weights))


def least_rounds(rows: Sequence[Row]) -> float:
    """Rounds that count of the cell that has the fewest, a cell that others disturbed counting half."""
    return min(((row.rounds or 0) * (0.5 if row.disturbed else 1.0) for row in rows), default=math.inf)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
