"""Photographs with poses drawn over them, written as PNG and, for videos, as MP4, while the network works on."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from fasthg.errors import FasthgError
from fasthg.pixels.draw import draw_poses
from fasthg.predict.predictor import Pose
from fasthg.predict.sources import Image, Photo, frame_rate

_WAITING = 8  # overlays that may wait to be drawn or written, so that pictures do not pile up in memory


class Overlays:
    """Writes photographs with their poses drawn over them: `NAME.png` each, the frames of a video as `NAME.mp4`.

    Drawing and encoding happen in threads. Use as a context manager: once it is left without an error, the files in
    `written` are whole.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written: list[Path] = []
        self._video: VideoFile | None = None
        self._drawer = ThreadPoolExecutor(2)
        self._encoder = ThreadPoolExecutor(1)  # a video's frames come one after the other
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

    def add(self, photo: Photo, image: Image, poses: Sequence[Pose]) -> None:
        """Draw `poses` over `image` and write it, soon; raises what went wrong with an earlier one."""

        def draw() -> Image:
            return draw_poses(image, [pose.joints for pose in poses], [pose.scores for pose in poses])

        while len(self._waiting) >= _WAITING:
            self._waiting.popleft().result()
        if photo.frame is None:
            path = self._new_path(photo.name, ".png")
            self._waiting.append(self._drawer.submit(lambda: write_png(path, draw())))
            return
        if self._video is None or self._video.source != photo.name:
            self._finish()
            self._video = VideoFile(self._new_path(photo.name, ".mp4"), photo.name)
        video, drawn = self._video, self._drawer.submit(draw)
        self._waiting.append(self._encoder.submit(lambda: video.add(drawn.result())))

    def _finish(self) -> None:
        while self._waiting:
            self._waiting.popleft().result()
        if self._video is not None:
            self._video.close()
            self._video = None

    def _new_path(self, name: str, suffix: str) -> Path:
        """A file of its own for each input, also where inputs of several folders have one name."""
        stem = Path(name).stem
        path, number = self.folder / f"{stem}{suffix}", 1
        while path in self.written:
            number += 1
            path = self.folder / f"{stem}-{number}{suffix}"
        self.written.append(path)
        return path


class VideoFile:
    """An MP4 (H.264) that frames are appended to, at the rate of the video that they come from."""

    def __init__(self, path: Path, source: str) -> None:
        import av

        self.source = source
        self._container = av.open(str(path), "w")
        rate = Fraction(frame_rate(Path(source))).limit_denominator(1001)
        self._stream = self._container.add_stream("libx264", rate=rate)
        self._stream.pix_fmt = "yuv420p"
        self._started = False

    def add(self, image: Image) -> None:
        """Append [H, W, 3] uint8 RGB; H.264 needs even sides, so an odd one repeats its last line."""
        import av

        height, width = image.shape[:2]
        even = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        if not self._started:
            self._stream.height, self._stream.width = even.shape[:2]
            self._started = True
        frame = av.VideoFrame.from_ndarray(np.asarray(even, np.uint8), format="rgb24")
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write what is still in the encoder, and the file's index."""
        if self._started:
            self._container.mux(self._stream.encode())
        self._started = False
        self._container.close()


def write_png(path: Path, image: Image) -> None:
    """Write [H, W, 3] uint8 RGB."""
    done, data = cv2.imencode(".png", image[..., ::-1])
    if not done:
        raise FasthgError(f"cannot encode {path.name}: OpenCV has no PNG encoder; install opencv-python-headless")
    path.write_bytes(data.tobytes())
