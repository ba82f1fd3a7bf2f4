"""The whole fused network by its GPU kernels: run without a GPU, in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
CASES = Path(__file__).with_name("interpreted_network.py")


@pytest.mark.slow
@pytest.mark.parametrize("group", ["float16", "float32", "computes", "not float and not computes"])
def test_the_fused_network_of_kernels_equals_float64(group: str) -> None:
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
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["TRITON_INTERPRET"] = "1"
    run = subprocess.run(command, cwd=CASES.parents[3], env=environment, capture_output=True, text=True, timeout=380)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
