"""Photographs in, network input out."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fasthg.errors import FasthgError
from fasthg.pixels import pictures
from fasthg.pixels.geometry import MEAN, crop_matrix, warp

Image = NDArray[np.uint8]  # [H, W, 3] RGB

_PNG = b"\x89PNG\r\n\x1a\n"
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # a JPEG's, but not an escaped 0xFF among pixels or a restart

cv2.utils.logging.setLogLevel(
    cv2.utils.logging.LOG_LEVEL_SILENT
)  # what OpenCV has to say of a damaged file is in our error


def read_image(path: str | Path) -> Image:
    """Photograph as [H, W, 3] uint8 RGB, turned upright by its EXIF orientation; the first of several in one file.

    Raises FasthgError that names the file when it is missing, cut short or not an image.
    """
    return decode_image(read_encoded(path), path)


def decode_image(data: bytes, name: str | Path) -> Image:
    """`read_image` of a file's content; `name` is what errors call it."""
    if is_cut_short(data):
        raise FasthgError(f"image {name}: the file is cut short ({len(data)} bytes); copy it again")
    if pictures.is_heif(data):  # OpenCV reads some of them, and does not turn them
        return pictures.decode_with_pillow(data, name)
    if pictures.is_tiff(data) and (page := pictures.decode_tiff(data, name)) is not None:
        return page
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if data else None
    except (cv2.error, MemoryError):
        image = None
    return pictures.decode_with_pillow(data, name) if image is None else np.asarray(image, np.uint8)


def read_encoded(path: str | Path) -> bytes:
    """The file of a photograph, for whatever decodes it; raises FasthgError when it is missing or cut short."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode) and not os.path.isdir(path):
            raise FasthgError(f"image {path}: a pipe or a device, not a file; give a JPEG or PNG")
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        reason = getattr(error, "strerror", None) or error
        raise FasthgError(f"image {path}: {reason}; check the name and the folder") from None
    if is_cut_short(data):
        raise FasthgError(f"image {path}: the file is cut short ({len(data)} bytes); copy it again")
    return data


def is_cut_short(data: bytes) -> bool:
    """Whether a JPEG or PNG ends before its end marker; the decoders fill what is missing with grey and say nothing.

    The file's own structure is followed to its end. What stands behind that is not looked at: phones append videos,
    editors leave what a picture held before it was cropped.
    """
    if data.startswith(b"\xff\xd8"):
        return not _jpeg_ends(data)
    return data.startswith(_PNG) and not _png_ends(data)


def _jpeg_ends(data: bytes) -> bool:
    """Whether a JPEG's own end marker is there: segments are skipped by their lengths, pixels up to the next marker."""
    position = 2
    while found := _MARKER.search(data, position):
        marker, position = found[0][1], found.end()
        if marker == 0xD9:
            return True
        if marker != 0xD8 and marker != 0x01:  # all others have a length, which counts itself
            position += int.from_bytes(data[position : position + 2], "big")
    return False


def _png_ends(data: bytes) -> bool:
    """Whether a PNG's IEND chunk is there; each chunk is its length, its name, its content and a checksum."""
    position = len(_PNG)
    while position + 12 <= len(data):
        if data[position + 4 : position + 8] == b"IEND":
            return True
        position += int.from_bytes(data[position : position + 4], "big") + 12
    return False


def read_crop(path: str | Path, center: ArrayLike, scale: float, size: int = 256) -> tuple[Image, NDArray[np.float64]]:
    """One person's crop [size, size, 3] uint8 RGB and the map [2, 3] from the photograph to it.

    `center` and `scale` are those of the annotation, see `crop_matrix`. Raises FasthgError like `read_image`.
    """
    matrix = crop_matrix(center, scale, size)
    return warp(read_image(path), matrix, size), matrix


def normalise(crops: NDArray[np.uint8] | Tensor, mean: Sequence[float] = MEAN) -> Tensor:
    """Crops [N, H, W, 3] uint8 RGB -> network input [N, 3, H, W] float32 on the same device: `x / 255 - mean`.

    `mean` is the network's own, `config.mean`; MPII's is that of most.
    """
    if isinstance(crops, Tensor) and crops.is_cuda:
        images = crops.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        return images.div_(255.0).sub_(torch.tensor(mean, device=images.device).view(3, 1, 1))
    # NumPy, for torch's threads look for more work for milliseconds afterwards, on the cores that the network needs.
    pixels = np.asarray(crops).transpose(0, 3, 1, 2)
    on_host = np.divide(pixels, np.float32(255), out=np.empty(pixels.shape, np.float32))
    on_host -= np.array(mean, np.float32).reshape(3, 1, 1)
    return torch.from_numpy(on_host)


def fill_up(images: Tensor, count: int) -> Tensor:
    """The images, the last one repeated up to `count`: a new shape would make compiled networks compile again."""
    missing = count - len(images)
    return torch.cat([images, images[-1:].expand(missing, -1, -1, -1)]) if missing else images
