"""Labels by blocks: everything once, whatever is damaged or interrupted, and the joints that `predict` gives."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import fasthg
from fasthg.cli.app import main
from fasthg.cli.label import with_address
from fasthg.errors import FasthgError
from fasthg.export.artefact import read_artefact, write_metadata
from fasthg.label import worker
from fasthg.network.checkpoint import save
from fasthg.network.variants import HourglassConfig

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
from fasthg.label.places import Place  # noqa: E402
from fasthg.label.run import label  # noqa: E402
from tests.fasthg.label.running import SIZE, options, rows  # noqa: E402


def test_every_photograph_has_the_joints_of_predict_or_a_reason(weights: Path, photos: Path, tmp_path: Path) -> None:
    counts = label([str(photos)], str(tmp_path / "out"), options(weights))
    assert (counts.images, counts.people, counts.left_out) == (6, 6, 1)
    found = rows(tmp_path / "out")
    assert [Path(row.image).name for row in found] == [f"{number}.jpg" for number in range(7)]
    assert found[3].pose is None
    assert "3.jpg" in (found[3].reason or "")
    good = [row.image for row in found if row.pose]
    predictor = fasthg.Predictor(weights, runtime="eager", device="cpu", size=SIZE, batch_size=2)
    for row, pose in zip((row for row in found if row.pose), predictor(good)):
        assert (row.image, row.pose.box, row.pose.whole_image) == (pose.image, pose.box, pose.whole_image)
        assert np.array_equal(row.pose.joints, pose.joints)
        assert np.array_equal(row.pose.scores, pose.scores)


def test_a_restart_does_what_is_left_and_nothing_twice(
    weights: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended in the second block; a photograph more, and other blocks, when it goes on."""
    out, write, calls = str(tmp_path / "out"), worker.Place.write, []

    def second_fails(place: Place, content: bytes) -> None:
        if "part-" in place.where:
            calls.append(place.where)
            if len(calls) == 2:
                raise KeyboardInterrupt
        write(place, content)

    with monkeypatch.context() as patch:
        patch.setattr(worker.Place, "write", second_fails)
        with pytest.raises(KeyboardInterrupt):
            label([str(photos)], out, options(weights))
    assert len(rows(tmp_path / "out")) == 3
    before = {path: path.read_bytes() for path in (tmp_path / "out").glob("part-*")}
    cv2.imwrite(str(photos / "1b.jpg"), np.full((40, 40, 3), 9, np.uint8))
    counts = label([str(photos)], out, options(weights, block=2))
    assert counts.images + counts.left_out == 5
    assert sorted(Path(row.image).name for row in rows(tmp_path / "out")) == sorted(p.name for p in photos.iterdir())
    assert all(path.read_bytes() == content for path, content in before.items())
    assert label([str(photos)], out, options(weights)).images == 0


def test_a_killed_run_leaves_no_half_block(weights: Path, photos: Path, tmp_path: Path) -> None:
    """Killed, not ended: nothing of the process runs any more."""
    code = (
        "import sys, os, signal\nfrom fasthg.files import os as files_os\nfrom fasthg.cli.app import main\n"
        "replace, done = os.replace, []\n"
        "def kill(a, b):\n    done.append(str(b))\n"
        "    if sum('part-' in name for name in done) == 2: os.kill(os.getpid(), signal.SIGKILL)\n    replace(a, b)\n"
        "files_os.replace = kill\nmain(sys.argv[1:])\n"
    )
    argv = ["label", str(photos), "-o", str(tmp_path / "out"), "--weights", str(weights), "--path", "eager"]
    argv += ["--block", "2", "--device", "cpu"]
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, timeout=200, check=False)
    assert done.returncode == -9, done.stderr
    assert len(rows(tmp_path / "out")) == 2
    assert main(argv) == 5
    assert [Path(row.image).name for row in rows(tmp_path / "out")] == [f"{number}.jpg" for number in range(7)]


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more", None])
def test_rows_that_are_damaged_or_of_something_else_are_named(
    weights: Path, photos: Path, tmp_path: Path, content: bytes | None
) -> None:
    label([str(photos)], str(tmp_path / "out"), options(weights))
    part = next((tmp_path / "out").glob("part-*"))
    if content is None:
        pq.write_table(pa.table({"other": [1]}), part)
    else:
        part.write_bytes(content)
    with pytest.raises(FasthgError, match=f"{part.name} holds no rows .*; delete it, and they are made again"):
        label([str(photos)], str(tmp_path / "out"), options(weights))
    part.unlink()
    label([str(photos)], str(tmp_path / "out"), options(weights))
    assert len(rows(tmp_path / "out")) == 7


def test_labels_of_a_release_that_did_not_keep_the_range_go_on(weights: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels"
    first = label([str(photos)], str(out), options(weights))
    about = json.loads((out / "label.json").read_text())
    del about["range"]
    (out / "label.json").write_text(json.dumps(about))
    assert first.images > 0
    assert label([str(photos)], str(out), options(weights)).images == 0


def test_what_does_not_fit_is_refused(weights: Path, photos: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    label([str(photos)], out, options(weights))
    torch.manual_seed(1)
    other = tmp_path / "other.safetensors"
    save(fasthg.HourglassNet(HourglassConfig(num_stacks=1, num_feats=8, depths=1, stem_feats=(8, 8))), other)
    for changes, message in (
        ({"weights": other}, "holds labels by other weights"),
        ({"flip": True}, "holds labels by other flip"),
        ({"path": "channels_last"}, "path, which was eager:fp32"),
    ):
        with pytest.raises(FasthgError, match=message):
            label([str(photos)], out, options(weights, **changes))
    with pytest.raises(FasthgError, match=r"holds other files and no label\.json"):
        label([str(photos)], str(photos), options(weights))
    for source in ("nowhere", str(tmp_path / "*.gif")):
        with pytest.raises(FasthgError, match=r"does not exist|nothing to label"):
            label([source], str(tmp_path / "new"), options(weights))
    pq.write_table(pa.table({"file": ["a.jpg"]}), tmp_path / "list.parquet")
    with pytest.raises(FasthgError, match="has columns file; give path"):
        label([str(tmp_path / "list.parquet")], str(tmp_path / "new2"), options(weights))


def test_an_exported_network_is_all_of_its_files_and_runs_by_its_own_path(photos: Path, tmp_path: Path) -> None:
    """OpenVINO's weights lie beside the model, which is the same for every network of one shape."""
    pytest.importorskip("openvino")
    net, one, other = tmp_path / "net.safetensors", tmp_path / "one", tmp_path / "other"
    save(fasthg.HourglassNet(HourglassConfig(num_stacks=1, num_feats=8, depths=1, stem_feats=(8, 8))), net)
    assert main(["export", "--openvino", "--fp32", "--size", "64", "--weights", str(net), "-o", str(one)]) == 0
    shutil.copytree(one, other)
    (other / "model.bin").write_bytes((one / "model.bin").read_bytes()[::-1])
    write_metadata(replace(read_artefact(one), folder=other, model=other / "model.xml"))
    changes = {"path": "auto", "size": None, "batch_size": 1}
    with pytest.raises(FasthgError, match="is run by openvino, not eager; leave the path out"):
        label([str(photos)], str(tmp_path / "out"), options(one, **changes | {"path": "eager"}))
    assert not (tmp_path / "out").exists()
    assert label([str(photos)], str(tmp_path / "out"), options(one, **changes)).people == 6
    with pytest.raises(FasthgError, match="holds labels by other weights"):
        label([str(photos)], str(tmp_path / "out"), options(other, **changes))


def test_ray_without_an_address_is_this_machine() -> None:
    assert with_address(["label", "a", "--ray", "-o", "b"]) == ["label", "a", "--ray", "local", "-o", "b"]
    assert with_address(["label", "a", "--ray"]) == ["label", "a", "--ray", "local"]
    assert with_address(["label", "a", "--ray", "h:1"]) == ["label", "a", "--ray", "h:1"]
    assert with_address(["predict", "--ray"]) == ["predict", "--ray"]
