"""Photographs in, network input out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fasthg.errors import FasthgError
from fasthg.pixels.geometry import MEAN, crop_matrix, warp


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Photograph as [H, W, 3] uint8 RGB, turned upright by its EXIF orientation.

    Raises FasthgError that names the file when it is missing, cut short or not an image.
    """
    data = read_encoded(path)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if data else None
    except cv2.error as error:
        raise FasthgError(f"image {path}: cannot be decoded ({error.err}); give a JPEG or PNG") from None
    if image is None:
        raise FasthgError(f"image {path}: not an image ({len(data)} bytes); give a JPEG or PNG")
    return np.asarray(image, np.uint8)


def read_encoded(path: str | Path) -> bytes:
    """The file of a photograph, for whatever decodes it; raises FasthgError when it is missing or cut short."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise FasthgError(f"image {path}: {error.strerror}; check the name and the folder") from None
    if _is_cut_short(data):
        raise FasthgError(f"image {path}: the file is cut short ({len(data)} bytes); copy it again")
    return data


def _is_cut_short(data: bytes) -> bool:
    """Whether a JPEG or PNG ends before its end marker; the decoders fill what is missing with grey and say nothing.

    Inside a JPEG's scans a byte 0xFF is always escaped, so the end marker behind the last scan's start is no pixel.
    """
    if data.startswith(b"\xff\xd8"):
        return data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")
    return data.startswith(b"\x89PNG") and b"IEND" not in data[-64:]


def read_crop(
    path: str | Path, center: ArrayLike, scale: float, size: int = 256
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """One person's crop [size, size, 3] uint8 RGB and the map [2, 3] from the photograph to it.

    `center` and `scale` are those of the annotation, see `crop_matrix`. Raises FasthgError like `read_image`.
    """
    matrix = crop_matrix(center, scale, size)
    return warp(read_image(path), matrix, size), matrix


def normalise(crops: NDArray[np.uint8] | Tensor, mean: Sequence[float] = MEAN) -> Tensor:
    """Crops [N, H, W, 3] uint8 RGB -> network input [N, 3, H, W] float32 on the same device: `x / 255 - mean`.

    `mean` is the network's own, `config.mean`; MPII's is that of most.
    """
    images = torch.as_tensor(crops).permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    return images.div_(255.0).sub_(torch.tensor(mean, device=images.device).view(3, 1, 1))
