"""Many views of a few people: small changes of the crop, so that PCKh is counted over thousands of joints.

A joint whose heatmap has two peaks of nearly one height, or that lies right at the threshold, is found or lost by the
least rounding. Over eight people one such joint is a whole percent; over many views of them such joints are gained as
often as they are lost, and what remains of a change of PCKh is what the path does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fasthg.data.dataset import Dataset
from fasthg.data.people import PERSON_HEIGHT, People
from fasthg.data.protocols import Protocol
from fasthg.metrics import pck
from fasthg.pixels import geometry
from fasthg.pixels.heatmap import decode
from fasthg.pixels.image import normalise, read_image

SHIFT, ZOOM, GAIN = 0.04, 0.05, 0.1  # of the person's height, of the box's side, of the brightness: largest changes


@dataclass(frozen=True)
class Views:
    """N crops with what is known of them, in crop pixels.

    crops      uint8 [N, S, S, 3] RGB
    joints     float64 [N, J, 2], NaN where not labelled
    labelled   bool [N, J]
    lengths    float64 [N], what the protocol divides by
    protocol   how they are scored
    """

    crops: NDArray[np.uint8]
    joints: NDArray[np.float64]
    labelled: NDArray[np.bool_]
    lengths: NDArray[np.float64]
    protocol: Protocol

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, rows: slice) -> Views:
        return Views(self.crops[rows], self.joints[rows], self.labelled[rows], self.lengths[rows], self.protocol)

    @property
    def num_joints(self) -> int:
        """Joints that count, all views together."""
        return int(self.labelled.sum())

    @property
    def size(self) -> int:
        return self.crops.shape[1]

    def images(self, rows: slice | NDArray[np.int64] = slice(None)) -> Tensor:
        """Network input [n, 3, S, S] of some views."""
        return normalise(self.crops[rows])

    def points(self, heatmap_side: int) -> tuple[Tensor, Tensor]:
        """Joints float32 [N, J, 2] in heatmap pixels, (0, 0) where not labelled, and weights [N, J], 1 where they are
        labelled and inside the crop."""
        inside = self.labelled & (np.nan_to_num(self.joints, nan=-1.0) >= 0).all(-1)
        inside &= (np.nan_to_num(self.joints) < self.size).all(-1)
        joints = np.where(inside[..., None], self.joints, 0.0) * (heatmap_side / self.size)
        return torch.from_numpy(joints).float(), torch.from_numpy(inside).float()


def vary(people: People, rows: NDArray[np.int64], each: int, seed: int) -> People:
    """`each` views of every person of `rows`: as annotated, then with the centre moved and the scale changed a little.

    The views of one round over all people come before the next round.
    """
    many = people.select(np.tile(rows, each))
    draws = np.random.default_rng(seed).uniform(-1.0, 1.0, (each, len(rows), 3))
    draws[0] = 0.0
    draws = draws.reshape(-1, 3)
    return replace(
        many,
        center=many.center + SHIFT * PERSON_HEIGHT * many.scale[:, None] * draws[:, :2],
        scale=many.scale * (1 + ZOOM * draws[:, 2]),
    )


def make_views(dataset: Dataset, rows: NDArray[np.int64], each: int, size: int, seed: int) -> Views:
    """The crops of `vary`, all but the first round brightened or darkened too; lengths have to be known."""
    people = vary(dataset.people, rows, each, seed)
    matrices = geometry.crop_matrix(people.center, people.scale, size)
    gains = 1 + GAIN * np.random.default_rng([seed, 1]).uniform(-1.0, 1.0, len(people))
    gains[: len(rows)] = 1.0
    crops = np.empty((len(people), size, size, 3), np.uint8)
    for person, row in enumerate(rows):
        photograph = read_image(dataset.image_path(row))
        for view in range(person, len(people), len(rows)):
            crop = geometry.warp(photograph, matrices[view], size)
            crops[view] = np.clip(crop * gains[view], 0, 255).round()
    zoom = np.sqrt(np.linalg.det(matrices[:, :, :2]))
    lengths = dataset.protocol.measure(people) * zoom
    return Views(crops, geometry.apply(matrices, people.joints), people.labelled, lengths, dataset.protocol)


def score(runner: Callable[[Tensor], Tensor], views: Views, batch_size: int) -> pck.Scores:
    """Scores of a runner (images [batch_size, 3, S, S] -> heatmaps); every batch is full, the last repeats views."""
    points = []
    with torch.inference_mode():
        for start in range(0, len(views), batch_size):
            heatmaps = runner(views.images(np.arange(start, start + batch_size) % len(views)))
            points.append(decode(heatmaps)[0].double().cpu() * (views.size / heatmaps.shape[-1]))
    found = torch.cat(points)[: len(views)].numpy()
    return pck.score(found, views.joints, views.labelled, views.lengths, views.protocol)
