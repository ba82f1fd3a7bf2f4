"""What to predict on: photographs, folders, videos, Pillow images, arrays and tensors, as one stream of photographs."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from torch import Tensor

from fasthg.errors import FasthgError
from fasthg.pixels import pictures
from fasthg.pixels.image import Image, decode_image, read_encoded, read_image
from fasthg.predict import video
from fasthg.predict.boxes import Boxes, Listed, Lookup
from fasthg.predict.photo import LeftOut, Photo

Source = Any  # a path, a Pillow image, encoded bytes, an open file, an array or a tensor

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".png", ".apng", ".webp", ".tif", ".tiff", ".gif"}
IMAGE_SUFFIXES |= {".heic", ".heif", ".avif"}
_START = 32  # bytes by which a file is told to be a picture
_FILES = "give photographs, folders or videos"


def flatten(images: object) -> Iterator[Source]:
    """The single images of whatever was given: one image or folder, or any iterable of them, one after the other.

    Arrays [N, H, W, 3], tensors [N, 3, H, W] and arrays of paths are several. Raises FasthgError for what is none.
    """
    if isinstance(images, (str, os.PathLike)):
        yield from expand([images])
    elif isinstance(images, (np.ndarray, Tensor)) and (images.ndim == 4 or _is_text(images)):
        for item in images:
            yield from flatten(str(item) if _is_text(images) else item)
    elif isinstance(images, (bytes, bytearray, memoryview, np.ndarray, Tensor, PIL.Image.Image)) or _is_file(images):
        yield images
    elif isinstance(images, Iterable) and not isinstance(images, Mapping):
        for item in images:
            yield from flatten(item)
    else:
        raise FasthgError(f"{images!r:.60} is no image; {_FILES}, Pillow images, arrays or tensors")


def expand(inputs: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Replace each folder by its photographs, in the order of their names; hidden files are none.

    Raises FasthgError that names an input that does not exist or a folder without photographs.
    """
    found: list[Path] = []
    for item in inputs:
        path = Path(item)
        try:
            is_folder = stat.S_ISDIR(os.stat(path).st_mode)
            names = sorted(os.listdir(path)) if is_folder else []
        except FileNotFoundError:
            way_out = "is an address; download it first" if "://" in str(item) else f"does not exist; {_FILES}"
            raise FasthgError(f"{item} {way_out}") from None
        except (OSError, ValueError) as error:  # ValueError: a name with a null byte
            raise FasthgError(f"{item}: {getattr(error, 'strerror', None) or error}; {_FILES}") from None
        photographs = [path / name for name in names if _is_photograph(path / name)]
        if is_folder and not photographs:
            raise FasthgError(f"{path} holds no photographs ({', '.join(sorted(IMAGE_SUFFIXES))}); give another folder")
        found += photographs if is_folder else [path]
    return found


def photos(
    inputs: Iterable[Source], boxes: Boxes | list[Boxes | None] | Lookup | None = None, left_out: LeftOut | None = None
) -> Iterator[Photo]:
    """The photographs of what `flatten` gave, one after the other; a video gives one for each frame.

    boxes     None: each image is one person; an array [P, 4]: the people of every image; a list: of each input in turn;
              a Lookup: of the photographs that it names, the others being left alone
    left_out  told of damaged frames; a file that cannot be read at all is a photograph whose `load` fails
    """
    left_out = left_out or LeftOut()
    stays = not isinstance(inputs, Iterator)
    for i, (item, listed) in enumerate(_with_people(inputs, boxes)):
        if listed is None:
            continue
        try:
            is_path = isinstance(item, (str, Path))
            for photo in _of_file(Path(item), left_out) if is_path else _in_memory(item, i, stays, left_out):
                yield replace(photo, boxes=listed.of_frame(photo.frame), stated=listed.size)
        except FasthgError as error:
            if left_out.strict:
                raise
            yield Photo(str(item) if isinstance(item, (str, Path)) else f"array {i}", _raiser(error))


def _with_people(
    inputs: Iterable[Source], boxes: Boxes | list[Boxes | None] | Lookup | None
) -> Iterator[tuple[Source, Listed | None]]:
    """Each input with its people; None for one that is left alone."""
    if not isinstance(boxes, (list, Lookup)):
        yield from ((item, Listed(boxes)) for item in inputs)
        return
    given = list(inputs)
    if isinstance(boxes, list):
        if len(boxes) != len(given):
            raise FasthgError(f"boxes for {len(boxes)} images, but {len(given)} images; give boxes for each")
        yield from zip(given, map(Listed, boxes))
        return
    assigned = iter(boxes.assign([item for item in given if isinstance(item, (str, Path))]))
    yield from ((item, next(assigned) if isinstance(item, (str, Path)) else None) for item in given)


def count_photos(inputs: Sequence[Path]) -> int | None:
    """How many photographs `photos` will give, as far as the files say; None where a video does not."""
    counts = []
    for path in inputs:
        try:
            start = read_start(path)
            if not is_picture(path, start):
                counts.append(video.length(path))
            else:
                counts.append(1 if pictures.holds_one(start) else pictures.holds_several(read_encoded(path)))
        except FasthgError:
            counts.append(1)  # one that cannot be read
    return None if 0 in counts else sum(counts)


def has_frames(path: Path) -> bool:
    """Whether a file is a video or holds several pictures, which have numbers; not where it cannot be read."""
    try:
        start = read_start(path)
        if not is_picture(path, start):
            return video.opens(path)
        return not pictures.holds_one(start) and pictures.holds_several(read_encoded(path)) > 1
    except FasthgError:
        return False


def as_image(array: NDArray[Any] | Tensor) -> Image:
    """An image as [H, W, 3] uint8: arrays are [H, W, 3] or grey [H, W], tensors [3, H, W]; a fourth channel is opacity.

    Floating ones hold 0..1, uint16 ones 0..65535. Raises FasthgError that names the shape or type that does not fit.
    """
    if isinstance(array, Tensor):
        kind, wanted = "tensor", "[3, H, W]"
        try:
            held = array.detach().cpu()
            pixels = (held.float() if held.is_floating_point() else held).numpy()  # NumPy has no bfloat16
        except (TypeError, RuntimeError):  # sparse, quantised, without memory of its own
            raise FasthgError(f"tensor is {array.layout} on {array.device}; give a dense one of pixels") from None
        pixels = np.moveaxis(pixels, 0, -1) if pixels.ndim == 3 else pixels
    else:
        kind, wanted, pixels = "array", "[H, W, 3]", array
    if pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 1):
        pixels = np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2)
    if pixels.ndim != 3 or pixels.shape[2] not in (3, 4) or 0 in pixels.shape:
        raise FasthgError(f"{kind} has shape {tuple(array.shape)}; give RGB as {wanted}")
    pixels = pixels[..., :3]
    if np.issubdtype(pixels.dtype, np.floating):
        if not (pixels.min() >= 0 and pixels.max() <= 1):  # also false for NaN
            raise FasthgError(f"{kind} of {pixels.dtype} has values outside 0..1; give those, or uint8")
        pixels = (pixels * 255).round().astype(np.uint8)
    if pixels.dtype.newbyteorder("=") == np.uint16:  # also as a big-endian TIFF has them
        pixels = (pixels / 257).round().astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise FasthgError(f"{kind} is {pixels.dtype}; give uint8, uint16, or floats in 0..1")
    return np.ascontiguousarray(pixels)


def _of_file(path: Path, left_out: LeftOut) -> Iterator[Photo]:
    """The pictures of a file, whose kind its content says."""
    start = read_start(path)
    if not is_picture(path, start):
        yield from video.frames(path, left_out)
        return
    data = b"" if pictures.holds_one(start) else read_encoded(path)
    if data and (count := pictures.holds_several(data)) > 1:
        yield from _several(data, str(path), count, left_out)
    else:
        yield Photo(str(path), lambda: read_image(path))


def _several(data: bytes, name: str, count: int, left_out: LeftOut) -> Iterator[Photo]:
    """The pictures of a file's content, up to the first that is damaged."""
    number = -1
    try:
        for number, (load, time, held) in enumerate(pictures.read_several(data, name)):
            yield Photo(name, load, number, time, held=held)
    except FasthgError as error:
        if number < 0:
            raise
        left_out(error, count - number - 1)


def _in_memory(item: Any, number: int, stays: bool, left_out: LeftOut) -> Iterator[Photo]:
    """The photographs that an object is, which the caller keeps in memory anyway where it `stays`."""
    name = f"array {number}"
    if _is_file(item):
        name = item.name if isinstance(getattr(item, "name", None), str) else name
        try:
            item = item.read()
        except (OSError, ValueError) as error:  # ValueError: it was closed
            raise FasthgError(f"{name}: {error}; open it again with 'rb'") from None
        if isinstance(item, str):
            raise FasthgError(f"{name} was opened as text; open it with 'rb'")
    if isinstance(item, (bytes, bytearray, memoryview)):
        data = bytes(item)
        if not pictures.is_picture(data[:_START]) and video.opens(held := video.Held(name, data)):
            yield from video.frames(held, left_out)
        elif not pictures.holds_one(data[:_START]) and (count := pictures.holds_several(data)) > 1:
            yield from _several(data, name, count, left_out)
        else:
            yield Photo(name, lambda: decode_image(data, name))
    elif isinstance(item, PIL.Image.Image):
        name = getattr(item, "filename", "") or name
        try:
            pixels = pictures.from_pillow(item)
        except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises when it decodes a damaged file
            raise FasthgError(f"image {name}: {error}") from None
        yield Photo(name, _holder(pixels), held=pixels.nbytes)
    else:
        pixels = as_image(item)
        yield Photo(name, _holder(pixels), held=0 if stays else pixels.nbytes)


def read_start(path: Path) -> bytes:
    """How a file begins; raises FasthgError where it cannot be read."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise FasthgError(f"image {path}: not a file; {_FILES}")
        with open(path, "rb") as file:
            return file.read(_START)
    except OSError as error:
        raise FasthgError(f"image {path}: {error.strerror}; check the name and the folder") from None


def is_picture(path: Path, start: bytes) -> bool:
    """Whether a file is read as a picture, not as a video: by its content, and by its name where that says nothing."""
    if pictures.is_picture(start):
        return path.suffix.lower() not in (".mjpeg", ".mjpg")  # JPEGs one after the other
    return path.suffix.lower() in IMAGE_SUFFIXES and not video.opens(path)


def _is_photograph(path: Path) -> bool:
    """Whether a file of a folder is one of its photographs; a link that leads nowhere is one that cannot be read."""
    hidden = path.name.startswith(".")  # a Mac writes ._NAME beside NAME
    return not hidden and path.suffix.lower() in IMAGE_SUFFIXES and (path.is_file() or path.is_symlink())


def _is_text(array: NDArray[Any] | Tensor) -> bool:
    return isinstance(array, np.ndarray) and array.dtype.kind in "UO"


def _is_file(item: object) -> bool:
    return hasattr(item, "read") and not isinstance(item, (np.ndarray, Tensor, PIL.Image.Image))


def _holder(image: Image) -> Callable[[], Image]:
    return lambda: image


def _raiser(error: FasthgError) -> Callable[[], Image]:
    def load() -> Image:
        raise error

    return load
