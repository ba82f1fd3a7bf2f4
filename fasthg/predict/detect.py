"""People's boxes on whole photographs, by a published detector: YOLOX-Nano, run by OpenCV."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

import cv2
import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from fasthg.downloads import check_digest, download
from fasthg.errors import FasthgError
from fasthg.files import default_cache_dir, make_folder
from fasthg.pixels.image import Image
from fasthg.predict.boxes import Boxes

NAME = "YOLOX-Nano"  # Ge et al., 2021, arXiv:2107.08430; Apache-2.0
URL = "https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0/yolox_nano.onnx"
DIGEST = "c789161ed43c8269fcd4e67c67eeeb4e80c622da2eb296a20bc6007bd18a0b7d"
MIN_SCORE = 0.35

_SIDE = 416  # of the square that the detector sees
_STRIDES = (8, 16, 32)
_GREY = 114  # around the photograph, as it was trained
_PERSON = 5  # column of COCO's first category, behind the box and its objectness
_OVERLAP = 0.5  # from which two boxes are one person


class Detector:
    """Finds people. Several threads may call one detector; it answers one after the other.

    min_score  objectness times the category's score, 0 to 1, from which a box is a person

    Fetches its weights (3.7 MB) into the cache where they are not there. Raises FasthgError, with the address and the
    place for a fetch by hand, where they cannot be had.
    """

    def __init__(self, min_score: float = MIN_SCORE) -> None:
        self.min_score = min_score
        self._net = cv2.dnn.readNetFromONNX(str(fetch()))
        self._lock = threading.Lock()
        sides = [_SIDE // stride for stride in _STRIDES]
        self._cells = np.concatenate([np.indices((n, n))[::-1].reshape(2, -1).T for n in sides])
        self._strides = np.repeat(_STRIDES, [n * n for n in sides])[:, None]

    def __call__(self, image: Image) -> Boxes:
        """People's boxes [P, 4] on a photograph uint8 RGB [H, W, 3], the surest first; none where nobody is seen."""
        height, width = image.shape[:2]
        scale = min(_SIDE / width, _SIDE / height)
        with self._lock:
            self._net.setInput(_square(image, scale))
            rows = self._net.forward()[0]
        corner_and_size, scores = self._boxes(rows) / scale, rows[:, 4] * rows[:, _PERSON]
        kept = cv2.dnn.NMSBoxes(corner_and_size.tolist(), scores.tolist(), self.min_score, _OVERLAP)
        low, high = np.zeros(2), np.array([width, height], np.float64)
        found = corner_and_size[np.asarray(kept, np.intp)]
        start, end = (np.clip(edge, low, high) for edge in (found[:, :2], found[:, :2] + found[:, 2:]))
        return np.concatenate([start, end - start], axis=1)

    def _boxes(self, rows: NDArray[np.float32]) -> Boxes:
        """x, y, width, height in the square's pixels, from offsets in each cell and logarithms of sizes."""
        middle = (rows[:, :2] + self._cells) * self._strides
        size = np.exp(rows[:, 2:4].astype(np.float64)) * self._strides
        return np.concatenate([middle - size / 2, size], axis=1)


def _square(image: Image, scale: float) -> NDArray[np.float32]:
    """A photograph as the detector's input [1, 3, S, S], BGR 0 to 255, at the top left of a grey square."""
    size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
    square = np.full((_SIDE, _SIDE, 3), _GREY, np.float32)
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    square[: size[1], : size[0]] = cv2.resize(image, size, interpolation=way)[..., ::-1]
    return np.ascontiguousarray(square.transpose(2, 0, 1)[None])


def fetch() -> Path:
    """The detector's weights in the cache, fetched where they are not there."""
    cache = default_cache_dir()
    if cache is None:
        raise FasthgError(f"{NAME} is fetched into a cache, and there is none; name a folder by FASTHG_CACHE=DIR")
    kept = cache / "weights" / Path(URL).name
    make_folder(kept.parent)
    with FileLock(kept.with_suffix(".lock")):
        if kept.is_file():
            check_digest(NAME, kept, DIGEST, f"remove {kept}, or fetch it again")
            return kept
        with tempfile.TemporaryDirectory(dir=kept.parent, prefix=".detector.") as folder:
            file = Path(folder) / kept.name
            download(NAME, URL, DIGEST, file, kept)
            file.replace(kept)
    return kept
