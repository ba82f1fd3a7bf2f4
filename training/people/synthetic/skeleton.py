"""The skeleton in space: body proportions, forward kinematics, and the camera that makes a `Figure` of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from fasthg.pixels.skeleton import MPII

(RANK, RKNE, RHIP, LHIP, LKNE, LANK, PELV, THOR, NECK, HEAD, RWRI, RELB, RSHO, LSHO, LELB, LWRI) = range(len(MPII))
ARMS = ((RSHO, RELB, RWRI), (LSHO, LELB, LWRI))
LEGS = ((RHIP, RKNE, RANK), (LHIP, LKNE, LANK))

# A head box's diagonal is this share of the unit (200 * scale), and MPII's neck and head-top points lie 0.8 diagonals
# apart around the box's centre; both hold exactly on all of MPII's annotations.
HEAD_DIAGONAL = 1 / 4.8
NECK_TO_TOP = 0.8
HEAD_RADII = np.array([0.0635, 0.0833, 0.0740])  # left, up, front: a box as wide as 0.76 of its height, like MPII's

FACING_VIEWER = np.diag([1.0, -1.0, -1.0])  # body axes (left, up, front) of a person who faces the camera


@dataclass(frozen=True)
class Proportions:
    """Lengths in units of 200 * scale; the defaults are MPII's, read off the upper percentiles of projected lengths."""

    thigh: float = 0.275
    shin: float = 0.262
    foot: float = 0.095
    upper_arm: float = 0.180
    forearm: float = 0.158
    hand: float = 0.075
    torso: float = 0.325
    shoulder: float = 0.115  # half the distance between the shoulders
    hip: float = 0.066  # half the distance between the hips
    neck: float = 0.045  # thorax to chin

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Proportions:
        """A person: all limbs longer or shorter together, and each a little for itself."""
        build = rng.normal(1, 0.04)
        return cls(**{name: value * build * rng.normal(1, 0.025) for name, value in vars(cls()).items()})


@dataclass(frozen=True)
class Angles:
    """Joint angles in radians; sides are [right, left]. All zero: standing upright, arms hanging, facing front."""

    root: np.ndarray  # [3] yaw, lean forward, roll
    spine: np.ndarray  # [3] twist, bend forward, bend sideways
    head: np.ndarray  # [3] turn, nod, tilt
    shoulder: np.ndarray  # [2, 3] raise forward, raise sideways, twist
    elbow: np.ndarray  # [2]
    hip: np.ndarray  # [2, 3]
    knee: np.ndarray  # [2]
    ankle: np.ndarray  # [2] toes pointed down


@dataclass(frozen=True)
class Figure:
    """A person in image coordinates, ready to be drawn: pixels (corner origin) and depth in pixels, away from us."""

    joints: np.ndarray  # [J, 3]; upper neck and head top as MPII defines them
    hands: np.ndarray  # [2, 3] finger tips, right and left
    toes: np.ndarray  # [2, 3]
    head_centre: np.ndarray  # [3]
    head_rotation: np.ndarray  # [3, 3], columns left, up, front
    chest_front: np.ndarray  # [3] unit
    pelvis_front: np.ndarray  # [3] unit
    unit: float  # pixels per unit of 200 * scale
    head_radii: np.ndarray  # [3] pixels

    def head_box(self) -> np.ndarray:
        """x1, y1, x2, y2 of the projected head."""
        half = np.sqrt(((self.head_rotation[:2] * self.head_radii) ** 2).sum(axis=1))
        return np.concatenate([self.head_centre[:2] - half, self.head_centre[:2] + half])

    def moved(self, offset: np.ndarray) -> Figure:
        """The figure shifted by `offset` [3]."""
        shifted = {name: getattr(self, name) + offset for name in ("joints", "hands", "toes", "head_centre")}
        return replace(self, **shifted)


def rotation(axis: int, angle: float) -> np.ndarray:
    """[3, 3] rotation by `angle` radians about axis 0, 1 or 2, right-handed."""
    cos, sin = math.cos(angle), math.sin(angle)
    if axis == 0:
        return np.array(((1.0, 0.0, 0.0), (0.0, cos, -sin), (0.0, sin, cos)))
    if axis == 1:
        return np.array(((cos, 0.0, sin), (0.0, 1.0, 0.0), (-sin, 0.0, cos)))
    return np.array(((cos, -sin, 0.0), (sin, cos, 0.0), (0.0, 0.0, 1.0)))


def _limb_rotation(angles: np.ndarray, side: int) -> np.ndarray:
    """Raise forward, then sideways, after a twist about the limb; `side` is -1 right, +1 left."""
    return rotation(2, side * angles[1]) @ rotation(0, -angles[0]) @ rotation(1, side * angles[2])


DOWN = np.array([0.0, -1.0, 0.0])


def pose(angles: Angles, body: Proportions) -> Figure:
    """Forward kinematics in the body's own space: pelvis at the origin, facing the viewer at yaw 0, unit 1."""
    yaw, lean, roll = angles.root
    pelvis = FACING_VIEWER @ rotation(2, roll) @ rotation(1, yaw) @ rotation(0, lean)
    twist, bend, sideways = angles.spine
    chest = pelvis @ rotation(1, twist) @ rotation(2, sideways) @ rotation(0, bend)
    turn, nod, tilt = angles.head
    head = chest @ rotation(1, turn) @ rotation(0, nod) @ rotation(2, tilt)

    joints = np.zeros((len(MPII), 3))
    thorax = body.torso * (pelvis[:, 1] + chest[:, 1]) / np.linalg.norm(pelvis[:, 1] + chest[:, 1])
    centre = thorax + body.neck * chest[:, 1] + HEAD_RADII[1] * head[:, 1] + 0.015 * head[:, 2]
    joints[THOR] = thorax
    hands, toes = np.zeros((2, 3)), np.zeros((2, 3))
    for index, side in enumerate((-1, 1)):
        (shoulder, elbow, wrist), (hip, knee, ankle) = ARMS[index], LEGS[index]
        upper = chest @ _limb_rotation(angles.shoulder[index], side)
        fore = upper @ rotation(0, -angles.elbow[index])
        joints[shoulder] = thorax + chest @ np.array([side * body.shoulder, -0.005, 0.0])
        joints[elbow] = joints[shoulder] + body.upper_arm * (upper @ DOWN)
        joints[wrist] = joints[elbow] + body.forearm * (fore @ DOWN)
        hands[index] = joints[wrist] + body.hand * (fore @ DOWN)
        thigh = pelvis @ _limb_rotation(angles.hip[index], side)
        shin = thigh @ rotation(0, angles.knee[index])
        foot = shin @ rotation(0, angles.ankle[index])
        joints[hip] = pelvis @ np.array([side * body.hip, 0.0, 0.0])
        joints[knee] = joints[hip] + body.thigh * (thigh @ DOWN)
        joints[ankle] = joints[knee] + body.shin * (shin @ DOWN)
        toes[index] = joints[ankle] + foot @ np.array([side * 0.015, -0.035, body.foot])
    figure = Figure(joints, hands, toes, centre, head, chest[:, 2], pelvis[:, 2], 1.0, HEAD_RADII)
    return _with_mpii_head(figure)


def _with_mpii_head(figure: Figure) -> Figure:
    """Set upper neck and head top as MPII does: on the head's axis, 0.8 box diagonals apart around the box's centre."""
    box = figure.head_box()
    diagonal = np.hypot(*(box[2:] - box[:2]))
    up = figure.head_rotation[:, 1]
    flat = np.hypot(*up[:2])
    half = NECK_TO_TOP / 2 * diagonal * np.append(up[:2] / flat if flat > 1e-6 else (0.0, -1.0), 0.0)
    depth = np.array([0.0, 0.0, up[2] * figure.head_radii[1]])
    joints = figure.joints.copy()
    joints[HEAD] = figure.head_centre + half + depth
    joints[NECK] = figure.head_centre - half - depth
    return replace(figure, joints=joints)


def project(figure: Figure, unit: float, distance: float, tilt: float) -> Figure:
    """Look at a body-space figure through a camera: the pelvis lands at 0, 0, 0, `unit` pixels are one unit there.

    `distance` of the camera in units; `tilt` of the camera downward, radians. Widths of limbs follow `unit`, positions
    and the head follow the perspective.
    """
    turn = rotation(0, -tilt)

    def see(points: np.ndarray) -> np.ndarray:
        seen = points @ turn.T
        nearness = distance / (distance + seen[..., 2:])
        return unit * np.concatenate([seen[..., :2] * nearness, seen[..., 2:]], axis=-1)

    head_nearness = distance / (distance + float((turn @ figure.head_centre)[2]))
    return _with_mpii_head(
        Figure(
            joints=see(figure.joints),
            hands=see(figure.hands),
            toes=see(figure.toes),
            head_centre=see(figure.head_centre),
            head_rotation=turn @ figure.head_rotation,
            chest_front=turn @ figure.chest_front,
            pelvis_front=turn @ figure.pelvis_front,
            unit=unit,
            head_radii=figure.head_radii * unit * head_nearness,
        )
    )
