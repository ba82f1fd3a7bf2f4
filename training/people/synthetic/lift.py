"""Guess a body in space from the joints that MPII marks in an image.

The labelled joints stay where they are. What a photograph does not say is guessed the human way: which way the person
faces from the order of shoulders and hips and from the bend of knees and elbows, depth from how much shorter a limb
looks than it is, and joints that are not labelled (mostly outside the image) from a relaxed body.
"""

from __future__ import annotations

import numpy as np

from fasthg.pixels.skeleton import MPII
from training.people.synthetic.raster import TOWARD_VIEWER
from training.people.synthetic.skeleton import (
    ARMS,
    HEAD,
    HEAD_DIAGONAL,
    HEAD_RADII,
    LEGS,
    LHIP,
    LSHO,
    NECK,
    NECK_TO_TOP,
    PELV,
    RHIP,
    RSHO,
    THOR,
    Figure,
    Proportions,
)


def lift(rng: np.random.Generator, joints: np.ndarray, visible: np.ndarray, unit: float, depth: float = 0.0) -> Figure:
    """A drawable figure from MPII joints.

    joints [J, 2] pixels, NaN where not labelled; visible bool [J]; `unit` is 200 * scale in pixels; `depth` puts the
    pelvis before or behind other people. Labelled joints keep their x and y exactly; upper neck and head top are the
    head's ends, as MPII defines them.
    """
    body = Proportions()
    flat, up = _complete_trunk(joints, unit, body)
    across = np.array([-up[1], up[0]])  # where the left is for somebody who faces the viewer
    turn = _turn(rng, flat, across, unit, body)
    upright = np.append(up, 0.0)
    sideways = np.append(across, 0.0)
    front = np.cos(turn) * TOWARD_VIEWER + np.sin(turn) * sideways
    left = np.cos(turn) * sideways - np.sin(turn) * TOWARD_VIEWER

    space = np.zeros((len(MPII), 3))
    space[:, :2] = flat
    forward = front[2] if abs(front[2]) > 0.25 else 0.0
    lean = _hidden_length(flat[THOR] - flat[PELV], body.torso * unit) * np.sign(forward) * 0.7
    space[[THOR, NECK, HEAD], 2] = lean
    for right_joint, left_joint, half in ((RSHO, LSHO, body.shoulder), (RHIP, LHIP, body.hip)):
        base = lean if right_joint == RSHO else 0.0
        space[[right_joint, left_joint], 2] = base + np.array([-1, 1]) * half * unit * left[2]
    for limbs, lengths, ways in (
        (ARMS, (body.upper_arm, body.forearm), (0.5, 1.0)),
        (LEGS, (body.thigh, body.shin), (1.0, -0.7)),
    ):
        for limb in limbs:
            _hang_limb(space, limb, np.array(lengths) * unit, ways, upright, front, visible)
    space[:, 2] += depth
    return _finish(rng, space, front, upright, unit, body)


def _complete_trunk(joints: np.ndarray, unit: float, body: Proportions) -> tuple[np.ndarray, np.ndarray]:
    """The joints with the missing ones of trunk and head filled in, and the trunk's direction [2] in the image."""
    flat = joints.copy()

    def known(*indices: int) -> bool:
        return not np.isnan(flat[list(indices)]).any()

    for middle, right, left in ((THOR, RSHO, LSHO), (PELV, RHIP, LHIP)):
        if not known(middle) and known(right, left):
            flat[middle] = (flat[right] + flat[left]) / 2
    chain = [index for index in (PELV, THOR, NECK, HEAD) if known(index)]
    up = flat[chain[-1]] - flat[chain[0]] if len(chain) > 1 else np.zeros(2)
    up = up / np.linalg.norm(up) if np.linalg.norm(up) > 0.02 * unit else np.array([0.0, -1.0])

    heights = {PELV: 0.0, THOR: body.torso, NECK: body.torso + body.neck, HEAD: body.torso + body.neck + 0.167}
    heights |= {RHIP: 0.0, LHIP: 0.0, RSHO: body.torso, LSHO: body.torso}
    order = (THOR, NECK, PELV, HEAD, RSHO, LSHO, RHIP, LHIP)
    anchor = next((index for index in order if known(index)), None)
    if anchor is None:  # nothing but limbs: stand the trunk on their middle
        anchor, flat[PELV] = PELV, np.nanmean(flat, axis=0)
    for index in (THOR, PELV, NECK, HEAD):
        if not known(index):
            flat[index] = flat[anchor] + (heights[index] - heights[anchor]) * unit * up
    across = np.array([-up[1], up[0]])
    for middle, right, left, half in ((THOR, RSHO, LSHO, body.shoulder), (PELV, RHIP, LHIP, body.hip)):
        if not known(right):
            flat[right] = 2 * flat[middle] - flat[left] if known(left) else flat[middle] - 0.8 * half * unit * across
        if not known(left):
            flat[left] = 2 * flat[middle] - flat[right]
    return flat, up


def _turn(rng: np.random.Generator, flat: np.ndarray, across: np.ndarray, unit: float, body: Proportions) -> float:
    """The angle between the trunk's front and the direction to the viewer, toward `across`, radians."""
    shoulders = (flat[LSHO] - flat[RSHO]) @ across / (2 * body.shoulder * unit)
    hips = (flat[LHIP] - flat[RHIP]) @ across / (2 * body.hip * unit)
    cos = float(np.clip(0.65 * shoulders + 0.35 * hips, -1, 1))
    ahead = 0.1 * (flat[[NECK, HEAD]].mean(axis=0) - flat[THOR]) @ across
    for hip, knee, ankle in LEGS:
        if not np.isnan(flat[[knee, ankle]]).any():
            ahead += (flat[knee] - (flat[hip] + flat[ankle]) / 2) @ across
    for shoulder, elbow, wrist in ARMS:
        if not np.isnan(flat[[elbow, wrist]]).any():
            ahead -= 0.7 * (flat[elbow] - (flat[shoulder] + flat[wrist]) / 2) @ across
            ahead += 0.2 * (flat[wrist] - flat[shoulder]) @ across
    sign = np.sign(ahead) if abs(ahead) > 0.01 * unit else rng.choice([-1.0, 1.0])
    return float(sign * np.arccos(cos))


def _hidden_length(seen: np.ndarray, length: float) -> float:
    """How far a limb of this length must reach along the view to look as short as it does."""
    return float(np.sqrt(max(length**2 - float(seen @ seen), 0.0)))


def _hang_limb(
    space: np.ndarray,
    limb: tuple[int, int, int],
    lengths: np.ndarray,
    ways: tuple[float, float],
    up: np.ndarray,
    front: np.ndarray,
    visible: np.ndarray,
) -> None:
    """Fill in a limb's missing joints and all its depths, from the trunk outward.

    `ways` says how far each segment tends to the front (1) or the back (-1); a segment in the plane of the image, or of
    a person seen from the side, is led by visibility: what is hidden lies behind.
    """
    for start, end, length, way in zip(limb[:-1], limb[1:], lengths, ways):
        if np.isnan(space[end, :2]).any():
            space[end] = space[start] - length * up
            continue
        hidden = _hidden_length(space[end, :2] - space[start, :2], length)
        toward = way * front[2]
        if not visible[end]:
            toward += 0.6
        space[end, 2] = space[start, 2] + hidden * np.sign(toward) * min(1.0, abs(toward) + 0.2)


def _finish(
    rng: np.random.Generator, space: np.ndarray, front: np.ndarray, upright: np.ndarray, unit: float, body: Proportions
) -> Figure:
    """Hands, feet and a head on the lifted joints."""
    hands, toes = np.zeros((2, 3)), np.zeros((2, 3))
    for side, (_, elbow, wrist) in enumerate(ARMS):
        hands[side] = space[wrist] + body.hand * unit * _unit(space[wrist] - space[elbow], -upright)
    for side, (_, knee, ankle) in enumerate(LEGS):
        shin = _unit(space[ankle] - space[knee], -upright)
        ahead = _unit(front - (front @ shin) * shin, front)
        toes[side] = space[ankle] + unit * (body.foot * ahead + 0.035 * shin)

    axis = space[HEAD] - space[NECK]
    up = _unit(axis, upright)
    looking = front + rng.normal(0, 0.3) * np.cross(upright, front)
    facing = _unit(looking - (looking @ up) * up, TOWARD_VIEWER - (TOWARD_VIEWER @ up) * up)
    rotation = np.stack([np.cross(up, facing), up, facing], axis=1)
    size = float(np.clip(np.linalg.norm(axis[:2]) / (NECK_TO_TOP * HEAD_DIAGONAL * unit), 0.8, 1.25))
    return Figure(
        joints=space,
        hands=hands,
        toes=toes,
        head_centre=(space[HEAD] + space[NECK]) / 2,
        head_rotation=rotation,
        chest_front=front,
        pelvis_front=front,
        unit=unit,
        head_radii=HEAD_RADII * unit * size,
    )


def _unit(vector: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vector)
    return vector / length if length > 1e-6 else otherwise / max(np.linalg.norm(otherwise), 1e-6)
