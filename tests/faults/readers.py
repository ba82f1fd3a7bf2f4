"""Damaged files for every reader: each has to be read or refused with one clear line, and soon."""

from __future__ import annotations

import io
import json
import logging
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import fasthg
from fasthg.errors import FasthgError
from fasthg.network.checkpoint import save
from fasthg.network.load import load_network
from fasthg.network.variants import HourglassConfig
from tests.faults.outcome import Row

SLOW_S = 20  # for one small file


@dataclass(frozen=True)
class Reader:
    """One reader: whole files to damage, and what reads them."""

    name: str
    samples: Callable[[], list[tuple[str, bytes]]]
    read: Callable[[Path], object]


def fuzz(reader: Reader, minutes: float, start: int) -> Row:
    """Damaged copies of the reader's samples, until the time is up."""
    row, samples, until = Row(reader.name, "damaged file"), reader.samples(), time.monotonic() + 60 * minutes
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
            @given(sample=st.sampled_from(samples), damage=_DAMAGE)
            def one(sample: tuple[str, bytes], damage: list[tuple[float, int, bytes]]) -> None:
                if time.monotonic() < until:
                    _try(reader, Path(folder) / f"a{sample[0]}", _damaged(sample[1], damage), row)

            one()
    return row


#: Where in the file (0 to 1), how many bytes go, and what comes in their place.
_DAMAGE = st.lists(
    st.tuples(st.floats(0, 1), st.sampled_from((0, 1, 2, 4, 16, 1 << 30)), st.binary(max_size=8)),
    min_size=1,
    max_size=6,
)


def _damaged(content: bytes, damage: list[tuple[float, int, bytes]]) -> bytes:
    for place, gone, instead in damage:
        at = int(place * len(content))
        content = content[:at] + instead + content[at + gone :]
    return content


def _try(reader: Reader, path: Path, content: bytes, row: Row) -> None:
    path.write_bytes(content)
    row.tried += 1
    began = time.monotonic()
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
    if time.monotonic() - began > SLOW_S:
        row.failures.append(f"took {time.monotonic() - began:.0f} s")


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
    return [(".json", json.dumps([record, record]).encode()) for record in (person, hrnet)]


def _boxes() -> list[tuple[str, bytes]]:
    annotation = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": 0}
    coco = {"images": [{"id": 1, "file_name": "a.jpg", "width": 9, "height": 8}], "annotations": [annotation]}
    coco["categories"] = [{"id": 1, "name": "person"}]
    return [(".json", json.dumps(document).encode()) for document in (coco, [annotation, annotation])]


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
    Reader("boxes", _boxes, _read_boxes),
    Reader("predictions", _predictions, _read_predictions),
    Reader("checkpoints", _checkpoints, load_network),
    Reader("published checkpoints", _published, _convert),
)
