"""Disks that are full or read-only at every write: small tmpfs mounts in a mount namespace of their own."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from tests.faults.commands import Command, commands, make_material
from tests.faults.forked import Disk, Forked
from tests.faults.kills import digests
from tests.faults.outcome import Row, half_files, judge

SIZES = ("16k", "64k", "160k", "400k", "1m", "3m")
#: What each fault mounts, and where: the folder of the results, or that of temporary files and the cache.
FAULTS = {
    "full disk": ("out", tuple(f"size={size}" for size in SIZES)),
    "read-only disk": ("out", ("size=9m,ro",)),
    "full temporary folder and cache": ("tmp", ("size=4k", "size=64k", "size=1m")),
    "read-only temporary folder and cache": ("tmp", ("size=9m,ro",)),
}


def full_disks(folder: Path, names: Collection[str] | None = None) -> Iterator[Row]:
    """Every command with its results on disks of several sizes, and on a read-only one; needs root."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        yield Row("all", "full disk", failures=["not tried: unshare -m is not allowed here"])
        return
    material = folder / "material"
    make_material(material)
    before = digests(material)
    for command in commands(material):
        if names is not None and command.name not in names:
            continue
        for fault, (place, options) in FAULTS.items():
            row, began = Row(command.name, fault), time.monotonic()
            for option in options:
                row.tried += 1
                code, problems = _one(command, folder, place, option)
                row.hit += code != 0
                row.failures += [f"{option}: {problem}" for problem in problems]
                if digests(material) != before:
                    row.failures.append(f"{option}: an input was changed")
            row.seconds = time.monotonic() - began
            yield row


def _one(command: Command, folder: Path, place: str, option: str) -> tuple[int | None, list[str]]:
    """Exit code of a command with a disk of these options, and what was wrong."""
    out, kept, temporary = (folder / name for name in ("out", "kept", "tmp"))
    for each in (out, kept, temporary):
        shutil.rmtree(each, ignore_errors=True)
    out.mkdir()
    temporary.mkdir()
    variables = {"TMPDIR": str(temporary), "FASTHG_CACHE": str(temporary / "cache")} if place == "tmp" else {}
    code, output = Forked(command.arguments(out), Disk(folder / place, option, kept, variables)).ended()
    problem = judge(code, output)
    return code, ([problem] if problem else []) + half_files(kept if place == "out" else out)
