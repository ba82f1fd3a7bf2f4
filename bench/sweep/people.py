"""The people that PCKh is measured on, and which of their joints a path finds.

A joint whose heatmap has two peaks of nearly one height, or that lies right at the threshold, is found or lost by the
least rounding. Over a few people one such joint is a whole percent; over several views of them such joints are gained
as often as they are lost, and what remains of a change of PCKh is what the path does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fasthg.data.dataset import Dataset, load_dataset
from fasthg.data.people import PERSON_HEIGHT, People, Split
from fasthg.data.protocols import Protocol
from fasthg.files import atomic_path
from fasthg.metrics.evaluate import EvalOptions, Runner, predict_dataset
from fasthg.metrics.pck import headline_joints
from fasthg.pixels import geometry
from fasthg.pixels.heatmap import decode
from fasthg.pixels.image import normalise, read_image
from fasthg.pixels.skeleton import MPII

SHIFT, ZOOM = 0.04, 0.05  # of the person's height, of the box's side: largest changes of a view


@dataclass(frozen=True)
class Found:
    """Which joints a path finds, of those that the headline counts.

    found, counted   bool [N, J]
    """

    found: NDArray[np.bool_]
    counted: NDArray[np.bool_]

    @property
    def pckh(self) -> float:
        """Percent."""
        return 100.0 * float(self.found.sum()) / float(self.counted.sum())

    def save(self, path: Path) -> None:
        """Write it to one file, as a whole or not at all."""
        with atomic_path(path) as aside, open(aside, "wb") as file:
            np.savez_compressed(file, found=self.found, counted=self.counted)

    @classmethod
    def load(cls, path: Path) -> Found:
        """What `save` wrote."""
        with np.load(path) as arrays:
            return cls(arrays["found"], arrays["counted"])


def load_people(data: Path, split: Split) -> Dataset:
    """People of the sweep's data under MPII's joints, which all its networks have."""
    return load_dataset(data, split, check_files=False).under(MPII)


def find(points: NDArray[np.float64], people: People, protocol: Protocol) -> Found:
    """Which of `points` [N, J, 2], in pixels of the photographs, are near enough to the annotated ones."""
    counted = people.labelled & headline_joints(people.skeleton)
    distance = np.linalg.norm(points - people.joints, axis=-1)
    allowed = protocol.threshold * protocol.measure(people)
    return Found((distance <= allowed[:, None]) & counted, counted)


def scored_rows(dataset: Dataset, people: int) -> NDArray[np.int64]:
    """At most `people` rows that can be scored, with a known head size on MPII, spread over the dataset."""
    usable = np.flatnonzero(np.isfinite(dataset.lengths))
    return usable[np.linspace(0, len(usable) - 1, min(people, len(usable))).astype(int)]


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


def views_of(dataset: Dataset, people: int, views: int, seed: int) -> Dataset:
    """At most `people` who can be scored; where they are fewer than `views`, several views of each."""
    rows = scored_rows(dataset, people)
    each = -(-views // len(rows))
    return replace(dataset, people=vary(dataset.people, rows, each, seed))


def find_in_photographs(
    runner: Runner, dataset: Dataset, size: int, batch_size: int, mean: tuple[float, float, float]
) -> Found:
    """What a runner finds of a dataset's people, from their photographs."""
    predictions = predict_dataset(runner, dataset, None, EvalOptions(size, batch_size, mean=mean))
    return find(predictions.joints, dataset.people, dataset.protocol)


def make_crops(dataset: Dataset, size: int) -> NDArray[np.uint8]:
    """The people's crops, uint8 [N, size, size, 3]; a photograph that several views share is read once."""
    people = dataset.people
    matrices = geometry.crop_matrix(people.center, people.scale, size)
    crops = np.empty((len(people), size, size, 3), np.uint8)
    rows_of: dict[str, list[int]] = {}
    for row, name in enumerate(people.images):
        rows_of.setdefault(name, []).append(row)
    for rows in rows_of.values():
        photograph = read_image(dataset.image_path(rows[0]))
        for row in rows:
            crops[row] = geometry.warp(photograph, matrices[row], size)
    return crops


def find_in_crops(
    runner: Runner, dataset: Dataset, crops: NDArray[np.uint8], batch_size: int, mean: tuple[float, float, float]
) -> Found:
    """What a runner finds of a dataset's people in their `make_crops`; every batch is full, the last repeats people."""
    size, points = crops.shape[1], []
    with torch.inference_mode():
        for start in range(0, len(crops), batch_size):
            rows = np.arange(start, start + batch_size) % len(crops)
            heatmaps = runner(normalise(crops[rows], mean))
            points.append(decode(heatmaps)[0].double().cpu() * (size / heatmaps.shape[-1]))
    matrices = geometry.crop_matrix(dataset.people.center, dataset.people.scale, size)
    found = geometry.apply(geometry.invert(matrices), torch.cat(points)[: len(crops)].numpy())
    return find(found, dataset.people, dataset.protocol)
