"""Predict every person of a dataset and score the result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
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
from fasthg.pixels.image import normalise, read_crop

Runner = Callable[[Tensor], Tensor]  # images float32 [N, 3, H, W] -> heatmaps [N, J, h, w]
Crop = tuple[NDArray[np.uint8], NDArray[np.float64]]
Item = TypeVar("Item")

_READERS = 4  # threads that decode photographs while the network runs; OpenCV lets go of Python's lock


def evaluate(
    runner: Runner,
    dataset: Dataset,
    rows: Iterable[int] | None = None,
    size: int = 256,
    batch_size: int = 8,
    flip: bool = False,
    progress: Callable[[int], None] | None = None,
    left_out: Callable[[FasthgError], None] | None = None,
    mean: Sequence[float] = MEAN,
) -> Scores:
    """Scores of `predict_dataset` against the annotations, by the dataset's protocol; the arguments are the same.

    People whose photograph cannot be read are not scored where `left_out` is given.
    """
    chosen = range(len(dataset)) if rows is None else list(rows)
    joints = predict_dataset(runner, dataset, chosen, size, batch_size, flip, progress, left_out, mean)
    seen = np.isfinite(joints).all(axis=(1, 2))
    if not seen.any():
        raise FasthgError(f"data {dataset.image_dir}: no photograph can be read; copy them there again")
    return score_people(joints[seen], dataset.people.select(np.asarray(chosen)[seen]), dataset.protocol)


class Found(NamedTuple):
    """Joints [N, J, 2] in continuous pixels of each person's photograph, and the heatmaps' peaks [N, J]."""

    joints: NDArray[np.float64]
    scores: NDArray[np.float64]


def predict_dataset(
    runner: Runner,
    dataset: Dataset,
    rows: Iterable[int] | None = None,
    size: int = 256,
    batch_size: int = 8,
    flip: bool = False,
    progress: Callable[[int], None] | None = None,
    left_out: Callable[[FasthgError], None] | None = None,
    mean: Sequence[float] = MEAN,
) -> NDArray[np.float64]:
    """Joints [N, J, 2] in continuous pixels of each person's photograph; the arguments are those of `find_dataset`."""
    return find_dataset(runner, dataset, rows, size, batch_size, flip, progress, left_out, mean).joints


def find_dataset(
    runner: Runner,
    dataset: Dataset,
    rows: Iterable[int] | None = None,
    size: int = 256,
    batch_size: int = 8,
    flip: bool = False,
    progress: Callable[[int], None] | None = None,
    left_out: Callable[[FasthgError], None] | None = None,
    mean: Sequence[float] = MEAN,
) -> Found:
    """Joints of each person, and their scores.

    runner      images [batch_size, 3, size, size] float32 on the CPU -> heatmaps [batch_size, J, h, w] on any device,
                where they are decoded; a last batch that is not full is filled up, so that every batch has one shape
    rows        the people to predict, in this order; None for all
    flip        average the heatmaps of the crop and of its mirror image
    progress    called after each batch with the number of people that it finished
    left_out    told of each person whose photograph cannot be read; their joints are NaN
    mean        what the network takes off RGB in 0..1, its `config.mean`

    Raises FasthgError that names a photograph that cannot be read where `left_out` is None.
    """
    chosen = list(range(len(dataset))) if rows is None else [int(row) for row in rows]
    predictions = np.full((len(chosen), len(dataset.people.skeleton), 2), np.nan)
    peaks = np.full(predictions.shape[:2], np.nan)
    done = 0

    def read(row: int) -> Crop | FasthgError:
        try:
            return read_crop(dataset.image_path(row), dataset.people.center[row], dataset.people.scale[row], size)
        except FasthgError as error:
            return error

    for found in batches(map_ahead(read, chosen, _READERS), batch_size):
        for error in (item for item in found if isinstance(item, FasthgError)):
            if left_out is None:
                raise error
            left_out(error)
        places = [done + i for i, item in enumerate(found) if not isinstance(item, FasthgError)]
        crops = [item for item in found if not isinstance(item, FasthgError)]
        done += len(found)
        if progress is not None:
            progress(len(found))
        if not crops:
            continue
        images = normalise(np.stack([crop for crop, _matrix in crops]), mean)
        matrices = np.stack([matrix for _crop, matrix in crops])
        if len(chosen) > batch_size:
            images = _fill_up(images, batch_size)
        with torch.inference_mode():
            heatmaps = runner(images)
            if flip:
                heatmaps = (heatmaps + geometry.flip_heatmaps(runner(images.flip(-1)), dataset.people.skeleton)) / 2
            points, scores = decode(heatmaps[: len(crops)])
        crop_points = points.double().cpu().numpy() * (size / heatmaps.shape[-1])
        predictions[places] = geometry.apply(geometry.invert(matrices), crop_points)
        peaks[places] = scores.double().cpu().numpy()
    return Found(predictions, peaks)


def _fill_up(images: Tensor, batch_size: int) -> Tensor:
    """Repeat the last image up to a full batch: a new shape would make compiled runners compile again."""
    missing = batch_size - len(images)
    return torch.cat([images, images[-1:].expand(missing, -1, -1, -1)]) if missing else images


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """`items` in lists of `size`, the last of which may be shorter."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
