"""Noise at the price of a slice: one fixed tile, read at a random place."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

_SIDE = 1024
_DEVIATION = 32


@cache
def _tile() -> np.ndarray:
    """Normal noise around 128, uint8 [1024, 1024]."""
    noise = np.random.default_rng(20261122).normal(128, _DEVIATION, (_SIDE, _SIDE))
    return np.clip(noise, 0, 255).astype(np.uint8)


def add_grain(rng: np.random.Generator, image: np.ndarray, strength: float, coarseness: int = 1) -> np.ndarray:
    """Add noise of standard deviation `strength`, alike in all channels, `coarseness` pixels wide; uint8 in and out."""
    height, width = image.shape[:2]
    rows, columns = -(-height // coarseness), -(-width // coarseness)
    y, x = rng.integers(_SIDE, size=2)
    noise = _tile()[y : y + rows, x : x + columns]
    if noise.shape != (rows, columns):
        noise = _tile().take(np.arange(y, y + rows), 0, mode="wrap").take(np.arange(x, x + columns), 1, mode="wrap")
    if coarseness > 1:
        noise = cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR)
    gain = strength / _DEVIATION
    return cv2.addWeighted(image, 1.0, cv2.merge([noise] * 3), gain, -128 * gain)
