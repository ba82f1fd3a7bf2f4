"""A `Figure` and a `Look` become solids: trunk, limbs, head with hair, nose and ears, hands and feet."""

from __future__ import annotations

import numpy as np

from training.people.synthetic.cloth import color_image, shade
from training.people.synthetic.look import Look
from training.people.synthetic.raster import Canvas, Ellipsoid, Light, Tube, draw
from training.people.synthetic.skeleton import ARMS, LEGS, LHIP, LSHO, NECK, PELV, RHIP, RSHO, THOR, Figure

# Half widths from the lower end to the upper, in units of 200 * scale; the nose's in half widths of the head.
_CHEST = (0.088, 0.086, 0.084, 0.090, 0.098, 0.104, 0.106, 0.104, 0.092)
_SEAT = (0.086, 0.090)
_SHOULDERS = (0.042, 0.042)
_HIPS = (0.066, 0.066)
_NECK = (0.038, 0.034)
_UPPER_ARM = (0.030, 0.037, 0.043)
_FOREARM = (0.021, 0.031, 0.030)
_HAND = (0.017, 0.027, 0.020)
_THIGH = (0.046, 0.056, 0.066)
_SHIN = (0.027, 0.044, 0.043)
_FOOT = (0.026, 0.030)
_NOSE = (0.20, 0.10)
_DIMMING = 0.9  # share of the light that is lost in a unit of depth


def solids(figure: Figure, look: Look) -> list[Tube | Ellipsoid]:
    """All solids of one person, in no order."""
    return [*_trunk(figure, look), *_arms(figure, look), *_legs(figure, look), *_head(figure, look)]


def draw_person(canvas: Canvas, figure: Figure, look: Look, light: Light, owner: int) -> None:
    """Draw a person into the depth buffer, far solids first so that edges blend with what is behind them.

    What lies behind the trunk is a little darker: bodies shade their far side, and it tells the far arm from the near.
    """
    trunk = (figure.joints[THOR, 2] + figure.joints[PELV, 2]) / 2
    for solid in sorted(solids(figure, look), key=lambda solid: -solid.depth):
        dimmed = float(np.clip(1 - _DIMMING * (solid.depth - trunk) / figure.unit, 0.75, 1.1))
        draw(canvas, solid, Light(light.direction, light.ambient * dimmed, light.diffuse * dimmed), owner)


def _trunk(figure: Figure, look: Look) -> list[Tube | Ellipsoid]:
    joints, width = figure.joints, figure.unit * look.width
    up = joints[THOR] - joints[PELV]
    across = joints[LSHO] - joints[RSHO]
    chest_front, pelvis_front = figure.chest_front, figure.pelvis_front
    front = chest_front + pelvis_front
    shirt, trousers = color_image(look.shirt_color), color_image(look.trouser_color)
    skin = color_image(shade(look.skin, 0.9))
    parts: list[Tube | Ellipsoid] = [
        Tube(joints[PELV] - 0.04 * up, joints[PELV] + 0.97 * up, width, _CHEST, front, look.shirt, 0.66, cap=3),
        Tube(joints[PELV] - 0.16 * up, joints[PELV] + 0.10 * up, width, _SEAT, pelvis_front, look.seat, 0.74, cap=2.5),
        Tube(joints[RSHO] + 0.1 * across, joints[LSHO] - 0.1 * across, width, _SHOULDERS, chest_front, shirt),
        Tube(joints[RHIP], joints[LHIP], width, _HIPS, pelvis_front, trousers),
        Tube(joints[THOR] - 0.05 * up, joints[NECK], figure.unit, _NECK, chest_front, skin),
    ]
    if look.backpack is not None:
        chest_left = np.cross(up, figure.chest_front)
        rotation = np.stack(
            [chest_left / np.linalg.norm(chest_left), up / np.linalg.norm(up), figure.chest_front], axis=1
        )
        centre = joints[PELV] + 0.6 * up - 0.085 * width * figure.chest_front
        parts.append(Ellipsoid(centre, rotation, width * np.array([0.085, 0.13, 0.06]), color_image(look.backpack)))
    return parts


def _arms(figure: Figure, look: Look) -> list[Tube | Ellipsoid]:
    joints, front, width = figure.joints, figure.chest_front, figure.unit * look.width
    parts: list[Tube | Ellipsoid] = []
    skin = color_image(look.skin)
    for side, (shoulder, elbow, wrist) in enumerate(ARMS):
        parts += [
            Tube(joints[elbow], joints[shoulder], width, _UPPER_ARM, front, look.upper_arm),
            Tube(joints[wrist], joints[elbow], width, _FOREARM, front, look.forearms[side]),
            Tube(figure.hands[side], joints[wrist], width, _HAND, front, skin, flatness=0.7),
        ]
    return parts


def _legs(figure: Figure, look: Look) -> list[Tube | Ellipsoid]:
    joints, front, width = figure.joints, figure.pelvis_front, figure.unit * look.width
    parts: list[Tube | Ellipsoid] = []
    shoes = color_image(look.shoes)
    for side, (hip, knee, ankle) in enumerate(LEGS):
        heel = joints[ankle] + 0.16 * (joints[ankle] - joints[knee])
        parts += [
            Tube(joints[knee], joints[hip], width, _THIGH, front, look.thigh),
            Tube(joints[ankle], joints[knee], width, _SHIN, front, look.shin),
            Tube(figure.toes[side], heel, width, _FOOT, front, shoes),
        ]
    return parts


def _head(figure: Figure, look: Look) -> list[Tube | Ellipsoid]:
    centre, turn, radii = figure.head_centre, figure.head_rotation, figure.head_radii
    left, up, front = (turn * radii).T
    skin, hair = color_image(shade(look.skin, 0.93)), color_image(look.hair)
    parts: list[Tube | Ellipsoid] = [
        Ellipsoid(centre, turn, radii, look.head),
        Tube(centre + 0.95 * front - 0.32 * up, centre + 0.93 * front + 0.1 * up, radii[0], _NOSE, turn[:, 2], skin),
    ]
    parts += [
        Ellipsoid(centre + side * 0.97 * left - 0.05 * up, turn, radii * (0.13, 0.24, 0.16), skin) for side in (-1, 1)
    ]
    if look.long_hair:
        parts.append(Ellipsoid(centre - 0.34 * front - 0.25 * up, turn, radii * (1.06, 1.12, 0.86), hair))
    if look.cap is not None:
        cloth = color_image(look.cap)
        parts.append(Ellipsoid(centre + 0.34 * up - 0.05 * front, turn, radii * (1.06, 0.74, 1.06), cloth))
        parts.append(Ellipsoid(centre + 0.45 * up + 0.95 * front, turn, radii * (0.8, 0.08, 0.7), cloth))
    return parts
