"""The GPU kernels compute what their operators mean: run without a GPU, in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
CASES = Path(__file__).with_name("interpreted_kernels.py")


@pytest.mark.slow
@pytest.mark.parametrize("group", ["test_bottleneck", "not test_bottleneck"])
def test_kernels_equal_their_reference_in_the_interpreter(group: str) -> None:
    # A process of its own: kernels are interpreted from their import on, and other tests compile the same modules.
    command = [
        sys.executable,
        "-m",
        "pytest",
        str(CASES),
        "-q",
        "-p",
        "no:xdist",
        "-p",
        "no:cacheprovider",
        "-k",
        group,
    ]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    for name in [name for name in environment if name.startswith("PYTEST_")]:
        del environment[name]
    run = subprocess.run(command, cwd=CASES.parents[3], env=environment, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
