"""How a person looks: skin, hair, face, clothes. Everything that tells front from back and left from right is here."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from training.people.synthetic.cloth import (
    AROUND,
    LIMB,
    TRUNK_HEIGHT,
    Color,
    color_image,
    fabric,
    fabric_color,
    limb,
    sample_skin,
    seat,
    shade,
    shirt,
)

_HAIR: tuple[Color, ...] = (
    (25, 20, 18), (52, 34, 22), (92, 58, 32), (150, 104, 58), (205, 168, 104), (140, 138, 136), (110, 40, 22)
)  # fmt: skip


@dataclass(frozen=True)
class Look:
    """Textures (uint8 RGB; the middle column is the front, the right half the person's left) and build."""

    skin: Color
    head: np.ndarray
    hair: Color
    long_hair: bool
    cap: Color | None
    shirt: np.ndarray
    shirt_color: Color
    seat: np.ndarray
    trouser_color: Color
    upper_arm: np.ndarray
    forearms: tuple[np.ndarray, np.ndarray]  # right, left
    thigh: np.ndarray
    shin: np.ndarray
    shoes: Color
    backpack: Color | None
    width: float  # of limbs and trunk, 1 is average


def sample_look(rng: np.random.Generator) -> Look:
    """A person's appearance, drawn independently of the pose."""
    skin = sample_skin(rng)
    hair = shade(_HAIR[rng.integers(len(_HAIR))], rng.uniform(0.8, 1.2))
    shirt_color, trouser_color = fabric_color(rng), fabric_color(rng)
    sleeves = fabric(rng, shirt_color if rng.random() < 0.8 else fabric_color(rng), *LIMB)
    trousers = fabric(rng, trouser_color, *LIMB) if rng.random() < 0.4 else color_image(trouser_color, *LIMB)
    cv2.line(trousers, (0, 0), (0, LIMB[0]), shade(trouser_color, 0.7), 2)
    sleeve = rng.choice([0.0, 0.55, 1.0, 1.92], p=[0.15, 0.4, 0.1, 0.35])  # arms' and legs' segments that are covered
    leg = rng.choice([0.35, 0.8, 1.4, 2.0], p=[0.12, 0.2, 0.08, 0.6])
    right_forearm, left_forearm = (limb(sleeves, skin, sleeve - 1) for _ in range(2))
    if rng.random() < 0.4:  # a watch is worn on the left
        left_forearm = cv2.resize(left_forearm, LIMB[::-1], interpolation=cv2.INTER_NEAREST)
        left_forearm[-8:-3] = (30, 30, 34)
    return Look(
        skin=skin,
        head=_face(rng, skin, hair),
        hair=hair,
        long_hair=bool(rng.random() < 0.35),
        cap=fabric_color(rng) if rng.random() < 0.15 else None,
        shirt=shirt(rng, shirt_color, skin),
        shirt_color=shirt_color,
        seat=seat(rng, trousers, trouser_color),
        trouser_color=trouser_color,
        upper_arm=limb(sleeves, skin, sleeve),
        forearms=(right_forearm, left_forearm),
        thigh=limb(trousers, skin, leg),
        shin=limb(trousers, skin, leg - 1),
        shoes=shade(fabric_color(rng), rng.uniform(0.3, 1)),
        backpack=fabric_color(rng) if rng.random() < 0.08 else None,
        width=float(np.clip(rng.normal(1.0, 0.12), 0.75, 1.4)),
    )


def _face(rng: np.random.Generator, skin: Color, hair: Color) -> np.ndarray:
    """Longitude by latitude: a face in the middle, hair above, at the sides and behind, ears between."""
    head = color_image(skin, TRUNK_HEIGHT, AROUND)
    middle = AROUND // 2
    if rng.random() < 0.93:
        front, ear, back = rng.integers((15, 26, 40), (20, 34, 54))
        line = np.array(
            [(0, back), (14, back), (22, ear), (31, ear - 2), (35, front), (middle, front - rng.integers(0, 4))],
            np.int32,
        )
        mirrored = np.stack([AROUND - line[::-1, 0], line[::-1, 1]], axis=1)
        outline = np.concatenate([[(0, 0)], line, mirrored, [(AROUND, 0)]]).astype(np.int32)
        cv2.fillPoly(head, [outline], hair)
    for side in (-1, 1):
        eye = (middle + side * 7, 29)
        cv2.ellipse(head, eye, (4, 2), 0, 0, 360, (245, 243, 240), -1)
        cv2.circle(head, eye, 2, (40, 28, 22), -1)
        cv2.line(head, (eye[0] - 4, 25), (eye[0] + 4, 25), shade(hair, 0.7), 2)
        cv2.ellipse(head, (middle + side * 24, 33), (3, 5), 0, 0, 360, shade(skin, 0.72), -1)
    cv2.line(head, (middle, 31), (middle, 37), shade(skin, 0.78), 2)
    if rng.random() < 0.18:
        cv2.ellipse(head, (middle, 48), (13, 9), 0, 0, 360, shade(hair, 0.9), -1)
    cv2.ellipse(head, (middle, 43), (6, 2), 0, 0, 360, (165, 62, 62), -1)
    if rng.random() < 0.15:
        for side in (-1, 1):
            cv2.circle(head, (middle + side * 7, 29), 5, (20, 20, 24), -1 if rng.random() < 0.5 else 1)
        cv2.line(head, (middle - 24, 28), (middle + 24, 28), (20, 20, 24), 1)
    return head
