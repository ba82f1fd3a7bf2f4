"""Damaged files for every reader: each has to be read or refused with one clear line, and soon."""

from __future__ import annotations

import io
import json
import logging
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import PIL.Image
import scipy.io
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import fasthg
from fasthg.errors import FasthgError
from fasthg.network.checkpoint import save
from fasthg.network.load import load_network
from fasthg.network.variants import HourglassConfig
from tests.faults.damage import DAMAGE, damaged
from tests.faults.outcome import Row

SLOW_S = 20  # of a CPU's time, for one small file

_buffer = io.BytesIO()
PIL.Image.new("RGB", (60, 40)).save(_buffer, "PNG")
_PNG = _buffer.getvalue()


@dataclass(frozen=True)
class Reader:
    """One reader: whole files to damage, and what reads them."""

    name: str
    samples: Callable[[], list[tuple[str, bytes]]]
    read: Callable[[Path], object]


def fuzz(reader: Reader, minutes: float, start: int) -> Row:
    """Damaged copies of the reader's samples, until the time is up."""
    row, samples, began = Row(reader.name, "damaged file"), reader.samples(), time.monotonic()
    until = began + 60 * minutes
    logging.getLogger("fasthg").setLevel(logging.CRITICAL)
    round_number = start
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        while time.monotonic() < until and len(row.failures) < 5:
            round_number += 1

            @seed(round_number)
            @settings(
                max_examples=100,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(sample=st.sampled_from(samples), damage=DAMAGE)
            def one(sample: tuple[str, bytes], damage: list[Any]) -> None:
                if time.monotonic() < until:
                    attempt(reader, Path(folder) / f"a{sample[0]}", damaged(*sample, damage), row)

            one()
    row.seconds = time.monotonic() - began
    return row


def attempt(reader: Reader, path: Path, content: bytes, row: Row) -> None:
    """Read this content, and note in `row` whether it was refused, and what should not have happened."""
    path.write_bytes(content)
    row.tried += 1
    began = time.process_time()
    try:
        reader.read(path)
    except FasthgError as error:
        row.hit += 1
        if len(str(error)) > 1000:
            row.failures.append(f"an error of {len(str(error))} characters")
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        failure = (
            f"{type(error).__name__} in {Path(frame.filename).name}:{frame.lineno} ({path.suffix}): {error!s:.150}"
        )
        if failure not in row.failures:
            row.failures.append(failure)
    if time.process_time() - began > SLOW_S:
        row.failures.append(f"took {time.process_time() - began:.0f} s")


def _pictures() -> list[tuple[str, bytes]]:
    image = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    found = []
    for suffix, kind in (
        (".jpg", "JPEG"),
        (".png", "PNG"),
        (".gif", "GIF"),
        (".webp", "WEBP"),
        (".tif", "TIFF"),
        (".bmp", "BMP"),
    ):
        buffer = io.BytesIO()
        more = {"save_all": True, "append_images": [image.rotate(90)]} if kind not in ("JPEG", "BMP") else {}
        image.save(buffer, kind, **more)
        found.append((suffix, buffer.getvalue()))
    return found


def _videos() -> list[tuple[str, bytes]]:
    import av

    found = []
    for suffix, kind, codec in ((".mp4", "mp4", "libx264"), (".avi", "avi", "mjpeg"), (".mkv", "matroska", "mpeg4")):
        buffer = io.BytesIO()
        with av.open(buffer, "w", format=kind) as container:
            stream = container.add_stream(codec, rate=10)
            stream.width, stream.height = 64, 48
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            for i in range(8):
                frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 * i, np.uint8), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        found.append((suffix, buffer.getvalue()))
    return found


def _all_pixels(path: Path) -> None:
    from fasthg.predict.sources import flatten, photos

    for photo in photos(list(flatten(path))):
        photo.load()


def _annotations() -> list[tuple[str, bytes]]:
    joints = [[float(3 * i), float(2 * i), 1.0] for i in range(16)]
    person = {
        "joint_self": joints,
        "objpos": [50, 60],
        "scale_provided": 1.2,
        "img_paths": "a.jpg",
        "isValidation": 0.0,
    }
    hrnet = {
        "joints": [row[:2] for row in joints],
        "joints_vis": [1] * 16,
        "image": "a.jpg",
        "center": [5, 6],
        "scale": 2,
    }
    found = [(".json", json.dumps([record, record]).encode()) for record in (person, hrnet)]
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"joints": np.ones((14, 3, 5)) * np.arange(1, 15)[:, None, None]})  # LSP Extended
    found.append((".mat", buffer.getvalue()))
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:  # princeton's
        file["imgname"], file["part"] = np.array([b"a.jpg"] * 3), np.ones((3, 16, 2))
        file["center"], file["scale"] = np.ones((3, 2)), np.ones(3)
        file["visible"], file["normalize"] = np.ones((3, 16)), np.ones(3)
    found.append((".h5", buffer.getvalue()))
    return found


def _boxes() -> list[tuple[str, bytes]]:
    annotation = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": 0}
    coco = {"images": [{"id": 1, "file_name": "a.jpg", "width": 9, "height": 8}], "annotations": [annotation]}
    coco["categories"] = [{"id": 1, "name": "person"}]
    return [(".json", json.dumps(document).encode()) for document in (coco, [annotation, annotation])]


def _detections() -> list[tuple[str, bytes]]:
    return [(".json", json.dumps([{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}] * 3).encode())]


def _keypoints() -> list[tuple[str, bytes]]:
    annotation = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "keypoints": [1, 2, 2, 3, 4, 1], "iscrowd": 0}
    category = {"id": 1, "name": "cat", "keypoints": ["nose", "tail"], "skeleton": [[1, 2]]}
    image = {"id": 1, "file_name": "a.png", "width": 40, "height": 60}
    document = {"images": [image], "annotations": [annotation, annotation], "categories": [category]}
    return [(".json", json.dumps(document).encode())]


def _yolo() -> list[tuple[str, bytes]]:
    yaml = b"train: images\nkpt_shape: [2, 3]\nflip_idx: [1, 0]\nnames: {0: fish}\nkpt_names: {0: [nose, tail]}\n"
    return [(".yaml", yaml), (".txt", b"0 0.5 0.5 0.5 0.4 0.25 0.5 2 0.75 0.5 1\n" * 3)]


def _deeplabcut() -> list[tuple[str, bytes]]:
    yaml = b"Task: a\nscorer: me\nbodyparts:\n- nose\n- tail\nskeleton:\n- - nose\n  - tail\n"
    rows = b"scorer,me,me,me,me\nbodyparts,nose,nose,tail,tail\ncoords,x,y,x,y\nlabeled-data/a/a.png,1,2,3,4\n"
    return [(".yaml", yaml), (".csv", rows)]


def _artefacts() -> list[tuple[str, bytes]]:
    from fasthg.export.artefact import METADATA, Artefact, write_metadata

    with tempfile.TemporaryDirectory() as name:
        model = Path(name) / "model.onnx"
        model.write_bytes(b"model")
        config = HourglassConfig(num_stacks=1, num_feats=16, depths=1)
        write_metadata(Artefact(model.parent, model, "onnx", "fp32", False, config, 64, 2), flip=False)
        return [(".json", (Path(name) / METADATA).read_bytes())]


def _crops() -> list[tuple[str, bytes]]:
    picture = np.frombuffer(_pictures()[0][1], np.uint8)
    buffer = io.BytesIO()
    joints, labelled = np.ones((2, 16, 2)), np.ones((2, 16), bool)
    ends = np.array([1, 2]) * len(picture)
    people = {"joints": joints, "labelled": labelled, "head_size": np.ones(2), "calibration": 1}
    np.savez(buffer, jpegs=np.tile(picture, 2), ends=ends, **people)
    return [(".npz", buffer.getvalue())]


def _checkpoints() -> list[tuple[str, bytes]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        save(fasthg.HourglassNet(HourglassConfig(num_stacks=1, num_feats=16, depths=1)), path)
        return [(".safetensors", path.read_bytes())]


def _published() -> list[tuple[str, bytes]]:
    buffer = io.BytesIO()
    model = fasthg.HourglassNet(HourglassConfig(num_stacks=1, num_feats=16, depths=1))
    torch.save({"state_dict": model.state_dict()}, buffer)
    return [(".pth", buffer.getvalue())]


def _predictions() -> list[tuple[str, bytes]]:
    record = {"image": "a.jpg", "joints": [[1.0, 2.0, 0.5]] * 16}
    return [(".json", json.dumps({"predictions": [record, record]}).encode())]


def _convert(path: Path) -> None:
    from fasthg.network.convert import convert

    convert(path)


def _read_annotations(path: Path) -> None:
    from fasthg.data.annotations import read_annotations

    read_annotations(path)


def _read_detections(path: Path) -> None:
    from fasthg.data.dataset import load_dataset
    from fasthg.data.detections import at_detections

    truth = path.with_name("truth.json")
    if not truth.exists():
        truth.write_bytes(_keypoints()[0][1])
    at_detections(load_dataset(truth, "all", check_files=False), path, None, lambda message: None)


def _read_project(path: Path) -> None:
    """A labelled project of which one file is damaged, the others whole."""
    from fasthg.data.dataset import load_dataset

    project = path.with_name("project")
    whole = dict(_yolo() if path.suffix == ".txt" or b"kpt" in path.read_bytes() else _deeplabcut())
    whole[path.suffix] = path.read_bytes()
    places = {".txt": "labels/a.txt", ".csv": "labeled-data/a/CollectedData_me.csv", ".json": "a.json"}
    places[".yaml"] = "data.yaml" if ".txt" in whole else "config.yaml"
    for image in ("images/a.png", "labeled-data/a/a.png"):
        (project / image).parent.mkdir(parents=True, exist_ok=True)
        (project / image).write_bytes(_PNG)
    for suffix, content in whole.items():
        (project / places[suffix]).parent.mkdir(exist_ok=True)
        (project / places[suffix]).write_bytes(content)
    try:
        load_dataset(project, "all")
    finally:
        shutil.rmtree(project)


def _read_keypoints(path: Path) -> None:
    from fasthg.data.coco import read_coco
    from fasthg.data.reading import Reading

    if not path.with_name("a.png").exists():
        path.with_name("a.png").write_bytes(_PNG)
    from fasthg.data.coco import is_coco_file

    if is_coco_file(path):
        read_coco(path, Reading())


def _read_artefact(path: Path) -> None:
    from fasthg.export.artefact import METADATA, read_artefact

    folder = path.with_name("artefact")
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes(b"model")
    (folder / METADATA).write_bytes(path.read_bytes())
    read_artefact(folder)


def _read_crops(path: Path) -> None:
    from fasthg.data.crops import read_crops

    read_crops(path)


def _read_boxes(path: Path) -> None:
    from fasthg.predict.boxes import read_coco_boxes

    read_coco_boxes(path)


def _read_predictions(path: Path) -> None:
    from fasthg.metrics.prediction_files import read_predictions

    read_predictions(path)


READERS = (
    Reader("pictures", _pictures, _all_pixels),
    Reader("videos", _videos, _all_pixels),
    Reader("annotations", _annotations, _read_annotations),
    Reader("COCO's keypoints", _keypoints, _read_keypoints),
    Reader("YOLO-pose", _yolo, _read_project),
    Reader("DeepLabCut", _deeplabcut, _read_project),
    Reader("boxes", _boxes, _read_boxes),
    Reader("detections", _detections, _read_detections),
    Reader("predictions", _predictions, _read_predictions),
    Reader("checkpoints", _checkpoints, load_network),
    Reader("published checkpoints", _published, _convert),
    Reader("artefacts", _artefacts, _read_artefact),
    Reader("crops", _crops, _read_crops),
)
