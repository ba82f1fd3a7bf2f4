"""Disks that are full or read-only at every write: small tmpfs mounts in a mount namespace of their own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.faults.commands import commands, make_material
from tests.faults.kills import digests
from tests.faults.outcome import LIMIT_S, ROOT, Row, half_files, judge

SIZES = ("16k", "64k", "160k", "400k", "1m", "3m")


def full_disks(folder: Path) -> list[Row]:
    """Every command with its results on disks of several sizes, and on a read-only one; needs root."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        return [Row("all", "full disk", failures=["not tried: unshare -m is not allowed here"])]
    material = folder / "material"
    make_material(material)
    before, rows = digests(material), []
    for command in commands(material):
        for fault, options in (("full disk", SIZES), ("read-only disk", ("ro",))):
            row = Row(command.name, fault)
            for option in options:
                out, kept = folder / "out", folder / "kept"
                shutil.rmtree(kept, ignore_errors=True)
                out.mkdir(exist_ok=True)
                mount = f"size={option}" if option != "ro" else "size=9m,ro"
                words = " ".join(f"'{word}'" for word in [sys.executable, *command.arguments(out)])
                script = f"mount -t tmpfs -o {mount} tmpfs {out} && {words}; code=$?; cp -r {out} {kept}; exit $code"
                try:
                    done = subprocess.run(
                        ["unshare", "-m", "sh", "-c", script],
                        cwd=ROOT,
                        capture_output=True,
                        text=True,
                        errors="replace",
                        timeout=LIMIT_S,
                        check=False,
                    )
                    code, output = done.returncode, done.stdout + done.stderr
                except subprocess.TimeoutExpired:
                    code, output = None, ""
                row.tried += 1
                row.hit += code != 0
                problem = judge(code, output)
                row.failures += [f"{option}: {problem}"] if problem else []
                row.failures += [f"{option}: {half}" for half in half_files(kept)]
                if digests(material) != before:
                    row.failures.append(f"{option}: an input was changed")
            rows.append(row)
    return rows
