"""What the campaign notes: a row for each command and fault, with every failure in words."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from fasthg.files import write_text

ROOT = Path(__file__).parents[2]
LIMIT_S = 600  # a command that takes longer hangs


@dataclass
class Row:
    """One command under one kind of fault.

    tried     how often
    hit       how often the fault met it: a process that had not ended, a file that was refused
    failures  what must not happen, in words
    seconds   that it took
    """

    command: str
    fault: str
    tried: int = 0
    hit: int = 0
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        counts = f"{self.tried:,} | {self.hit:,} | {len(self.failures)} | {self.seconds / 60:.1f}"
        return f"| {self.command} | {self.fault} | {counts} |"


def table(rows: list[Row]) -> str:
    """The rows as Markdown, failures below."""
    lines = ["| command | fault | tried | met | failed | minutes |", "| --- | --- | ---: | ---: | ---: | ---: |"]
    lines += [str(row) for row in rows]
    lines += [""] + [f"- {row.command}, {row.fault}: {failure}" for row in rows for failure in row.failures]
    return "\n".join(lines).rstrip() + "\n"


def add_to(file: Path, row: Row) -> None:
    """Add what was tried to the row of that name in a file that holds a table, text above it, or nothing yet."""
    text, bar, old = (file.read_text() if file.exists() else "").partition("| command |")
    rows: dict[tuple[str, str], Row] = {}
    for line in (bar + old).splitlines()[2:]:
        if line.startswith("| "):
            command, fault, tried, hit, _failed, minutes = (cell.strip() for cell in line.strip("| ").split(" | "))
            counts = int(tried.replace(",", "")), int(hit.replace(",", ""))
            rows[command, fault] = Row(command, fault, *counts, seconds=60 * float(minutes))
        elif line.startswith("- "):
            name, _, failure = line[2:].partition(": ")
            rows[tuple(name.rsplit(", ", 1))].failures.append(failure)  # type: ignore[index]
    known = rows.setdefault((row.command, row.fault), Row(row.command, row.fault))
    known.tried += row.tried
    known.hit += row.hit
    known.failures += row.failures
    known.seconds += row.seconds
    write_text(file, text + table(list(rows.values())))


def start(arguments: list[str]) -> subprocess.Popen[str]:
    """A Python process of the project with these arguments, in a group of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )


def ended(process: subprocess.Popen[str], limit_s: float = LIMIT_S) -> tuple[int | None, str]:
    """Exit code and output of a process; None where it hung and had to be killed."""
    try:
        output = process.communicate(timeout=limit_s)[0]
        return process.returncode, output
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return None, process.communicate()[0]


def judge(code: int | None, output: str) -> str | None:
    """What is wrong with how a process ended; None for an end that a user can understand."""
    if code is None:
        return "hung"
    if "Traceback (most recent call last)" in output:
        return f"traceback: {output.strip().splitlines()[-1][:200]}"
    if code < 0 and code not in (-signal.SIGKILL, -signal.SIGTERM):
        return f"ended by signal {-code}"
    return None


def half_files(folder: Path) -> list[str]:
    """Files under their final names that are empty or cannot be read as what they are called."""
    import json

    found = []
    for path in folder.rglob("*"):
        if not path.is_file() or ".part" in path.name or any(".part" in parent.name for parent in path.parents):
            continue
        if path.suffix == ".json":
            try:
                json.loads(path.read_bytes())
            except ValueError:
                found.append(f"half a file: {path.relative_to(folder)}")
        elif not path.stat().st_size and path.suffix in (".png", ".mp4", ".safetensors", ".h5", ".onnx", ".csv"):
            found.append(f"an empty file: {path.relative_to(folder)}")
    return found
