"""The rule of every command that writes: never to an input, and to an earlier result only with --overwrite."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from bench.gpu import __main__ as gpu_module
from bench.report.report import REPORTS
from bench.study.run import StudyPlan, run_all
from bench.sweep.run import SweepRequest, sweep
from fasthg.cli.app import main as fasthg
from fasthg.errors import FasthgError
from fasthg.network.checkpoint import save
from fasthg.network.model import HourglassNet
from fasthg.network.variants import HourglassConfig
from training import make_crops as make_crops_module
from training.make_crops import make_crops
from training.pack import main as pack
from training.synthesize import synthesize
from training.train import main as train
from training.trainer import BEST, LATEST


@dataclass(frozen=True)
class Inputs:
    """What the commands read: a dataset, and the weights of a network beside its photographs."""

    people: Path
    weights: Path

    def digest(self) -> dict[Path, bytes]:
        """The content of every file."""
        return {path: path.read_bytes() for path in self.people.rglob("*") if path.is_file()}


@pytest.fixture
def inputs(tiny_dataset: Path, tmp_path: Path) -> Inputs:
    shutil.copytree(tiny_dataset, tmp_path / "people")
    weights = tmp_path / "people" / "net.safetensors"
    save(HourglassNet(HourglassConfig(num_stacks=1, num_feats=16, depths=1)), weights)
    return Inputs(tmp_path / "people", weights)


def packing(inputs: Inputs, out: Path) -> list[str]:
    return ["--data", str(inputs.people), "--out", str(out), "--density", "32", "--threads", "1"]


def exporting(inputs: Inputs, out: Path) -> list[str]:
    return ["export", "--weights", str(inputs.weights), "--size", "64", "--batch", "1", "-o", str(out)]


def converting(inputs: Inputs, out: Path) -> list[str]:
    return ["convert", str(inputs.weights), "-o", str(out)]


COMMANDS = {"pack": (pack, packing), "export": (fasthg, exporting), "convert": (fasthg, converting)}


@pytest.mark.parametrize("name", COMMANDS)
def test_an_earlier_result_is_replaced_only_when_told_so(
    name: str, inputs: Inputs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command, arguments = COMMANDS[name]
    out = tmp_path / "result"
    if name == "export":  # an earlier artefact is a folder
        out.mkdir()
        (out / "metadata.json").write_text("earlier")
    else:
        out.write_text("earlier")
    assert command(arguments(inputs, out)) == 2
    error = capsys.readouterr().err
    assert f"{out} exists; give --overwrite" in error
    assert (out / "metadata.json" if name == "export" else out).read_text() == "earlier"
    if name != "convert":  # whose checkpoint is none that is published
        assert command([*arguments(inputs, out), "--overwrite"]) == 0
        assert (out / "metadata.json" if name == "export" else out).read_bytes() != b"earlier"


@pytest.mark.parametrize("link", [None, os.symlink, os.link], ids=["itself", "symlink", "hard link"])
@pytest.mark.parametrize("name", ["pack", "convert"])
def test_a_file_that_is_read_is_not_written_to(
    name: str,
    link: Callable[[Path, Path], None] | None,
    inputs: Inputs,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command, arguments = COMMANDS[name]
    given = inputs.weights if name == "convert" else next((inputs.people / "images").glob("*.jpg"))
    before, out = inputs.digest(), given
    if link:
        link(given, out := tmp_path / "link")
    assert command([*arguments(inputs, out), "--overwrite"]) == 2
    assert f"cannot write {out}: this command reads it" in capsys.readouterr().err
    assert inputs.digest() == before


def test_a_folder_that_is_read_is_not_replaced_by_an_artefact(inputs: Inputs, tmp_path: Path) -> None:
    (inputs.people / "metadata.json").write_text("{}")
    (tmp_path / "link").symlink_to(inputs.people)
    before = inputs.digest()
    for out in (inputs.people, tmp_path / "link"):
        assert fasthg([*exporting(inputs, out), "--overwrite"]) == 2
    assert inputs.digest() == before


@pytest.mark.parametrize("name", [LATEST, BEST])
def test_weights_that_a_training_reads_or_finds_are_not_written_to(
    name: str, inputs: Inputs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(inputs.weights, run / name)
    before = (run / name).read_bytes()
    arguments = ["--data", str(inputs.people), "--out", str(run), "--variant", "small", "--epochs", "1"]
    assert train(arguments) == 2
    assert "holds a run's weights" in capsys.readouterr().err
    assert (run / name).read_bytes() == before


def test_poses_are_not_drawn_into_their_own_folder(inputs: Inputs) -> None:
    poses = inputs.people / "annotations.json"
    before = inputs.digest()
    with pytest.raises(FasthgError, match="another --out"):
        synthesize(inputs.people, 2, 1, 0, poses, progress=False, workers=1)
    assert inputs.digest() == before


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_is_not_replaced_by_a_sweep(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("earlier")
    with pytest.raises(FasthgError, match="another --out"):
        sweep(SweepRequest(("small",), ("eager",), ("infer",), (1,), out=tmp_path))
    assert (tmp_path / name).read_text() == "earlier"


def test_a_report_is_not_replaced_by_a_study(tmp_path: Path) -> None:
    (tmp_path / "report.md").write_text("earlier")
    with pytest.raises(FasthgError, match="another --out"):
        run_all(StudyPlan(tmp_path, tmp_path), tmp_path, 1)


def test_crops_are_replaced_only_when_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_crops_module, "synthesize", lambda *_args, **_options: pytest.fail("rendered first"))
    (tmp_path / "crops.npz").write_text("earlier")
    with pytest.raises(FasthgError, match="--overwrite"):
        make_crops(tmp_path / "crops.npz")


def test_crops_go_into_the_file_that_was_named_whatever_its_name(tmp_path: Path) -> None:
    make_crops(tmp_path / "crops", scored=2, calibration=1)
    with np.load(tmp_path / "crops") as file:
        assert len(file["ends"]) == 3
    assert os.listdir(tmp_path) == ["crops"]


@pytest.mark.parametrize(("overwrite", "chosen"), [(False, "gpu-2"), (True, "gpu")])
def test_another_gpu_run_gets_a_new_folder(
    overwrite: bool, chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(folder: Path) -> Path:
        raise FasthgError(f"in {folder.name}")

    (tmp_path / "gpu").mkdir()
    (tmp_path / "gpu" / "gpu.json").write_text("earlier")
    monkeypatch.setattr(gpu_module, "make_folder", stop)
    with pytest.raises(FasthgError, match=f"^in {chosen}$"):
        gpu_module.gpu(tmp_path / "gpu", rehearse=True, overwrite=overwrite)
