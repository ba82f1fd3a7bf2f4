"""What training changes about a person: scale, rotation, mirror and colour, drawn from (seed, epoch, row) alone.

Every loader asks here for the same draws and the same crop matrices, so a person looks the same in an epoch whichever
loader reads it, in whatever order, on however many ranks, and after a resume in the middle of the epoch.

Ranges are those of Newell et al. (ECCV 2016), drawn uniformly: scale 0.75-1.25 and rotation +-30 degrees. As in
bearpaw/pytorch-pose, six people in ten are rotated, half are mirrored, and each colour channel gets a gain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fasthg.data.people import People
from fasthg.errors import FasthgError
from fasthg.network.variants import INPUT_SIZE, STRIDE
from fasthg.pixels import geometry

_UNIFORMS = 7  # uniform numbers a person: scale, whether to rotate, rotation, mirror, three gains
_DRAWS_STREAM = 1  # the order of an epoch is stream 0 of the same seed, see training/loading/sampling.py


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the augmentation.

    scale                 the person's box is scaled by 1 - scale to 1 + scale
    rotation              degrees to either side
    rotation_probability  share of people that are rotated at all
    flip                  share of people that are mirrored
    gain                  each colour channel is multiplied by 1 - gain to 1 + gain
    """

    scale: float = 0.25
    rotation: float = 30.0
    rotation_probability: float = 0.6
    flip: float = 0.5
    gain: float = 0.2

    def __post_init__(self) -> None:
        for name in ("scale", "gain"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise FasthgError(f"augmentation {name} is {getattr(self, name)}; give a share from 0 to below 1")
        for name in ("rotation_probability", "flip"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise FasthgError(f"augmentation {name} is {getattr(self, name)}; give a probability from 0 to 1")
        if not 0.0 <= self.rotation <= 180.0:
            raise FasthgError(f"augmentation rotation is {self.rotation}; give degrees from 0 to 180")

    @property
    def reach(self) -> float:
        """Side of the square around the box's centre, in box sides, that holds every crop that can be drawn."""
        angle = math.radians(min(self.rotation, 45.0)) if self.rotation_probability else 0.0
        return (1.0 + self.scale) * (math.cos(angle) + math.sin(angle))


NO_AUGMENTATION = Augmentation(scale=0.0, rotation=0.0, rotation_probability=0.0, flip=0.0, gain=0.0)


@dataclass(frozen=True)
class Draws:
    """The augmentation of n people: scale [n], rotation [n] in degrees, flip [n] bool, gain [n,3] for R, G, B."""

    scale: NDArray[np.float64]
    rotation: NDArray[np.float64]
    flip: NDArray[np.bool_]
    gain: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.scale)

    def take(self, rows: NDArray[np.int64]) -> Draws:
        """The draws of some rows, in their order."""
        return Draws(self.scale[rows], self.rotation[rows], self.flip[rows], self.gain[rows])


def sample(rng: np.random.Generator, augmentation: Augmentation, n: int) -> Draws:
    """Draws for n people; person i's draw does not depend on how many come after it."""
    unit = rng.random((n, _UNIFORMS))
    signed = 2.0 * unit - 1.0
    rotated = unit[:, 1] < augmentation.rotation_probability
    return Draws(
        scale=1.0 + augmentation.scale * signed[:, 0],
        rotation=np.where(rotated, augmentation.rotation * signed[:, 2], 0.0),
        flip=unit[:, 3] < augmentation.flip,
        gain=1.0 + augmentation.gain * signed[:, 4:7],
    )


def epoch_draws(augmentation: Augmentation, num_people: int, seed: int, epoch: int) -> Draws:
    """Draws of a whole epoch, indexed by row: a function of (seed, epoch, row)."""
    return sample(np.random.default_rng([seed, epoch, _DRAWS_STREAM]), augmentation, num_people)


def crop_matrices(people: People, rows: NDArray[np.int64], draws: Draws, size: int = INPUT_SIZE) -> NDArray[np.float64]:
    """Image -> augmented crop of `people[rows[i]]` under `draws[i]`, float64 [n,2,3]."""
    center, scale = people.center[rows], people.scale[rows]
    return geometry.crop_matrix(center, scale, size, draws.rotation, draws.flip, zoom=draws.scale)


def place_joints(
    people: People,
    rows: NDArray[np.int64],
    matrices: NDArray[np.float64],
    flip: NDArray[np.bool_],
    size: int = INPUT_SIZE,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Joints of `people[rows]` in heatmap coordinates, float32 [n,J,2], and their weights in the loss, float32 [n,J].

    The weight is 1 where the joint is labelled, occluded or not, and lies in the crop, else 0. A mirrored person's left
    wrist is a right wrist: left and right change places where `flip` is set. Unlabelled joints are at (0, 0).
    """
    skeleton = people.skeleton
    order = np.where(flip[:, None], np.asarray(skeleton.flip_order), np.arange(len(skeleton)))
    labelled = np.take_along_axis(people.labelled[rows], order, axis=1)
    joints = np.take_along_axis(people.joints[rows], order[..., None], axis=1)
    joints = np.where(labelled[..., None], joints, 0.0)
    crop = geometry.apply(matrices, joints)
    inside = ((crop >= 0.0) & (crop < size)).all(axis=-1)
    heatmap = np.where(labelled[..., None], crop / STRIDE, 0.0)
    return heatmap.astype(np.float32), (labelled & inside).astype(np.float32)


def colour_table(gain: NDArray[np.float64], mean: Sequence[float] = geometry.MEAN) -> NDArray[np.float32]:
    """What each byte of each channel becomes under gain [3], float32 [256,3]: clip(byte / 255 * gain, 0, 1) - mean."""
    levels = np.arange(256, dtype=np.float64)[:, None] / 255.0
    return (np.clip(levels * gain, 0.0, 1.0) - np.asarray(mean)).astype(np.float32)
