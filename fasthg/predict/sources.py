"""What to predict on: photographs, folders, videos, arrays and tensors, as one stream of photographs with boxes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fasthg.errors import FasthgError
from fasthg.pixels.image import read_image
from fasthg.predict.boxes import Boxes

if TYPE_CHECKING:
    import av

Image = NDArray[np.uint8]  # [H, W, 3] RGB
Source = str | Path | NDArray[Any] | Tensor

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
VIDEO_SUFFIXES = {".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mjpeg"}

log = logging.getLogger("fasthg")


@dataclass(frozen=True)
class Photo:
    """One photograph, or one frame of a video, that is loaded when its turn comes.

    name   the file as it was given; "array 3" for the fourth of several arrays
    boxes  people [P, 4]; None where the whole image is one person
    frame  number of the video's frame from 0; None for a photograph
    """

    name: str
    load: Callable[[], Image]
    boxes: Boxes | None = None
    frame: int | None = None


def is_video(path: str | Path) -> bool:
    """Whether a file is read as a video: by the end of its name."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def expand(inputs: Sequence[Source]) -> list[Source]:
    """Replace each folder by its photographs, in the order of their names.

    Raises FasthgError that names an input that does not exist or a folder without photographs.
    """
    found: list[Source] = []
    for item in inputs:
        if not isinstance(item, (str, Path)):
            found.append(item)
            continue
        path = Path(item)
        if path.is_dir():
            images = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
            if not images:
                raise FasthgError(
                    f"{path} holds no photographs ({', '.join(sorted(IMAGE_SUFFIXES))}); give another folder"
                )
            found += images
        elif not path.exists():
            raise FasthgError(f"{path} does not exist; give photographs, folders or videos")
        else:
            found.append(path)
    if not found:
        raise FasthgError("nothing to predict on; give photographs, folders or videos")
    return found


def photos(
    inputs: Sequence[Source], boxes: Boxes | Sequence[Boxes | None] | Mapping[str, Boxes] | None
) -> Iterator[Photo]:
    """The photographs of what `expand` returned, one after the other; a video gives one for each frame.

    boxes  None: each image is one person; an array: the people of every image; a sequence: of each input in turn;
           a mapping: of the photographs with these names, by path or file name, the others being left out
    """
    if not isinstance(boxes, (np.ndarray, Mapping)) and boxes is not None and len(boxes) != len(inputs):
        raise FasthgError(f"boxes for {len(boxes)} images, but {len(inputs)} images; give boxes for each")
    for i, item in enumerate(inputs):
        people: Boxes | None
        if boxes is None or isinstance(boxes, np.ndarray):
            people = boxes
        elif isinstance(boxes, Mapping):
            named = [boxes[name] for name in (str(item), Path(str(item)).name) if name in boxes]
            if not named:
                continue
            people = named[0]
        else:
            people = boxes[i]
        if isinstance(item, (str, Path)):
            yield from _frames(Path(item), people) if is_video(item) else [Photo(str(item), _reader(item), people)]
        else:
            image = as_image(item)
            yield Photo(f"array {i}", _holder(image), people)


def as_image(array: NDArray[Any] | Tensor) -> Image:
    """An image as [H, W, 3] uint8: arrays are [H, W, 3], tensors [3, H, W]; floating ones hold 0..1.

    Raises FasthgError that names the shape or type that does not fit.
    """
    kind = "tensor" if isinstance(array, Tensor) else "array"
    pixels = array.detach().cpu().permute(1, 2, 0).numpy() if isinstance(array, Tensor) and array.ndim == 3 else array
    pixels = np.asarray(pixels)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        wanted = "[3, H, W]" if kind == "tensor" else "[H, W, 3]"
        raise FasthgError(f"{kind} has shape {tuple(array.shape)}; give RGB as {wanted}")
    if np.issubdtype(pixels.dtype, np.floating):
        if not (pixels.min() >= 0 and pixels.max() <= 1):  # also false for NaN
            raise FasthgError(f"{kind} of {pixels.dtype} has values outside 0..1; give those, or uint8")
        pixels = (pixels * 255).round().astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise FasthgError(f"{kind} is {pixels.dtype}; give uint8, or floats in 0..1")
    return np.ascontiguousarray(pixels)


def count_photos(inputs: Sequence[Source]) -> int | None:
    """How many photographs `photos` will give, as far as the files say; None for a video that does not."""
    videos = [_video_length(Path(item)) if isinstance(item, (str, Path)) and is_video(item) else 1 for item in inputs]
    return None if 0 in videos else sum(videos)


def frame_rate(path: Path) -> float:
    """Frames a second of a video; 25 where it does not say."""
    with _open_video(path) as container:
        return float(container.streams.video[0].average_rate or 25)


def _reader(path: str | Path) -> Callable[[], Image]:
    return lambda: read_image(path)


def _open_video(path: Path) -> av.container.InputContainer:
    import av

    try:
        container = av.open(str(path))
    except av.error.FFmpegError as error:
        raise FasthgError(f"{path} cannot be opened as a video ({error.strerror}); copy it again") from None
    if not container.streams.video:
        container.close()
        raise FasthgError(f"{path} has no pictures; give a video")
    return container


def _video_length(path: Path) -> int:
    with _open_video(path) as container:
        return _announced_frames(container)


def _announced_frames(container: av.container.InputContainer) -> int:
    """Frames that a video says it has, or that its duration amounts to; 0 where it says neither."""
    stream = container.streams.video[0]
    if stream.frames or not container.duration or not stream.average_rate:
        return stream.frames
    return round(container.duration / 1e6 * stream.average_rate)  # a container's duration is in microseconds


def _frames(path: Path, boxes: Boxes | None) -> Iterator[Photo]:
    """The frames of a video, up to where it ends or is cut off."""
    import av

    count, problem = 0, ""
    with _open_video(path) as container:
        announced = _announced_frames(container)
        container.streams.video[0].thread_type = "AUTO"
        try:
            for frame in container.decode(video=0):
                image = np.rot90(frame.to_ndarray(format="rgb24"), k=round(frame.rotation / 90) % 4)
                yield Photo(str(path), _holder(np.ascontiguousarray(image)), boxes, count)
                count += 1
        except av.error.FFmpegError as error:
            problem = error.strerror or "damaged"
    if count == 0:
        raise FasthgError(f"{path} holds no whole frame ({problem or 'empty'}); copy the video again")
    if problem or count < announced - 1:  # a duration may be rounded up
        log.warning("%s is cut off: the first %d frames of %s are kept", path, count, announced or "an unknown number")


def _holder(image: Image) -> Callable[[], Image]:
    return lambda: image
