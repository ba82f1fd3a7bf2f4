"""What people do: families of joint angles within human limits, and the one check that limbs do not enter the trunk."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from training.people.synthetic.skeleton import LELB, LWRI, PELV, RELB, RWRI, THOR, Angles, Figure, Proportions, pose

_TRIES = 5
_DEGREE = np.pi / 180

# Human limits, degrees: (lowest, highest) of each angle of a limb.
SHOULDER_LIMITS = np.array([(-45, 170), (-8, 165), (-60, 80)])
ELBOW_LIMITS = np.array((2, 140))
HIP_LIMITS = np.array([(-25, 115), (-8, 60), (-25, 45)])
KNEE_LIMITS = np.array((2, 135))


class _Draft:
    """Angles in degrees, filled in by a family; starts as relaxed standing."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.root = np.array([0.0, rng.normal(0, 4), rng.normal(0, 4)])
        self.spine = rng.normal(0, (9, 7, 5))
        self.head = rng.normal((0, 5, 0), (22, 9, 7))
        self.shoulder = np.stack([rng.normal((5, 10, 0), (14, 8, 15)) for _ in range(2)])
        self.elbow = np.abs(rng.normal(15, 16, 2))
        self.hip = np.stack([rng.normal((3, 6, 8), (6, 5, 8)) for _ in range(2)])
        self.knee = np.abs(rng.normal(4, 6, 2))
        self.ankle = rng.normal(0, 8, 2)

    def arm(
        self,
        side: int,
        raise_: tuple[float, float],
        out: tuple[float, float],
        elbow: tuple[float, float],
        twist: tuple[float, float] = (0, 20),
    ) -> None:
        """Set one arm; every pair is a mean and a standard deviation."""
        self.shoulder[side] = [self.rng.normal(*raise_), self.rng.normal(*out), self.rng.normal(*twist)]
        self.elbow[side] = self.rng.normal(*elbow)

    def bend_at_hips(self, angle: float) -> None:
        """Lean the trunk forward over legs that stay where they are."""
        self.root[1] += angle
        self.hip[:, 0] += angle

    def angles(self) -> Angles:
        clip = np.clip
        return Angles(
            root=self.root * _DEGREE,
            spine=clip(self.spine, (-40, -25, -25), (40, 60, 25)) * _DEGREE,
            head=clip(self.head, (-65, -35, -25), (65, 45, 25)) * _DEGREE,
            shoulder=clip(self.shoulder, SHOULDER_LIMITS[:, 0], SHOULDER_LIMITS[:, 1]) * _DEGREE,
            elbow=clip(self.elbow, *ELBOW_LIMITS) * _DEGREE,
            hip=clip(self.hip, HIP_LIMITS[:, 0], HIP_LIMITS[:, 1]) * _DEGREE,
            knee=clip(self.knee, *KNEE_LIMITS) * _DEGREE,
            ankle=clip(self.ankle, -25, 50) * _DEGREE,
        )


def _gesture(draft: _Draft, side: int) -> None:
    """One arm does something that arms do while their owner stands."""
    kind = draft.rng.integers(7)
    if kind == 0:  # waving or reaching up
        draft.arm(side, (30, 30), (135, 25), (40, 30))
    elif kind == 1:  # stretched sideways
        draft.arm(side, (10, 20), (85, 18), (20, 20))
    elif kind == 2:  # hand on the hip
        draft.arm(side, (-18, 8), (42, 8), (95, 12), (25, 12))
    elif kind == 3:  # reaching forward
        draft.arm(side, (75, 20), (10, 15), (30, 25))
    elif kind == 4:  # hand to the head
        draft.arm(side, (50, 25), (80, 25), (125, 12), (-20, 25))
    elif kind == 5:  # holding something before the body
        draft.arm(side, (30, 12), (8, 10), (85, 20), (-15, 20))
    else:  # behind the body
        draft.arm(side, (-28, 10), (12, 8), (40, 25))


def _standing(draft: _Draft) -> None:
    rng = draft.rng
    for arm in range(2):
        if rng.random() < 0.6:
            _gesture(draft, arm)
    if rng.random() < 0.25:  # weight on one leg
        side = int(rng.integers(2))
        draft.hip[side, 0] += rng.uniform(5, 25)
        draft.knee[side] += rng.uniform(10, 40)
    if rng.random() < 0.3:  # feet apart
        draft.hip[:, 1] += rng.uniform(5, 18)


def _walking(draft: _Draft) -> None:
    rng = draft.rng
    phase, stride = rng.uniform(0, 2 * np.pi), rng.uniform(14, 50)
    swing = np.sin(phase) * np.array([1, -1])
    draft.hip[:, 0] += stride * swing + stride * 0.25
    draft.knee[:] += np.clip(stride * (0.8 - 0.9 * swing) * rng.uniform(0.3, 1.5), 0, 100)
    draft.shoulder[:, 0] -= stride * swing * rng.uniform(0.6, 1.3)
    draft.elbow[:] += rng.uniform(0, 1.8) * stride
    draft.root[1] += rng.uniform(0, 0.3) * stride
    if rng.random() < 0.2:
        _gesture(draft, int(rng.integers(2)))


def _sitting(draft: _Draft) -> None:
    rng = draft.rng
    draft.hip[:, 0] = rng.normal(82, 12, 2)
    draft.hip[:, 1] = rng.uniform(2, 25) + rng.normal(0, 4, 2)
    draft.knee[:] = rng.normal(82, 18, 2)
    draft.root[1] += rng.normal(2, 8)
    for side in range(2):
        if rng.random() < 0.35:
            _gesture(draft, side)
        else:
            draft.arm(side, (32, 12), (8, 10), (55, 20), (-10, 15))


def _arms_up(draft: _Draft) -> None:
    rng = draft.rng
    if rng.random() < 0.5:
        for side in range(2):
            draft.arm(side, (20, 30), (rng.uniform(95, 155), 12), (35, 30))
    else:
        for side in range(2):
            draft.arm(side, (130, 20), (10, 15), (35, 25))
    if rng.random() < 0.4:
        draft.hip[:, 1] += rng.uniform(5, 25)


def _sporting(draft: _Draft) -> None:
    """A lunge, a kick, a swing: limbs far from rest, the trunk leaning."""
    rng = draft.rng
    draft.bend_at_hips(abs(rng.normal(0, 18)))
    draft.root[2] += rng.normal(0, 10)
    draft.spine += rng.normal(0, (16, 10, 8))
    for side in range(2):
        draft.arm(side, (45, 45), (55, 40), (55, 35), (0, 30))
        draft.hip[side] += rng.normal((22, 14, 5), (28, 14, 12))
        draft.knee[side] += abs(rng.normal(30, 35))


def _crouching(draft: _Draft) -> None:
    rng = draft.rng
    depth = rng.uniform(45, 110)
    draft.hip[:, 0] += depth + rng.normal(0, 8, 2)
    draft.hip[:, 1] += rng.uniform(4, 28)
    draft.knee[:] += depth * rng.uniform(0.9, 1.2) + rng.normal(0, 8, 2)
    draft.root[1] += depth * rng.uniform(0.1, 0.4)
    draft.hip[:, 0] += depth * 0.15
    for side in range(2):
        draft.arm(side, (60, 22), (14, 14), (40, 30))


def _bending(draft: _Draft) -> None:
    rng = draft.rng
    draft.bend_at_hips(rng.uniform(20, 65))
    draft.spine[1] += rng.uniform(0, 25)
    draft.knee[:] += rng.uniform(0, 30)
    draft.head[1] -= rng.uniform(0, 25)
    for side in range(2):
        draft.arm(side, (65, 25), (12, 14), (25, 25))


def _anything(draft: _Draft) -> None:
    """Each limb on its own, over most of its range."""
    rng = draft.rng
    for side in range(2):
        draft.shoulder[side] = rng.uniform((-30, 0, -40), (130, 140, 50))
        draft.elbow[side] = rng.uniform(5, 125)
        draft.hip[side] = rng.uniform((-15, -2, -10), (80, 35, 30))
        draft.knee[side] = rng.uniform(2, 100)
    draft.spine += rng.normal(0, (10, 10, 8))


FAMILIES: dict[Callable[[_Draft], None], float] = {
    _standing: 0.35,
    _walking: 0.23,
    _sitting: 0.07,
    _arms_up: 0.15,
    _sporting: 0.11,
    _crouching: 0.03,
    _bending: 0.02,
    _anything: 0.04,
}


def _yaw(rng: np.random.Generator) -> float:
    """Which way the person faces, degrees: mostly us, sometimes a side, sometimes away (MPII: 72 % show the front)."""
    view = rng.random()
    if view < 0.66:
        return rng.normal(0, 26)
    if view < 0.82:
        return rng.choice([-1, 1]) * rng.normal(75, 18)
    return 180 + rng.normal(0, 26)


def sample_angles(rng: np.random.Generator) -> Angles:
    """Joint angles of one person, every family by its share in `FAMILIES`."""
    draft = _Draft(rng)
    families, shares = list(FAMILIES), np.array(list(FAMILIES.values()))
    families[int(rng.choice(len(families), p=shares / shares.sum()))](draft)
    draft.root[0] = _yaw(rng)
    if rng.random() < 0.02:  # falling, lying, doing a cartwheel
        draft.root[2] += rng.uniform(-100, 100)
    return draft.angles()


def _limbs_enter_trunk(figure: Figure) -> bool:
    """Whether an elbow or wrist lies inside the chest (an ellipse around the line from pelvis to thorax)."""
    joints = figure.joints
    pelvis, thorax = joints[PELV], joints[THOR]
    up = (thorax - pelvis) / np.linalg.norm(thorax - pelvis)
    front = figure.chest_front - (figure.chest_front @ up) * up
    front /= np.linalg.norm(front)
    offsets = joints[[RELB, LELB, RWRI, LWRI]] - pelvis
    height = offsets @ up
    across, ahead = offsets @ np.cross(up, front), offsets @ front
    inside = (across / 0.115) ** 2 + (ahead / 0.085) ** 2 < 1
    return bool((inside & (height > -0.05) & (height < np.linalg.norm(thorax - pelvis))).any())


def sample_figure(rng: np.random.Generator) -> Figure:
    """A posed body of its own proportions, in body space (unit 1, pelvis at the origin)."""
    body = Proportions.sample(rng)
    figure = pose(sample_angles(rng), body)
    for _ in range(_TRIES):
        if not _limbs_enter_trunk(figure):
            break
        figure = pose(sample_angles(rng), body)
    return figure
