"""Photographs with poses drawn over them, written as PNG and, for videos, as MP4, while the network works on."""

from __future__ import annotations

import os
import threading
import unicodedata
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fasthg.errors import FasthgError
from fasthg.pixels.draw import draw_poses
from fasthg.pixels.image import Image
from fasthg.pixels.skeleton import MPII, Skeleton
from fasthg.predict.photo import LeftOut, Photo
from fasthg.predict.predictor import Pose

_TICKS = 90_000  # of a second: MPEG's clock, which every usual frame rate divides
_LARGE = 1 << 26  # bytes of pixels from which on pictures are drawn and encoded one at a time
_LONGEST = 255  # bytes of a file's name
_WAITING = 8  # overlays that may wait to be drawn or written, so that pictures do not pile up in memory


class Overlays:
    """Writes photographs with their poses drawn over them: `NAME.png` each, what has times as `NAME.mp4`.

    Photographs are read again for it, so that none is held while the network works. Drawing and encoding happen in
    threads. Use as a context manager: once it is left without an error, the files in `written` are whole.

    skeleton  whose limbs are drawn
    is_taken  whether a file's name may not be used in the folder that the files are meant for
    left_out  told of a photograph that cannot be read any more; where None that is an error
    """

    def __init__(
        self,
        folder: Path,
        skeleton: Skeleton = MPII,
        is_taken: Callable[[str], bool] = lambda name: False,
        left_out: LeftOut | None = None,
    ) -> None:
        self.folder, self.skeleton, self.is_taken = folder, skeleton, is_taken
        self.left_out = left_out or LeftOut(strict=True)
        self.written: list[Path] = []
        self._names: set[str] = set()  # as `_same` has them
        self._numbers: dict[str, int] = {}  # the last that each name was given to tell it from others
        self._video: VideoFile | None = None
        self._drawer = ThreadPoolExecutor(2)
        self._encoder = ThreadPoolExecutor(1)  # a video's frames come one after the other
        self._one_large = threading.Lock()
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> Overlays:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if error is None:
                self._finish()
        finally:
            self._drawer.shutdown(cancel_futures=True)
            self._encoder.shutdown(cancel_futures=True)

    def add(self, photo: Photo, poses: Sequence[Pose]) -> None:
        """Draw `poses` over the photograph and write it, soon; raises what went wrong with an earlier one.

        A photograph that was predicted on and cannot be read again has no overlay, and is told to `left_out`.
        """

        def draw(image: Image) -> Image:
            joints, scores = [pose.joints for pose in poses], [pose.scores for pose in poses]
            return draw_poses(image, joints, self.skeleton, scores)

        def draw_png(path: Path) -> None:
            try:
                image = photo.load()
            except FasthgError as error:
                self.written.remove(path)
                self.left_out(f"the overlay of {photo.name}, which was predicted on: {error}")
                return
            with self._one_large if image.nbytes >= _LARGE else nullcontext():
                image = draw(image)
                write_png(path, image)

        while len(self._waiting) >= _WAITING:
            self._waiting.popleft().result()
        if photo.time is None:
            page = "" if photo.frame is None else f"-{photo.frame}"
            path = self._new_path(photo.name, f"{page}.png")
            self._waiting.append(self._drawer.submit(draw_png, path))
            return
        if self._video is None or self._video.source != photo.name or photo.frame == 0:
            self._finish()
            self._video = VideoFile(self._new_path(photo.name, ".mp4"), photo.name)
        video, time, drawn = self._video, photo.time, self._drawer.submit(lambda: draw(photo.load()))
        self._waiting.append(self._encoder.submit(lambda: video.add(drawn.result(), time)))

    def _finish(self) -> None:
        while self._waiting:
            self._waiting.popleft().result()
        if self._video is not None:
            self._video.close()
            self._video = None

    def _new_path(self, name: str, suffix: str) -> Path:
        """A file of its own for each input, also where inputs of several folders have one name."""
        stem = Path(name).stem
        new, same = _named(stem, suffix), _same(stem + suffix)
        while _same(new) in self._names or self.is_taken(new):
            number = self._numbers[same] = self._numbers.get(same, 1) + 1
            new = _named(stem, f"-{number}{suffix}")
        self._names.add(_same(new))
        self.written.append(self.folder / new)
        return self.written[-1]


def _named(stem: str, end: str) -> str:
    """A file's name, its stem cut where the disk takes no longer ones."""
    while len(os.fsencode(stem + end)) > _LONGEST:
        stem = stem[:-1]
    return stem + end


def _same(name: str) -> str:
    """The same text for names that some file systems do not tell apart: A and a, or one way to write an umlaut and
    another."""
    return unicodedata.normalize("NFC", name).casefold()


class VideoFile:
    """An MP4 (H.264) that frames are appended to, each with its time."""

    def __init__(self, path: Path, source: str) -> None:
        self.source = source
        self._path = path
        self._container: Any = None
        self._held: Any = None  # the last frame so far
        self._gap = _TICKS // 25

    def add(self, image: Image, time: float) -> None:
        """Append [H, W, 3] uint8 RGB, shown from second `time` on; the first frame's size is the video's.

        H.264 needs even sides, so an odd one repeats its last line.
        """
        import av

        height, width = image.shape[:2]
        even = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        if self._container is None:
            self._begin(even.shape[1], even.shape[0])
        if even.shape[:2] != (self._stream.height, self._stream.width):
            even = cv2.resize(even, (self._stream.width, self._stream.height), interpolation=cv2.INTER_AREA)
        frame = av.VideoFrame.from_ndarray(np.asarray(even, np.uint8), format="rgb24")
        frame.pts, frame.time_base = round(time * _TICKS), Fraction(1, _TICKS)
        if self._held is not None:
            frame.pts = max(frame.pts, self._held.pts + 1)
            self._gap = frame.pts - self._held.pts
            self._container.mux(self._stream.encode(self._held))
        self._held = frame

    def close(self) -> None:
        """Write what is still in the encoder, and the file's index."""
        if self._container is not None:
            packets = [*self._stream.encode(self._held), *self._stream.encode()]
            for packet in packets:
                packet.duration = self._gap  # the last frame is shown as long as the one before it
            self._container.mux(packets)
            self._container.close()
            self._file.close()

    def _begin(self, width: int, height: int) -> None:
        import av

        self._file = open(self._path, "wb")  # noqa: SIM115 - FFmpeg takes no name that is not UTF-8
        self._container = av.open(self._file, "w", format="mp4")
        self._stream: Any = self._container.add_stream("libx264", rate=25)
        self._stream.codec_context.time_base = Fraction(1, _TICKS)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"


def write_png(path: Path, image: Image) -> None:
    """Write [H, W, 3] uint8 RGB, whose channels are swapped in place: a phone's photograph takes 72 MB a copy."""
    done, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR, dst=image))
    if not done:
        raise FasthgError(f"cannot encode {path.name}: OpenCV has no PNG encoder; install opencv-python-headless")
    path.write_bytes(data.data)
