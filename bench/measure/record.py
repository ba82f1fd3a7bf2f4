"""What the sweep writes down: one row for each cell, appended to results.jsonl the moment the cell ends."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from fasthg.errors import FasthgError
from fasthg.files import atomic_path, cannot_write, write_text
from fasthg.version import LIBRARIES, installed

Status = Literal["ok", "WRONG", "left out", "skipped", "error"]


@dataclass(frozen=True)
class Cell:
    """One square of the table: what is measured.

    variant     name in VARIANTS; "-" for a loader, which no network is part of
    path        execution path, or the kind of loader in mode "loader"
    precision   what the path computes in: fp32, bf16, fp16, int8
    mode        "infer", "train" or "loader"
    batch_size  images at a time
    """

    variant: str
    path: str
    precision: str
    mode: str
    batch_size: int

    @property
    def name(self) -> str:
        """One word that can name a file."""
        return f"{self.mode}-{self.variant}-{self.path}-{self.precision}-b{self.batch_size}"

    @property
    def eager(self) -> Cell:
        """What it is compared with: the same by eager in fp32."""
        return replace(self, path="eager", precision="fp32")


@dataclass
class Row:
    """The outcome of one cell; None where there is nothing to say.

    Times are in milliseconds a batch, over `repeats` repeats in `rounds` rounds, see `bench.measure.turns`. A row whose
    status is not "ok" has a reason and no times: its answer is WRONG, it was left out for the time that it takes, it
    was skipped because it cannot run here, or it ended in an error.

    ratio               how many times faster than eager in the same round: the median of the rounds, and the range
    data_wait_ms        median wait for the loader before each step, not part of median_ms
    startup_s           seconds from a plain model to the first answer, conversion and compilation included; taken while
                        others prepare themselves, and shorter for a variant that shares code with one compiled before
    peak_memory_mb      10^6 bytes that running takes, start-up apart: of the process, or of the device
    gflop               of one image: forward, three times that for a training step
    tflops, share       achieved in 10^12 FLOP/s, and over the matrix product measured in the same run
    error               relative L2 distance of the heatmaps (training: difference of the first loss) from eager fp32's
    gradient_error      relative L2 distance of all gradients from eager fp32's, see `bench.measure.first_step`
    pckh, pckh_change   PCKh@0.5 (weighted14, percent) and its difference from eager's; pckh_basis says on what
    validation_minutes, epoch_minutes    extrapolated to MPII's people
    photo_ms            from one JPEG with one box to its joints in the photograph: reading, cropping, network, decoding
    joules              of the processors for a batch; None where the machine does not tell
    stream_ms           90th percentile of single crops one after the other, for the time that --full takes; stream_s
    load                cores that anything else kept busy while the cell was timed
    disturbed           others were busy in the repeats that count, because there were too few without them
    turns               fields of `bench.measure.turns.Turn`, all that were taken
    configuration       digest of all that rows of one sweep have in common: settings, weights, data, versions, commit
    """

    variant: str
    path: str
    precision: str
    mode: str
    batch_size: int
    status: Status
    reason: str = ""
    device: str = ""
    size: int = 0
    threads: int = 0
    median_ms: float | None = None
    p10_ms: float | None = None
    p90_ms: float | None = None
    repeats: int | None = None
    rounds: int | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    images_s: float | None = None
    data_wait_ms: float | None = None
    startup_s: float | None = None
    peak_memory_mb: float | None = None
    gflop: float | None = None
    tflops: float | None = None
    share: float | None = None
    error: float | None = None
    gradient_error: float | None = None
    pckh: float | None = None
    pckh_change: float | None = None
    pckh_basis: str = ""
    epoch_minutes: float | None = None
    validation_minutes: float | None = None
    photo_ms: float | None = None
    joules: float | None = None
    stream_ms: float | None = None
    stream_s: float | None = None
    load: float | None = None
    disturbed: bool = False
    commit: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)
    configuration: str = ""
    finished: str = ""
    turns: list[dict[str, Any]] = field(default_factory=list)

    @property
    def cell(self) -> Cell:
        return Cell(self.variant, self.path, self.precision, self.mode, self.batch_size)


class Results:
    """results.jsonl: facts about the run and rows, one JSON object a line, each on the disk before the next begins.

    A line is {"row": {...}} or {"machine": {...}}; a later row of the same cell replaces an earlier one. A last line
    that a crash cut short is dropped; damage anywhere else raises FasthgError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.machine: dict[str, Any] = {}
        self._rows: dict[Cell, Row] = {}
        for entry in self._read():
            self._take(entry)

    @property
    def rows(self) -> list[Row]:
        """The latest row of each cell, in the order the cells were first recorded; of the latest configuration only."""
        latest = self.machine.get("configuration", "")
        return [row for row in self._rows.values() if row.configuration == latest]

    def find(self, cell: Cell) -> Row | None:
        """The latest row of a cell, of whatever configuration."""
        return self._rows.get(cell)

    def add(self, row: Row) -> None:
        """Record a row for good."""
        self._append({"row": asdict(row)})

    def describe(self, machine: dict[str, Any]) -> None:
        """Record facts about the run; later ones are laid over earlier ones."""
        self._append({"machine": machine})

    def _take(self, entry: dict[str, Any]) -> None:
        self.machine |= entry.get("machine", {})
        if "row" in entry:
            row = Row(**entry["row"])
            self._rows[row.cell] = row

    def _append(self, entry: dict[str, Any]) -> None:
        add_line(self.path, json.dumps(entry, allow_nan=False))
        self._take(entry)

    def _read(self) -> Iterable[dict[str, Any]]:
        for number, line in enumerate(whole_lines(self.path), start=1):
            try:
                entry = json.loads(line)
                if "row" in entry:
                    Row(**entry["row"])
            except (ValueError, TypeError) as error:
                raise FasthgError(
                    f"{self.path}: line {number} is no row of this version ({error}); give another --out"
                ) from error
            yield entry


def whole_lines(path: Path) -> list[str]:
    """The lines of a file, if there is one; a last line that a crash cut short is dropped there, too."""
    if not path.exists():
        return []
    whole, newline, torn = path.read_text(encoding="utf-8").rpartition("\n")
    if torn:
        write_text(path, whole + newline)
    return whole.splitlines()


def add_line(path: Path, line: str) -> None:
    """Put a line behind those of a file; it is on the disk when this returns."""
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise cannot_write(path, error) from error


def write_csv(rows: Iterable[Row], path: Path) -> None:
    """The rows as a table for spreadsheets, without their single turns; dictionaries become "key=value" lists."""
    names = [f.name for f in fields(Row) if f.name != "turns"]
    with atomic_path(path) as aside, open(aside, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for row in rows:
            values = [getattr(row, name) for name in names]
            writer.writerow(
                " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else value for value in values
            )


def digest_of(*parts: Any) -> str:
    """Short name of a configuration: equal parts, equal digest."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


@cache
def versions() -> dict[str, str]:
    """Versions of the libraries that decide a measurement, of those that are installed."""
    return installed(LIBRARIES)


@cache
def commit() -> str:
    """The commit that the code is at, with "+" where files differ from it; "" outside a git checkout."""

    def git(*arguments: str) -> str:
        folder = Path(__file__).resolve().parent
        return subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True).stdout

    try:
        return git("rev-parse", "--short=10", "HEAD").strip() + ("+" if git("status", "--porcelain").strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return ""
