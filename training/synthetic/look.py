"""How a person looks: skin, hair, face, clothes. Everything that tells front from back and left from right is here."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

Color = tuple[int, int, int]

_SKIN: tuple[Color, ...] = (
    (244, 208, 177),
    (231, 184, 143),
    (210, 158, 115),
    (172, 116, 75),
    (124, 78, 48),
    (84, 53, 36),
)
_HAIR: tuple[Color, ...] = (
    (25, 20, 18),
    (52, 34, 22),
    (92, 58, 32),
    (150, 104, 58),
    (205, 168, 104),
    (140, 138, 136),
    (110, 40, 22),
)
_WIDTH, _HEIGHT = 96, 64  # texture of a trunk or head: once around, and top to bottom
_LIMB = (48, 32)  # texture of a limb: height, width


@dataclass(frozen=True)
class Look:
    """Textures (uint8 RGB; the middle column is the front, the right half the person's left) and build."""

    skin: Color
    head: np.ndarray
    hair: Color
    long_hair: bool
    cap: Color | None
    shirt: np.ndarray
    trousers: np.ndarray
    upper_arms: tuple[np.ndarray, np.ndarray]  # right, left
    forearms: tuple[np.ndarray, np.ndarray]
    thighs: tuple[np.ndarray, np.ndarray]
    shins: tuple[np.ndarray, np.ndarray]
    shoes: np.ndarray
    backpack: Color | None
    width: float  # of limbs and trunk, 1 is average


def color_image(color: Color, height: int = 2, width: int = 2) -> np.ndarray:
    return np.full((height, width, 3), color, np.uint8)


def fabric_color(rng: np.random.Generator) -> Color:
    """A dye: any hue, from black over saturated to white."""
    hue = rng.integers(180)
    saturation = int(np.clip(rng.beta(1.1, 1.3) * 255, 0, 255))
    value = int(np.clip(rng.uniform(35, 250), 0, 255))
    pixel = cv2.cvtColor(np.array([[[hue, saturation, value]]], np.uint8), cv2.COLOR_HSV2RGB)[0, 0]
    return int(pixel[0]), int(pixel[1]), int(pixel[2])


def darker(color: Color, factor: float) -> Color:
    red, green, blue = (min(int(channel * factor), 255) for channel in color)
    return red, green, blue


def fabric(rng: np.random.Generator, color: Color, height: int, width: int) -> np.ndarray:
    """Cloth of one pattern: plain, stripes along or around, plaid, dots or blotches; always with a little grain."""
    cloth = color_image(color, height, width)
    second = fabric_color(rng)
    pattern = rng.random()
    period, offset = int(rng.integers(5, 14)), int(rng.integers(14))
    rows = (np.arange(height) + offset) % period < period // 2
    columns = (np.arange(width) + offset) % period < period // 2
    if pattern < 0.45:
        pass
    elif pattern < 0.60:
        cloth[rows] = second
    elif pattern < 0.68:
        cloth[:, columns] = second
    elif pattern < 0.78:
        mixed = (0.25 * rows[:, None] + 0.25 * columns[None, :])[..., None]
        cloth = (cloth * (1 - mixed) + np.array(second) * mixed).astype(np.uint8)
    elif pattern < 0.86:
        cloth[np.logical_and.outer(rows, columns)] = second
    else:
        blotches = cv2.resize(rng.random((5, 7), dtype=np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        cloth[blotches > 0.62] = second
    grain = rng.integers(-9, 10, (height, width, 1))
    return np.clip(cloth + grain, 0, 255).astype(np.uint8)


def _shirt(rng: np.random.Generator, color: Color, skin: Color) -> np.ndarray:
    """A shirt: neckline and buttons, print or zip in front, a breast pocket on its left, a plain or lettered back."""
    shirt = fabric(rng, color, _HEIGHT, _WIDTH)
    middle, contrast = (
        _WIDTH // 2,
        darker(color, 0.35) if sum(color) > 330 else darker(color, 1.6 + 60 / (sum(color) + 1)),
    )
    neckline = int(rng.integers(5, 14))
    cv2.ellipse(shirt, (middle, 0), (int(rng.integers(7, 11)), neckline), 0, 0, 360, skin, -1)
    kind = rng.random()
    if kind < 0.45:
        cv2.line(shirt, (middle, neckline), (middle, _HEIGHT), contrast, 1)
        for row in range(neckline + 4, _HEIGHT - 4, 8):
            cv2.circle(shirt, (middle + 2, row), 1, (240, 240, 235), -1)
    elif kind < 0.85:
        print_color = fabric_color(rng)
        size = (int(rng.integers(6, 13)), int(rng.integers(5, 11)))
        cv2.ellipse(shirt, (middle, 26), size, 0, 0, 360, print_color, -1)
        cv2.putText(shirt, chr(int(rng.integers(65, 91))), (middle - 5, 31), cv2.FONT_HERSHEY_SIMPLEX, 0.5, contrast, 1)
    else:  # open jacket over something light
        cv2.rectangle(shirt, (middle - 5, neckline), (middle + 5, _HEIGHT), (235, 232, 228), -1)
    if rng.random() < 0.6:
        cv2.rectangle(shirt, (middle + 10, 18), (middle + 17, 26), contrast, 1)
    if rng.random() < 0.25:
        cv2.putText(shirt, str(rng.integers(10)), (0, 36), cv2.FONT_HERSHEY_SIMPLEX, 0.7, contrast, 2)
    return shirt


def _trousers(rng: np.random.Generator, color: Color) -> np.ndarray:
    """The seat: belt and fly in front, two pockets at the back."""
    seat = fabric(rng, color, 24, _WIDTH)
    dark = darker(color, 0.55)
    cv2.rectangle(seat, (0, 0), (_WIDTH, 3), darker(fabric_color(rng), 0.5), -1)
    cv2.rectangle(seat, (_WIDTH // 2 - 3, 0), (_WIDTH // 2 + 3, 3), (205, 190, 120), -1)
    cv2.line(seat, (_WIDTH // 2, 4), (_WIDTH // 2, 20), dark, 1)
    for column in (5, _WIDTH - 15):
        cv2.rectangle(seat, (column, 8), (column + 10, 18), dark, 1)
    return seat


def _face(rng: np.random.Generator, skin: Color, hair: Color) -> np.ndarray:
    """Longitude by latitude: a face in the middle, hair above, at the sides and behind, ears between."""
    head = color_image(skin, _HEIGHT, _WIDTH)
    middle = _WIDTH // 2
    if rng.random() < 0.93:
        front, side, back = rng.integers(15, 20), rng.integers(26, 34), rng.integers(40, 54)
        line = np.array(
            [(0, back), (14, back), (22, side), (31, side - 2), (35, front), (middle, front - rng.integers(0, 4))],
            np.int32,
        )
        mirrored = np.stack([_WIDTH - line[::-1, 0], line[::-1, 1]], axis=1)
        outline = np.concatenate([[(0, 0)], line, mirrored, [(_WIDTH, 0)]]).astype(np.int32)
        cv2.fillPoly(head, [outline], hair)
    for side in (-1, 1):
        eye = (middle + side * 7, 29)
        cv2.ellipse(head, eye, (4, 2), 0, 0, 360, (245, 243, 240), -1)
        cv2.circle(head, eye, 2, (40, 28, 22), -1)
        cv2.line(head, (eye[0] - 4, 25), (eye[0] + 4, 25), darker(hair, 0.7), 2)
        cv2.ellipse(head, (middle + side * 24, 33), (3, 5), 0, 0, 360, darker(skin, 0.72), -1)
    cv2.line(head, (middle, 31), (middle, 37), darker(skin, 0.78), 2)
    if rng.random() < 0.18:
        cv2.ellipse(head, (middle, 48), (13, 9), 0, 0, 360, darker(hair, 0.9), -1)
    cv2.ellipse(head, (middle, 43), (6, 2), 0, 0, 360, (165, 62, 62), -1)
    if rng.random() < 0.15:
        for side in (-1, 1):
            cv2.circle(head, (middle + side * 7, 29), 5, (20, 20, 24), -1 if rng.random() < 0.5 else 1)
        cv2.line(head, (middle - 24, 28), (middle + 24, 28), (20, 20, 24), 1)
    return head


def _sleeve(cloth: np.ndarray | None, skin: Color, share: float) -> np.ndarray:
    """A limb from its upper end: cloth for `share` of its length, then skin."""
    height, width = _LIMB
    limb = color_image(skin, height, width)
    covered = round(height * share)
    if cloth is not None and covered > 0:
        limb[:covered] = cv2.resize(cloth, (width, height), interpolation=cv2.INTER_AREA)[:covered]
    return limb


def sample_skin(rng: np.random.Generator) -> Color:
    return darker(_SKIN[rng.integers(len(_SKIN))], rng.uniform(0.88, 1.06))


def sample_look(rng: np.random.Generator) -> Look:
    """A person's appearance, drawn independently of the pose."""
    skin = sample_skin(rng)
    hair = darker(_HAIR[rng.integers(len(_HAIR))], rng.uniform(0.8, 1.2))
    shirt_color, trouser_color = fabric_color(rng), fabric_color(rng)
    sleeves = fabric(rng, shirt_color if rng.random() < 0.8 else fabric_color(rng), *_LIMB)
    legs = fabric(rng, trouser_color, *_LIMB) if rng.random() < 0.35 else color_image(trouser_color, *_LIMB)
    cv2.line(legs, (0, 0), (0, _LIMB[0]), darker(trouser_color, 0.7), 2)
    sleeve = rng.choice([0.0, 0.55, 1.0, 2.0], p=[0.15, 0.4, 0.1, 0.35])
    leg = rng.choice([0.35, 0.8, 1.4, 2.0], p=[0.12, 0.2, 0.08, 0.6])
    forearms = [_sleeve(sleeves, skin, min(max(sleeve - 1, 0), 0.92)) for _ in range(2)]
    if rng.random() < 0.4:  # a watch is worn on the left
        forearms[1][-8:-3] = (30, 30, 34)
    upper, thigh, shin = (
        _sleeve(sleeves, skin, min(sleeve, 1)),
        _sleeve(legs, skin, min(leg, 1)),
        _sleeve(legs, skin, max(leg - 1, 0)),
    )
    return Look(
        skin=skin,
        head=_face(rng, skin, hair),
        hair=hair,
        long_hair=bool(rng.random() < 0.35),
        cap=fabric_color(rng) if rng.random() < 0.15 else None,
        shirt=_shirt(rng, shirt_color, skin),
        trousers=_trousers(rng, trouser_color),
        upper_arms=(upper, upper),
        forearms=(forearms[0], forearms[1]),
        thighs=(thigh, thigh),
        shins=(shin, shin),
        shoes=color_image(darker(fabric_color(rng), rng.uniform(0.3, 1))),
        backpack=fabric_color(rng) if rng.random() < 0.08 else None,
        width=float(np.clip(rng.normal(1.0, 0.12), 0.75, 1.4)),
    )
