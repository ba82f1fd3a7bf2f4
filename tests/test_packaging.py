"""What an installation brings: `fasthg` alone at the top, the kernels inside it, and only the libraries it runs."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from scikit_build_core import build

ROOT = Path(__file__).parents[1]
EXTRAS = (
    *("h5py", "scipy", "simplejpeg", "tensorboard", "matplotlib", "jinja2"),
    *("onnx", "onnxruntime", "openvino", "ncnn"),
)


@pytest.fixture
def in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def sources(folder: str) -> set[str]:
    return {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*.py")}


@pytest.mark.usefixtures("in_root")
def test_the_wheel_brings_fasthg_alone_with_the_kernels_inside(tmp_path: Path) -> None:
    name = build.build_wheel(str(tmp_path), {"wheel.cmake": "false"})
    names = set(zipfile.ZipFile(tmp_path / name).namelist())
    assert {file.partition("/")[0] for file in names} == {"fasthg", "fasthg-0.1.0.dist-info"}
    assert {file for file in names if file.endswith(".py")} == sources("fasthg") | {
        f"fasthg/{file}" for file in sources("kernels")
    }
    assert {"fasthg/network/weights/small.safetensors", "fasthg/data/crops.npz"} < names
    assert {"fasthg/kernels/cpu/_native.pyi", "fasthg/kernels/tuning/tables/sm_90.json"} < names
    assert not [file for file in names if file.endswith((".cpp", ".h"))]


@pytest.mark.usefixtures("in_root")
def test_the_sdist_brings_what_the_wheel_is_built_of(tmp_path: Path) -> None:
    name = build.build_sdist(str(tmp_path))
    with tarfile.open(tmp_path / name) as archive:
        names = {file.partition("/")[2] for file in archive.getnames()}
    needed = {"CMakeLists.txt", "pyproject.toml", "README.md", "kernels/cpu/module.cpp", "kernels/cpu/crops.h"}
    assert needed | sources("kernels") < names
    top = {"CMakeLists.txt", "PKG-INFO", "pyproject.toml", "README.md", "fasthg", "kernels"}
    assert {file.partition("/")[0] for file in names} == top


def test_the_folder_kernels_does_not_hide_a_package_of_that_name() -> None:
    spec = importlib.util.find_spec("kernels")
    assert spec is None or spec.origin is None or ROOT not in Path(spec.origin).parents


def test_a_prediction_needs_no_extra(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "photo.png"), np.zeros((90, 120, 3), np.uint8))
    program = f"""
import sys
sys.modules.update(dict.fromkeys({EXTRAS}))  # None makes an import fail
from fasthg.cli.app import main
assert main(["predict", "photo.png", "--path", "eager"]) == 0
code = main(["predict", "photo.png", "--path", "eager", "--format", "mat"])
sys.exit(code)
"""
    command = [sys.executable, "-c", program]
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 4, done.stderr
    assert (tmp_path / "predictions" / "photo.png").is_file()
    assert done.stderr.splitlines()[-1] == "fasthg: scipy is not installed; pip install 'fasthg[formats]'"
