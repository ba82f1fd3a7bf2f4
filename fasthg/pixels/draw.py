"""Poses drawn over photographs: a skeleton and a red dot for each joint."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from fasthg.pixels.skeleton import Skeleton

RED = (230, 25, 25)
OUTLINE = (20, 20, 20)
_FAR = 1e5  # pixels: what lies further away is left out, since OpenCV's whole numbers end
_MIN_SCORE = 0.05  # of a joint that is drawn
_SHIFT = 4  # bits of a pixel's fraction that OpenCV draws with


def draw_poses(
    image: NDArray[np.uint8],
    joints: Iterable[ArrayLike],
    skeleton: Skeleton,
    scores: Iterable[ArrayLike] | None = None,
) -> NDArray[np.uint8]:
    """A copy of `image` [H, W, 3] uint8 RGB with people's joints, each [J, 2] in continuous pixels, drawn over it.

    Joints that are NaN or far away, or whose score (of scores [J] for each person) is below 0.05, are left out, with
    the limbs that end in them. Lines are scaled to the person.
    """
    canvas = np.ascontiguousarray(image).copy()
    people = [np.asarray(person, np.float64) for person in joints]
    confidences = [np.ones(len(person)) for person in people] if scores is None else [np.asarray(s) for s in scores]
    for person, confidence in zip(people, confidences):
        is_near = (np.abs(person) < _FAR).all(axis=1)  # NaN is not
        _draw_person(canvas, person, skeleton, is_near & (confidence >= _MIN_SCORE))
    return canvas


def _draw_person(
    canvas: NDArray[np.uint8], joints: NDArray[np.float64], skeleton: Skeleton, shown: NDArray[np.bool_]
) -> None:
    if not shown.any():
        return
    extent = float(np.ptp(joints[shown], axis=0).max())
    width = max(2, round(extent / 120))
    fixed = [
        tuple(int(v) for v in np.round((joint - 0.5) * 2**_SHIFT)) if ok else (0, 0) for joint, ok in zip(joints, shown)
    ]
    limbs = [(a, b) for a, b in skeleton.limbs if shown[a] and shown[b]]
    for colour, thickness in ((None, width + 2), ("side", width)):  # a dark rim keeps the limbs visible on any ground
        for a, b in limbs:
            line = skeleton.colour((a, b)) if colour else OUTLINE
            cv2.line(canvas, fixed[a], fixed[b], line, thickness, cv2.LINE_AA, _SHIFT)
    radius = round((width * 0.9 + 1) * 2**_SHIFT)
    for centre in (point for point, ok in zip(fixed, shown) if ok):
        cv2.circle(canvas, centre, radius + 2**_SHIFT, OUTLINE, cv2.FILLED, cv2.LINE_AA, _SHIFT)
        cv2.circle(canvas, centre, radius, RED, cv2.FILLED, cv2.LINE_AA, _SHIFT)
