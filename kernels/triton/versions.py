"""What other versions of Triton make of a configuration: tables have to hold for each that a torch brings.

`make triton TRITON=3.7.1` installs one into a folder, `build/triton-3.7.1`, and compiles with it what ships. Each
version answers from a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from fasthg.kernels.triton.offline import problem
from fasthg.kernels.tuning import Config, Entry


class Triton:
    """A version of Triton: the one that is installed, or the one in a folder."""

    def __init__(self, folder: Path | None = None) -> None:
        path = [str(folder.resolve())] if folder else []
        path += filter(None, [os.environ.get("PYTHONPATH")])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fasthg.kernels.triton.versions"],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def problem(self, entry: Entry, capability: int) -> str | None:
        """As `fasthg.kernels.triton.offline.problem`; BrokenPipeError where the version does not start."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([asdict(entry), capability]) + "\n")
        self._process.stdin.flush()
        answer: str | None = json.loads(self._process.stdout.readline() or '"it has ended"')
        return answer


def answer(questions: Iterable[str]) -> None:
    """Print a line for each question, until there are no more."""
    warnings.simplefilter("ignore")
    for question in questions:
        row, capability = json.loads(question)
        entry = Entry(**{**row, "config": Config(**row["config"])})
        print(json.dumps(problem(entry, capability)), flush=True)


if __name__ == "__main__":
    answer(sys.stdin)
