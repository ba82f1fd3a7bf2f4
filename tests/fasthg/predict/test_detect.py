"""People found on whole photographs: boxes in the photograph's pixels, weights as published or not at all."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fasthg.cli.app import main
from fasthg.errors import FasthgError
from fasthg.predict import detect
from fasthg.predict.predictor import Predictor

SIDE, STRIDE = 416, 8
WIDE = np.full((208, 832, 3), (30, 90, 255), np.uint8)  # RGB; fills the upper quarter of the detector's square, halved


def write_network(path: Path, *people: tuple[int, int, float, float, float]) -> None:
    """An ONNX network with YOLOX-Nano's output that sees people (cell x, cell y of the finest grid, w, h, score) in
    whatever it is given: boxes about the cells' corners, as logarithms of multiples of the stride, and scores times
    what the first channel's first pixel has of 255."""
    rows, lit = np.zeros((1, 3549, 85), np.float32), np.zeros((1, 3549, 85), np.float32)
    for x, y, w, h, score in people:
        row = y * (SIDE // STRIDE) + x
        rows[0, row, :6] = 0, 0, np.log(w / STRIDE), np.log(h / STRIDE), 0, 1
        lit[0, row, 4] = score / 255
    given = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    answer = helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 3549, 85])
    nodes = [
        helper.make_node("Slice", ["images", "start", "end"], ["pixel"]),
        helper.make_node("Reshape", ["pixel", "shape"], ["first"]),
        helper.make_node("Mul", ["lit", "first"], ["scores"]),
        helper.make_node("Add", ["rows", "scores"], ["output"]),
    ]
    values = {"rows": rows, "lit": lit, "start": np.zeros(4, np.int64), "end": np.ones(4, np.int64)}
    values["shape"] = np.ones(3, np.int64)
    constants = [numpy_helper.from_array(value, name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "detector", [given], [answer], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file that a server on this machine has in the place of the published one."""
    file = tmp_path / "server" / "yolox_nano.onnx"
    file.parent.mkdir()
    write_network(file, (20, 8, 40, 60, 0.9), (21, 8, 40, 60, 0.8), (0, 0, 60, 60, 0.5), (30, 8, 9, 9, 0.2))
    handler = partial(SimpleHTTPRequestHandler, directory=str(file.parent))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_arguments: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        monkeypatch.setattr(detect, "URL", f"http://127.0.0.1:{http.server_port}/{file.name}")
        monkeypatch.setattr(detect, "DIGEST", hashlib.sha256(file.read_bytes()).hexdigest())
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("FASTHG_CACHE", str(tmp_path / "cache"))
        yield file
        http.shutdown()


def test_boxes_are_in_pixels_of_the_photograph_and_inside_it(published: Path) -> None:
    """At half size: the person about cell (20, 8), 40 x 60, is 80 x 120 about (320, 128) of the photograph; the second
    is the same person, the third is cut at the corner, the last is too unsure."""
    boxes = detect.Detector()(WIDE)
    np.testing.assert_allclose(boxes, [[280, 68, 80, 120], [0, 0, 60, 60]], atol=1e-3)
    assert detect.Detector(min_score=0.95)(WIDE).shape == (0, 4)


def test_weights_are_fetched_once(published: Path) -> None:
    detect.Detector()
    published.unlink()
    detect.Detector()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-1] + b"x"), "cut short, or altered"),
        (lambda file: file.unlink(), "answers 404"),
    ],
    ids=["tampered", "gone"],
)
def test_what_is_not_as_published_is_refused(published: Path, tmp_path: Path, spoil, message) -> None:  # type: ignore[no-untyped-def]
    spoil(published)
    kept = tmp_path / "cache" / "weights" / published.name
    with pytest.raises(FasthgError, match=message) as raised:
        detect.Detector()
    assert f"by hand and put it at {kept}" in str(raised.value)
    assert [file.name for file in kept.parent.iterdir()] == ["yolox_nano.lock"]


def test_one_that_was_altered_in_the_cache_is_refused(published: Path, tmp_path: Path) -> None:
    kept = tmp_path / "cache" / "weights" / published.name
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"another network")
    with pytest.raises(FasthgError, match="remove"):
        detect.Detector()


def test_the_predictor_takes_the_people_that_are_found(published: Path) -> None:
    poses = Predictor(runtime="eager", detect=True, size=64)([WIDE, WIDE])
    assert [pose.box for pose in poses] == [
        pytest.approx(box, abs=1e-3) for box in ((280, 68, 80, 120), (0, 0, 60, 60))
    ] * 2
    assert not any(pose.whole_image for pose in poses)


def test_a_photograph_without_people_is_said(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_network(published)
    monkeypatch.setattr(detect, "DIGEST", hashlib.sha256(published.read_bytes()).hexdigest())
    cv2.imwrite(str(tmp_path / "wide.png"), WIDE)
    assert (
        main(["predict", str(tmp_path / "wide.png"), "--detect", "--path", "eager", "-o", str(tmp_path / "out")]) == 2
    )
    assert "the detector sees nobody" in capsys.readouterr().err
