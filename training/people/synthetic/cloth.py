"""Colours and cloth: the textures that people, things and walls are covered with, uint8 RGB."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np

from training.people.synthetic.grain import add_grain

Color = tuple[int, int, int]

_SKIN: tuple[Color, ...] = (
    (244, 208, 177), (231, 184, 143), (210, 158, 115), (172, 116, 75), (124, 78, 48), (84, 53, 36)
)  # fmt: skip
AROUND, TRUNK_HEIGHT, SEAT_HEIGHT = 96, 64, 24  # texels once around a trunk or head, and from its top to its bottom
LIMB = (48, 32)  # texels of a limb: height, around


def color_image(color: Color, height: int = 1, width: int = 1) -> np.ndarray:
    """An image of one colour."""
    return np.full((height, width, 3), color, np.uint8)


def sample_skin(rng: np.random.Generator) -> Color:
    """A complexion."""
    return shade(_SKIN[rng.integers(len(_SKIN))], rng.uniform(0.88, 1.06))


def fabric_color(rng: np.random.Generator) -> Color:
    """A dye: any hue, from black over saturated to white."""
    hue, purity, value = rng.random(3)
    red, green, blue = colorsys.hsv_to_rgb(hue, purity**1.4, 0.14 + 0.84 * value)
    return round(255 * red), round(255 * green), round(255 * blue)


def shade(color: Color, factor: float) -> Color:
    """The colour darkened (factor below 1) or brightened."""
    red, green, blue = (min(int(channel * factor), 255) for channel in color)
    return red, green, blue


def contrasting(color: Color) -> Color:
    """The colour of a seam: darker on bright cloth, brighter on dark."""
    brightness = sum(color)
    return shade(color, 0.35) if brightness > 330 else shade((color[0] + 30, color[1] + 30, color[2] + 30), 1.7)


def fabric(rng: np.random.Generator, color: Color, height: int, width: int) -> np.ndarray:
    """Cloth of one pattern: plain, stripes along or around, plaid, dots or blotches; always with a little grain."""
    cloth, second, pattern = color_image(color, height, width), fabric_color(rng), rng.random()
    period, offset = int(rng.integers(5, 14)), int(rng.integers(14))
    rows = (np.arange(height) + offset) % period < period // 2
    columns = (np.arange(width) + offset) % period < period // 2
    if pattern < 0.15:
        cloth[rows] = second
    elif pattern < 0.25:
        cloth[:, columns] = second
    elif pattern < 0.35:
        mixed = (0.25 * rows[:, None] + 0.25 * columns[None, :])[..., None]
        cloth = (cloth * (1 - mixed) + np.array(second) * mixed).astype(np.uint8)
    elif pattern < 0.43:
        cloth[np.logical_and.outer(rows, columns)] = second
    elif pattern < 0.55:
        blotches = cv2.resize(rng.random((5, 7), dtype=np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        cloth[blotches > 0.62] = second
    return add_grain(rng, cloth, 5.0)


def shirt(rng: np.random.Generator, color: Color, skin: Color) -> np.ndarray:
    """A trunk's cover: buttons, print or open jacket in front, a pocket on its left, a plain or numbered back."""
    cloth = fabric(rng, color, TRUNK_HEIGHT, AROUND)
    middle, seam = AROUND // 2, contrasting(color)
    neckline = int(rng.integers(5, 14))
    cv2.ellipse(cloth, (middle, 0), (int(rng.integers(7, 11)), neckline), 0, 0, 360, skin, -1)
    kind = rng.random()
    if kind < 0.45:
        cv2.line(cloth, (middle, neckline), (middle, TRUNK_HEIGHT), seam, 1)
        for row in range(neckline + 4, TRUNK_HEIGHT - 4, 8):
            cv2.circle(cloth, (middle + 2, row), 1, (240, 240, 235), -1)
    elif kind < 0.85:
        size = (int(rng.integers(6, 13)), int(rng.integers(5, 11)))
        cv2.ellipse(cloth, (middle, 26), size, 0, 0, 360, fabric_color(rng), -1)
        _print(cloth, chr(int(rng.integers(65, 91))), (middle - 5, 31), seam, 1)
    else:
        cv2.rectangle(cloth, (middle - 5, neckline), (middle + 5, TRUNK_HEIGHT), (235, 232, 228), -1)
    if rng.random() < 0.6:
        cv2.rectangle(cloth, (middle + 10, 18), (middle + 17, 26), seam, 1)
    if rng.random() < 0.25:
        _print(cloth, str(rng.integers(10)), (0, 36), seam, 2)
    return cloth


def _print(cloth: np.ndarray, text: str, place: tuple[int, int], color: Color, thickness: int) -> None:
    cv2.putText(cloth, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.6, color, thickness)


def seat(rng: np.random.Generator, cloth: np.ndarray, color: Color) -> np.ndarray:
    """Trousers around the hips, of the legs' cloth: belt, buckle and fly in front, two pockets at the back."""
    seat = cv2.resize(cloth, (AROUND, SEAT_HEIGHT), interpolation=cv2.INTER_LINEAR)
    middle, seam = AROUND // 2, contrasting(color)
    cv2.rectangle(seat, (0, 0), (AROUND, 3), shade(fabric_color(rng), 0.5), -1)
    cv2.rectangle(seat, (middle - 3, 0), (middle + 3, 3), (205, 190, 120), -1)
    cv2.line(seat, (middle, 4), (middle, SEAT_HEIGHT - 4), seam, 1)
    for column in (5, AROUND - 15):
        cv2.rectangle(seat, (column, 8), (column + 10, 18), seam, 1)
    return seat


def limb(cloth: np.ndarray, skin: Color, share: float) -> np.ndarray:
    """A limb from its upper end: cloth for `share` of its length, then skin."""
    covered = round(LIMB[0] * min(share, 1.0))
    if covered <= 0:
        return color_image(skin)
    cover = color_image(skin, *LIMB)
    cover[:covered] = cloth[:covered]
    return cover
