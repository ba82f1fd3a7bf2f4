"""Predict every person of a dataset and score the result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fasthg.ahead import map_ahead
from fasthg.data.dataset import Dataset
from fasthg.errors import FasthgError
from fasthg.metrics.pck import Scores, score_people
from fasthg.pixels import geometry
from fasthg.pixels.geometry import MEAN
from fasthg.pixels.heatmap import decode
from fasthg.pixels.image import fill_up, normalise, read_crop

Runner = Callable[[Tensor], Tensor]  # images float32 [N, 3, H, W] -> heatmaps [N, J, h, w]
Crop = tuple[NDArray[np.uint8], NDArray[np.float64]]
Item = TypeVar("Item")

_READERS = 4  # threads that decode photographs while the network runs; OpenCV lets go of Python's lock


@dataclass(frozen=True)
class EvalOptions:
    """How a dataset's people are predicted.

    size        side of the crops, pixels
    batch_size  people in one run; a last batch that is not full is filled up, so that every batch has one shape
    flip        average the heatmaps of the crop and of its mirror image
    mean        what the network takes off RGB in 0..1, its `config.mean`
    progress    called after each batch with the number of people that it finished
    left_out    told of each person whose photograph cannot be read, who is left out; an error where None
    """

    size: int = 256
    batch_size: int = 8
    flip: bool = False
    mean: Sequence[float] = MEAN
    progress: Callable[[int], None] | None = None
    left_out: Callable[[FasthgError], None] | None = None


USUAL = EvalOptions()


class Predictions(NamedTuple):
    """Joints [N, J, 2] in continuous pixels of each person's photograph, and the heatmaps' peaks [N, J]; NaN for those
    who were left out."""

    joints: NDArray[np.float64]
    scores: NDArray[np.float64]

    def seen(self, dataset: Dataset) -> NDArray[np.bool_]:
        """Who was not left out, [N]; raises FasthgError that names the dataset where everybody was."""
        seen = np.asarray(np.isfinite(self.joints).all(axis=(1, 2)))
        if not seen.any():
            raise FasthgError(f"data {dataset.image_dir}: no photograph can be read; copy them there again")
        return seen


def evaluate(
    runner: Runner, dataset: Dataset, rows: Iterable[int] | None = None, options: EvalOptions = USUAL
) -> Scores:
    """Scores of `predict_dataset` against the annotations, by the dataset's protocol; who is left out is not scored."""
    chosen = range(len(dataset)) if rows is None else list(rows)
    found = predict_dataset(runner, dataset, chosen, options)
    seen = found.seen(dataset)
    return score_people(found.joints[seen], dataset.people.select(np.asarray(chosen)[seen]), dataset.protocol)


def predict_dataset(
    runner: Runner, dataset: Dataset, rows: Iterable[int] | None = None, options: EvalOptions = USUAL
) -> Predictions:
    """Joints of each person, and their scores.

    runner      images [batch_size, 3, size, size] float32 on the CPU -> heatmaps [batch_size, J, h, w] on any device,
                where they are decoded
    rows        the people to predict, in this order; None for all

    Raises FasthgError that names a photograph that cannot be read, unless `options.left_out` is told.
    """
    chosen = list(range(len(dataset))) if rows is None else [int(row) for row in rows]
    people, size = dataset.people, options.size
    joints = np.full((len(chosen), len(people.skeleton), 2), np.nan)
    peaks = np.full(joints.shape[:2], np.nan)
    done = 0

    def read(row: int) -> Crop | FasthgError:
        try:
            return read_crop(dataset.image_path(row), people.center[row], people.scale[row], size)
        except FasthgError as error:
            return error

    for found in batches(map_ahead(read, chosen, _READERS), options.batch_size):
        for error in (item for item in found if isinstance(item, FasthgError)):
            if options.left_out is None:
                raise error
            options.left_out(error)
        places = [done + i for i, item in enumerate(found) if not isinstance(item, FasthgError)]
        crops = [item for item in found if not isinstance(item, FasthgError)]
        done += len(found)
        if options.progress is not None:
            options.progress(len(found))
        if not crops:
            continue
        images = normalise(np.stack([crop for crop, _matrix in crops]), options.mean)
        matrices = np.stack([matrix for _crop, matrix in crops])
        if len(chosen) > options.batch_size:
            images = fill_up(images, options.batch_size)
        with torch.inference_mode():
            heatmaps = runner(images)
            if options.flip:
                heatmaps = (heatmaps + geometry.flip_heatmaps(runner(images.flip(-1)), people.skeleton)) / 2
            points, scores = decode(heatmaps[: len(crops)])
        crop_points = points.double().cpu().numpy() * (size / heatmaps.shape[-1])
        joints[places] = geometry.apply(geometry.invert(matrices), crop_points)
        peaks[places] = scores.double().cpu().numpy()
    return Predictions(joints, peaks)


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """`items` in lists of `size`, the last of which may be shorter."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
