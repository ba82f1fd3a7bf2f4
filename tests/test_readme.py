"""Every command and Python block of the README is run, at a small size where that takes long, or named with why not."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

#: As a reader types them, one after the other.
pytestmark = pytest.mark.in_order

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
STARTS = ("make ", "fasthg ", "python -m ", "pytest ", "torchrun ", "OMP_NUM_THREADS=", "pip ", "source ")

#: What is not run, by how it starts, and why.
NOT_RUN = {
    "fasthg predict photo.jpg --detect": "fetches a network; tests/fasthg/predict/test_detect.py serves one",
    "make sweep": "sets up an environment and takes ten minutes",
    "make test": "is what runs this test",
    "make check": "is what runs this test",
    "make gpu": "needs a GPU",
    "make triton": "fetches a Triton and compiles for minutes; tests/kernels/triton compiles the longest tiles",
    "pip install": "tests/test_packaging.py reads what it would install",
    "source .venv": "this environment stands for it",
    "fasthg export --trt": "tests/fasthg/export builds an engine of a tiny network",
    "fasthg export --openvino --int8 --weights runs/own": "tests/training/test_project.py exports a project's network",
    "fasthg eval --data PROJECT": "the same",
    "torchrun ... -m": "is the form of a command",
    "fasthg eval --results": "tests/fasthg/metrics/test_oks.py writes and reads results",
    "fasthg score": "the same",
    "fasthg eval --data MPII": "needs MPII's folder",
    "fasthg eval --data LSP": "needs that folder; tests/fasthg/data/test_lsp.py reads it",
    "fasthg label": "tests/fasthg/label labels, by Ray too",
    "python -m bench.sweep": "tests/bench/sweep runs it on a tiny network",
    "python -m bench.exports": "takes minutes a variant; tests/bench/test_exports.py runs one",
    "python -m bench.gpu.faults": "takes minutes; its table is in the repository",
    "python -m bench.gpu.tune": "needs a GPU",
    "python -m tests.faults": "takes an hour; its table is in the repository",
    "python -m bench.report.readme": "writes the README; tests/bench/report/test_tables.py makes its tables",
    "python -m training.train --recipe": "needs MPII's folder; tests/training/test_teacher.py learns from a teacher",
    "torchrun": "needs MPII's folder; tests/training/test_distributed.py runs two processes",
    "OMP_NUM_THREADS=1 torchrun": "needs a dataset's folder; the same",
    "pytest bench --benchmark-only": "takes minutes, and times nothing in company",
}
#: What is run smaller than it stands there.
SMALLER = {
    "--budget 40ms": "--budget 60s",
    "--val 1000 --seed 2": "--val 12 --seed 2 --workers 1",
    "--train 8000 --val 500": "--train 8 --val 4 --workers 1",
    "--variant small --data data/people": "--variant small --data data/people --size 64 --batch-size 4 --epochs 1"
    " --num-workers 0",
    "--data PROJECT --variant small --start rendered --out": "--data PROJECT --variant small --start rendered --size 64"
    " --batch-size 2 --epochs 1 --num-workers 0 --out",
    "--start rendered --size 256 --epochs 60": "--start rendered --size 64 --batch-size 2 --epochs 1 --num-workers 0",
    "--size 384 --epochs 18": "--size 64 --batch-size 2 --epochs 1 --num-workers 0",
    "training.pack --data DIR": "training.pack --data data/people",
}


def commands() -> list[str]:
    """The lines of the shell blocks without their comments, and the commands in the text, in order."""
    lines = [line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines()]
    quoted = re.findall(r"`([^`\n]+)`", re.sub(r"\n(?!\n)", " ", re.sub(r"```.*?```", "", README, flags=re.DOTALL)))
    found = [re.sub(r"\s+# .*", "", line) for line in [*lines, *quoted] if line.startswith(STARTS)]
    return list(dict.fromkeys(found))


RUN = [command for command in commands() if not command.startswith(tuple(NOT_RUN))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a reader has a photograph, a clip and a DeepLabCut project of his own."""
    folder = tmp_path_factory.mktemp("readme")
    picture = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    cv2.imwrite(str(folder / "photo.jpg"), picture)
    clip = cv2.VideoWriter(str(folder / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 25, (640, 480))
    for _ in range(2):
        clip.write(picture)
    clip.release()
    frames = folder / "PROJECT" / "labeled-data" / "clip"
    frames.mkdir(parents=True)
    (folder / "PROJECT" / "config.yaml").write_text("Task: fish\nscorer: me\nbodyparts: [left_eye, right_eye]\n")
    rows = ["scorer,me,me,me,me", "bodyparts,left_eye,left_eye,right_eye,right_eye", "coords,x,y,x,y"]
    for number in range(6):
        cv2.imwrite(str(frames / f"img{number}.png"), picture[:120, :160])
        rows.append(f"labeled-data/clip/img{number}.png,40,50,{90 + number},60")
    (frames / "CollectedData_me.csv").write_text("\n".join(rows) + "\n")
    return folder


def run(arguments: list[str], folder: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "FASTHG_CACHE": str(folder / "cache")}
    done = subprocess.run(
        arguments, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=390
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", RUN)
def test_command(command: str, folder: Path) -> None:
    """Some read what the ones before them wrote."""
    pytest.importorskip("nncf")
    for given, smaller in SMALLER.items():
        command = command.replace(given, smaller)
    program, *rest = shlex.split(command)
    run([sys.executable, *(["-m", "fasthg.cli", *rest] if program == "fasthg" else rest)], folder)


@pytest.mark.parametrize("block", [block for kind, block in BLOCKS if kind == "python"])
def test_python_block(block: str, folder: Path) -> None:
    pytest.importorskip("openvino")
    run([sys.executable, "-c", block], folder)


def test_every_block_is_known_and_no_exception_is_stale() -> None:
    assert {kind for kind, _block in BLOCKS} == {"sh", "python"}
    assert all(line.startswith(STARTS) for kind, block in BLOCKS if kind == "sh" for line in block.splitlines())
    assert [start for start in NOT_RUN if not any(command.startswith(start) for command in commands())] == []
    assert [given for given in SMALLER if given not in README] == []
    assert len(RUN) >= 6


def test_the_table_of_folders_is_complete_and_true() -> None:
    """Each folder with code has a row, or is named in that of the folder above it; what a row names is there."""
    rows = re.findall(r"^\| (`.*?`) \| (.*) \|$", README[README.index("| folder |") :], re.MULTILINE)
    named = set()
    for folders, holds in rows:
        of_row = [ROOT / folder for folder in re.findall(r"`([^`]+/)`", folders)]
        inside = [name for name in re.findall(r"`([\w./]+)`", holds) if name.endswith(("/", ".py"))]
        for name in inside:
            assert name == "out/" or any((folder / name).exists() for folder in [*of_row, ROOT]), name
        named |= {*of_row, *(folder / name for folder in of_row for name in inside)}
    code = {path.parent for top in ("kernels", "fasthg", "training", "bench") for path in (ROOT / top).rglob("*.py")}
    code = {folder for folder in code if "fasthg/kernels" not in folder.as_posix()}
    assert [folder for folder in sorted(code) if not {folder, folder.parent} & named] == []
