"""Processes that are killed at random moments, and what a second try makes of what they left."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from tests.faults.commands import Command, commands, make_material
from tests.faults.outcome import Row, ended, half_files, judge, start


def kills(folder: Path, count: int, seed: int) -> Iterator[Row]:
    """`count` kills in turn over every command, half of them by SIGKILL and half by SIGTERM."""
    chance, material = random.Random(seed), folder / "material"
    make_material(material)
    before = digests(material)
    known = commands(material)
    for number, command in enumerate(known):
        share = count // len(known) + (number < count % len(known))
        if not share:
            continue
        began = time.monotonic()
        code, output = ended(start(command.arguments(folder / "whole")))
        lasts = time.monotonic() - began
        by_signal = {
            kind: Row(command.name, f"kill -{kind.name.removeprefix('SIG')}")
            for kind in (signal.SIGKILL, signal.SIGTERM)
        }
        if code:
            by_signal[signal.SIGKILL].failures.append(f"ends with {code} undisturbed: {output[-200:]}")
        for i in range(share):
            kind = (signal.SIGKILL, signal.SIGTERM)[i % 2]
            _one(command, folder / "out", kind, chance.uniform(0.1, 1.0) * lasts, by_signal[kind])
            if digests(material) != before:
                by_signal[kind].failures.append("an input was changed")
        yield from by_signal.values()


def digests(folder: Path) -> dict[str, str]:
    """Digest of every file by its place."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _one(command: Command, out: Path, kind: signal.Signals, after_s: float, row: Row) -> None:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    process = start(command.arguments(out))
    row.tried += 1
    time.sleep(after_s)
    if process.poll() is None:
        row.hit += 1
        os.killpg(process.pid, kind)
    code, output = ended(process)
    problems = [judge(code, output), *half_files(out)]
    code, output = ended(start(command.rerun(out)))
    problems += [judge(code, output), *half_files(out)]
    if code:
        problems.append(f"cannot be run again after {after_s:.1f} s: {output.strip()[-200:]}")
    row.failures += [problem for problem in problems if problem]
