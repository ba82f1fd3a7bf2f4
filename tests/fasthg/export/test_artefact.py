"""An exported network answers like the one it was made from, and one that was tampered with is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fasthg import HourglassNet, Predictor
from fasthg.cli.app import main
from fasthg.errors import FasthgError
from fasthg.export.artefact import Artefact, is_artefact, read_artefact, write_metadata
from fasthg.network.variants import HourglassConfig

pytest.importorskip("onnxruntime")

SIZE = 64


@pytest.fixture(scope="module")
def net() -> HourglassNet:
    torch.manual_seed(0)
    return HourglassNet(HourglassConfig(num_stacks=1, num_feats=8, depths=2)).eval()


@pytest.fixture(scope="module")
def exported(net: HourglassNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from fasthg.runtimes.onnx.graph import FinalHeatmaps, export_graph

    folder = tmp_path_factory.mktemp("exported")
    graph = export_graph(FinalHeatmaps(net).eval(), torch.zeros(1, 3, SIZE, SIZE))
    (folder / "model.onnx").write_bytes(graph.SerializeToString())
    artefact = Artefact(folder, folder / "model.onnx", "onnx", "fp32", False, net.config, SIZE, max_batch=2)
    write_metadata(artefact, weights="a test's")
    return folder


@pytest.fixture
def copied(exported: Path, tmp_path: Path) -> Path:
    """The artefact, to be changed."""
    return Path(shutil.copytree(exported, tmp_path / "artefact"))


def change(folder: Path, **fields: object) -> None:
    metadata = json.loads((folder / "metadata.json").read_text())
    (folder / "metadata.json").write_text(json.dumps(metadata | fields))


def test_the_predictor_gives_the_same_joints_as_the_network(net: HourglassNet, exported: Path) -> None:
    images = list(np.random.default_rng(0).integers(0, 255, (5, 90, 120, 3), np.uint8))
    theirs = Predictor(exported)
    assert (theirs.path, theirs.precision, theirs.size, theirs.batch_size) == ("onnxruntime", "fp32", SIZE, 2)
    ours = Predictor(net, runtime="eager", size=SIZE)
    for mine, other in zip(ours(images), theirs(images), strict=True):
        assert np.abs(mine.joints - other.joints).max() < 1e-6
        assert np.abs(mine.scores - other.scores).max() < 1e-5


def test_metadata_says_what_a_deployment_needs(exported: Path) -> None:
    artefact = read_artefact(exported)
    assert artefact.metadata["weights"] == "a test's"
    assert artefact.metadata["input"]["mean"] == [0.4404, 0.4440, 0.4327]
    assert artefact.metadata["joint_names"][9] == "head"
    assert list(artefact.metadata["files"]) == ["model.onnx"]


def test_a_folder_does_not_hide_the_weights_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("rendered", "bearpaw-hg2", "mine"):
        Path(name).mkdir()
    assert Predictor("rendered", runtime="eager", size=SIZE).path == "eager"
    assert not is_artefact("bearpaw-hg2")
    assert is_artefact("mine")
    assert is_artefact("./rendered")


def test_a_tampered_artefact_is_refused(copied: Path) -> None:
    content = bytearray((copied / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (copied / "model.onnx").write_bytes(content)
    with pytest.raises(FasthgError, match=r"model\.onnx was changed since it was written \(digest\)"):
        Predictor(copied)


def test_a_model_without_a_digest_is_refused(copied: Path) -> None:
    (copied / "other.onnx").write_bytes((copied / "model.onnx").read_bytes())
    change(copied, model="other.onnx")
    with pytest.raises(FasthgError, match=r"other\.onnx has no digest"):
        Predictor(copied)


def test_what_does_not_belong_to_the_artefact_is_named(exported: Path) -> None:
    with pytest.raises(FasthgError, match="takes crops of 64 pixels, not 128"):
        Predictor(exported, size=128)
    with pytest.raises(FasthgError, match=r"holds another network, not small \(num_stacks 1 against 2"):
        Predictor(exported, variant="small")
    with pytest.raises(FasthgError, match="is run by onnxruntime, not openvino"):
        Predictor(exported, runtime="openvino")


@pytest.mark.parametrize(
    "name", ["../secret.onnx", "/tmp/secret.onnx", "a/../../secret.onnx", "..\\secret.onnx", "C:\\a"]
)
def test_a_path_out_of_the_folder_is_refused(copied: Path, name: str) -> None:
    (copied.parent / "secret.onnx").write_bytes((copied / "model.onnx").read_bytes())
    digest = json.loads((copied / "metadata.json").read_text())["files"]["model.onnx"]
    change(copied, files={name: digest}, model=name)
    with pytest.raises(FasthgError, match="outside the folder") as caught:
        Predictor(copied)
    assert "\n" not in str(caught.value)


def test_unknown_and_wrong_fields_are_refused_in_one_line(copied: Path) -> None:
    metadata = json.loads((copied / "metadata.json").read_text())
    for fields, message in (
        ({"hook": "import os"}, "unknown field 'hook'"),
        ({"config": metadata["config"] | {"attention": 2}}, "unknown field of config 'attention'"),
        ({"input": metadata["input"] | {"stride": 2}}, "unknown field of input 'stride'"),
        ({"config": metadata["config"] | {"depths": None}}, "metadata.json: "),
        ({"files": ["model.onnx"]}, "files is "),
        ({"input": {"size": "64", "max_batch": 2}}, "input has no whole number size"),
    ):
        (copied / "metadata.json").write_text(json.dumps(metadata | fields))
        with pytest.raises(FasthgError, match=message) as caught:
            read_artefact(copied)
        assert "\n" not in str(caught.value)


def test_another_joint_set_is_named(copied: Path) -> None:
    change(copied, joint_names=["nose", "left_eye", "right_eye", "left_ear"])
    with pytest.raises(
        FasthgError, match=r"its 4 joints \(nose, left_eye, right_eye, \.\.\.\) are not those of its skele"
    ):
        Predictor(copied)


def test_damaged_folders_are_refused_in_one_line(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = Path(__file__).with_name("absent.jpg")
    metadata = (copied / "metadata.json").read_text()
    for content, message in (
        (metadata[:50], "is damaged"),
        (metadata.replace('"version": 1', '"version": 99'), "of another format or version"),
        (metadata.replace('"joint_names"', '"points"'), "lacks joint_names"),
        (metadata.replace('"kind": "onnx"', '"kind": "coreml"'), "of kind 'coreml'"),
    ):
        (copied / "metadata.json").write_text(content)
        with pytest.raises(FasthgError, match=message):
            Predictor(copied)
    (copied / "metadata.json").write_text(metadata)
    (copied / "model.onnx").unlink()
    with pytest.raises(FasthgError, match=r"model\.onnx is missing"):
        Predictor(copied)
    with pytest.raises(FasthgError, match=r"it has no metadata\.json"):
        Predictor(tmp_path)
    assert main(["predict", str(photo), "--weights", str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
