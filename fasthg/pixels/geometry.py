"""From the photograph to the crop and back: one affine map, kept in floating point.

Coordinates are continuous pixels with the origin at the corner of the top-left pixel: pixel j covers [j, j + 1) and its
centre is j + 0.5. MPII's files hold 1-based pixel indices, so their readers subtract 0.5.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fasthg.pixels.skeleton import Skeleton

MEAN = (0.4404, 0.4440, 0.4327)  # RGB, of MPII's training photographs in 0..1

_BOX_SIDE = 200.0  # pixels of the photograph for a person's scale of 1
_BOX_MARGIN = 1.25  # room around the person's box
_BOX_DROP = 15.0  # pixels, at scale 1, from the annotated centre down to the box's centre


def crop_matrix(
    center: ArrayLike,
    scale: ArrayLike,
    size: int = 256,
    rotation: ArrayLike = 0.0,
    flip: ArrayLike = False,
    zoom: ArrayLike = 1.0,
) -> NDArray[np.float64]:
    """Affine map [..., 2, 3] from the photograph to the crop of one person; every argument broadcasts over `...`.

    center    [..., 2] pixels, the annotated centre; the box's centre is `15 * scale` below it
    scale     [...] the annotated scale; the box is a square with a side of `200 * 1.25 * scale` pixels
    size      side of the crop in pixels, to which the box is mapped
    rotation  [...] degrees about the crop's centre, clockwise as seen
    flip      [...] mirror left and right, after the rotation
    zoom      [...] factor on the side of the box, about its centre: above 1 the person gets smaller
    """
    center, scale = np.asarray(center, np.float64), np.asarray(scale, np.float64)
    angle, flip = np.deg2rad(np.asarray(rotation, np.float64)), np.asarray(flip, bool)
    shrink = size / (_BOX_SIDE * _BOX_MARGIN * scale * np.asarray(zoom, np.float64))
    cos, sin, mirror = np.cos(angle) * shrink, np.sin(angle) * shrink, np.where(flip, -1.0, 1.0)
    box_x, box_y = center[..., 0], center[..., 1] + _BOX_DROP * scale
    xx, xy, yx, yy = np.broadcast_arrays(mirror * cos, -mirror * sin, sin, cos)
    row_x = np.stack([xx, xy, size / 2 - xx * box_x - xy * box_y], axis=-1)
    row_y = np.stack([yx, yy, size / 2 - yx * box_x - yy * box_y], axis=-1)
    return np.stack([row_x, row_y], axis=-2)


def box_to_center_scale(x: float, y: float, width: float, height: float) -> tuple[NDArray[np.float64], float]:
    """Centre [2] and scale with which `crop_matrix` centres the crop on a tight box (corner, width, height in pixels).

    The longer side takes the place of MPII's `200 * scale`, so the crop has the margin that networks are trained with.
    """
    scale = max(width, height) / _BOX_SIDE
    return np.array([x + width / 2, y + height / 2 - _BOX_DROP * scale]), scale


def crop_to_center_scale(center: ArrayLike, side: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres [..., 2] and scales [...] with which `crop_matrix` cuts squares of `side` [...] pixels about `center`."""
    scale = np.asarray(side, np.float64) / (_BOX_SIDE * _BOX_MARGIN)
    drop = np.stack([np.zeros_like(scale), _BOX_DROP * scale], axis=-1)
    return np.asarray(center, np.float64) - drop, scale


def turned(points: ArrayLike, size: tuple[int, int], turn: int) -> NDArray[np.float64]:
    """Points [..., 2] of a stored image of `size` (width, height) in the upright one, which lies on its side to it.

    turn  the image's EXIF orientation, 5 to 8
    """
    x, y = np.moveaxis(np.asarray(points, np.float64), -1, 0)
    across = y if turn in (5, 8) else size[1] - y
    down = x if turn in (5, 6) else size[0] - x
    return np.stack([across, down], axis=-1)


def turned_boxes(boxes: NDArray[np.float64], size: tuple[int, int], turn: int) -> NDArray[np.float64]:
    """`turned` for boxes [P, 4] of corner, width and height."""
    corners = np.stack([turned(boxes[:, :2], size, turn), turned(boxes[:, :2] + boxes[:, 2:], size, turn)])
    return np.concatenate([corners.min(axis=0), np.ptp(corners, axis=0)], axis=1)


def apply(matrix: ArrayLike, points: ArrayLike) -> NDArray[np.float64]:
    """Map points [..., n, 2] by [..., 2, 3], or points [..., 2] by one [2, 3]."""
    matrix, points = np.asarray(matrix, np.float64), np.asarray(points, np.float64)
    offset = matrix[..., 2] if matrix.ndim == 2 else matrix[..., None, :, 2]
    return points @ np.swapaxes(matrix[..., :2], -1, -2) + offset


def invert(matrix: ArrayLike) -> NDArray[np.float64]:
    """The map [..., 2, 3] back."""
    matrix = np.asarray(matrix, np.float64)
    linear = np.linalg.inv(matrix[..., :2])
    return np.concatenate([linear, -linear @ matrix[..., 2:]], axis=-1)


def compose(second: ArrayLike, first: ArrayLike) -> NDArray[np.float64]:
    """The map [..., 2, 3] that does `first`, then `second`."""
    second, first = np.asarray(second, np.float64), np.asarray(first, np.float64)
    product = second[..., :2] @ first
    product[..., 2] += second[..., 2]
    return product


def warp(image: NDArray[np.uint8], matrix: ArrayLike, size: int) -> NDArray[np.uint8]:
    """Crop [size, size, 3] uint8 of `image` [H, W, 3] uint8 under `matrix` [2, 3]: bilinear, black outside."""
    by_index = np.array(matrix, np.float64)  # OpenCV's coordinates have pixel j's centre at j
    by_index[:, 2] += by_index[:, :2].sum(axis=1) * 0.5 - 0.5
    crop = cv2.warpAffine(image, by_index, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return np.asarray(crop, np.uint8)


def flip_heatmaps(heatmaps: Tensor, skeleton: Skeleton) -> Tensor:
    """Heatmaps [..., J, h, w] of a mirrored crop as those of the crop itself: mirrored, left and right swapped."""
    order = torch.tensor(skeleton.flip_order, device=heatmaps.device)
    return heatmaps.flip(-1).index_select(-3, order)
