"""Processes that are killed at random moments, and what a second try makes of what they left."""

from __future__ import annotations

import hashlib
import random
import shutil
import signal
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from tests.faults.commands import Command, commands, make_material
from tests.faults.forked import Forked
from tests.faults.outcome import Row, half_files, judge


def kills(folder: Path, count: int, seed: int, names: Collection[str] | None = None) -> Iterator[Row]:
    """`count` kills in turn over every command, half of them by SIGKILL and half by SIGTERM.

    Half of them come at any moment, half after the first file appeared among the results.
    """
    chance, material = random.Random(seed), folder / "material"
    make_material(material)
    before = digests(material)
    known = [command for command in commands(material) if names is None or command.name in names]
    for number, command in enumerate(known):
        share = count // len(known) + (number < count % len(known))
        if not share:
            continue
        whole = folder / f"{command.name}-whole"
        began, process = time.monotonic(), Forked(command.arguments(whole))
        writes_at = process.first_file(whole) - began
        code, output = process.ended()
        lasts = time.monotonic() - began
        by_signal = {
            kind: Row(command.name, f"kill -{kind.name.removeprefix('SIG')}")
            for kind in (signal.SIGKILL, signal.SIGTERM)
        }
        if code:
            by_signal[signal.SIGKILL].failures.append(f"ends with {code} undisturbed: {output[-200:]}")
        for i in range(share):
            row = by_signal[kind := (signal.SIGKILL, signal.SIGTERM)[i % 2]]
            writing = chance.random() < 0.5
            after_s = chance.uniform(0, lasts - writes_at) if writing else chance.uniform(0.1, 1.0) * lasts
            began = time.monotonic()
            row.failures += _one(command, folder / "out", kind, writing, after_s, row, command.result(whole))
            row.seconds += time.monotonic() - began
            if digests(material) != before:
                row.failures.append("an input was changed")
        yield from by_signal.values()


def digests(folder: Path) -> dict[str, str]:
    """Digest of every file by its place."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _one(
    command: Command, out: Path, kind: signal.Signals, writing: bool, after_s: float, row: Row, whole: dict[str, str]
) -> list[str]:
    """Kill one process so long after it began, or began to write, and run it again; what was wrong, in words."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    process = Forked(command.arguments(out))
    row.tried += 1
    if writing:
        process.first_file(out)
    time.sleep(after_s)
    row.hit += process.kill(kind)
    code, output = process.ended()
    problems = [judge(code, output), *half_files(out)]
    if not command.grows:
        kept = command.result(out)
        problems += [f"half a file: {name}" for name, digest in kept.items() if digest and digest != whole.get(name)]
    done = command.done(out)
    code, output = Forked(command.rerun(out)).ended()
    problems += [judge(code, output), *half_files(out)]
    moment = f"{after_s:.1f} s after its {'first file' if writing else 'start'}"
    if code:
        problems.append(f"cannot be run again when killed {moment}: {output.strip()[-200:]}")
        return [problem for problem in problems if problem]
    if lost := done - command.done(out):
        problems.append(f"lost or changed when killed {moment}: {', '.join(sorted(lost))}"[:1000])
    if command.result(out) != whole:
        found = command.result(out)
        other = sorted(name for name in {*found, *whole} if found.get(name) != whole.get(name))
        values = ", ".join(f"{name} is {found.get(name)}, not {whole.get(name)}" for name in other)
        problems.append(f"another result when killed {moment}: {values}"[:1000])
    return [problem for problem in problems if problem]
