"""What `bench.exports` writes down: exports.json, a row for each variant in each format."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.measure.record import versions
from fasthg.errors import FasthgError
from fasthg.files import write_json
from fasthg.network.variants import VARIANTS, split_stacks
from fasthg.runtimes.measured import device_model

RESULTS = "exports.json"


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


def write_rows(path: Path, rows: Iterable[ExportRow]) -> None:
    """Write exports.json: where and with what the exports were made, and the rows in the order of VARIANTS."""
    variants = list(VARIANTS)
    ordered = sorted(rows, key=lambda row: (variants.index(split_stacks(row.variant)[0]), row.variant, row.format))
    machine = {"model": device_model(), "cores": os.cpu_count(), "versions": versions()}
    write_json(path, {"machine": machine, "rows": [asdict(row) for row in ordered]})


def read_rows(path: Path) -> list[ExportRow]:
    """The rows of an exports.json; raises FasthgError for one of another version."""
    try:
        return [ExportRow(**row) for row in json.loads(path.read_text(encoding="utf-8"))["rows"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FasthgError(f"{path} holds no exports of this version ({error}); give another --out") from error
