"""Predict every person of a dataset and score the result."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fasthg.data.dataset import Dataset
from fasthg.metrics.pck import Scores, score_people
from fasthg.pixels import geometry
from fasthg.pixels.geometry import MEAN
from fasthg.pixels.heatmap import decode
from fasthg.pixels.image import normalise, read_crop

Runner = Callable[[Tensor], Tensor]  # images float32 [N, 3, H, W] -> heatmaps [N, 16, h, w]
Crop = tuple[NDArray[np.uint8], NDArray[np.float64]]

_READERS = 4  # threads that decode photographs while the network runs; OpenCV lets go of Python's lock
_BATCHES_AHEAD = 2


def evaluate(
    runner: Runner,
    dataset: Dataset,
    rows: Iterable[int] | None = None,
    size: int = 256,
    batch_size: int = 8,
    flip: bool = False,
    progress: Callable[[int], None] | None = None,
    mean: Sequence[float] = MEAN,
) -> Scores:
    """Scores of `predict_dataset` against the annotations, by the dataset's protocol; the arguments are the same."""
    chosen = range(len(dataset)) if rows is None else list(rows)
    joints = predict_dataset(runner, dataset, chosen, size, batch_size, flip, progress, mean)
    return score_people(joints, dataset.people.select(chosen), dataset.protocol)


def predict_dataset(
    runner: Runner,
    dataset: Dataset,
    rows: Iterable[int] | None = None,
    size: int = 256,
    batch_size: int = 8,
    flip: bool = False,
    progress: Callable[[int], None] | None = None,
    mean: Sequence[float] = MEAN,
) -> NDArray[np.float64]:
    """Joints [N, 16, 2] in continuous pixels of each person's photograph.

    runner      images [batch_size, 3, size, size] float32 on the CPU -> heatmaps [batch_size, 16, h, w] on any device,
                where they are decoded; a last batch that is not full is filled up, so that every batch has one shape
    rows        the people to predict, in this order; None for all
    flip        average the heatmaps of the crop and of its mirror image
    progress    called after each batch with the number of people that it finished
    mean        what the network takes off RGB in 0..1, its `config.mean`

    Raises FasthgError that names a photograph that cannot be read.
    """
    chosen = list(range(len(dataset))) if rows is None else [int(row) for row in rows]
    predictions = np.empty((len(chosen), len(geometry.JOINT_NAMES), 2))
    done = 0
    for crops in _read_ahead(dataset, chosen, size, batch_size):
        images = normalise(np.stack([crop for crop, _matrix in crops]), mean)
        matrices = np.stack([matrix for _crop, matrix in crops])
        if len(chosen) > batch_size:
            images = _fill_up(images, batch_size)
        with torch.inference_mode():
            heatmaps = runner(images)
            if flip:
                heatmaps = (heatmaps + geometry.flip_heatmaps(runner(images.flip(-1)))) / 2
            points, _scores = decode(heatmaps[: len(crops)])
        crop_points = points.double().cpu().numpy() * (size / heatmaps.shape[-1])
        predictions[done : done + len(crops)] = geometry.apply(geometry.invert(matrices), crop_points)
        done += len(crops)
        if progress is not None:
            progress(len(crops))
    return predictions


def _fill_up(images: Tensor, batch_size: int) -> Tensor:
    """Repeat the last image up to a full batch: a new shape would make compiled runners compile again."""
    missing = batch_size - len(images)
    return torch.cat([images, images[-1:].expand(missing, -1, -1, -1)]) if missing else images


def _read_ahead(dataset: Dataset, rows: Sequence[int], size: int, batch_size: int) -> Iterator[list[Crop]]:
    """Batches of crops in order, read by threads a few batches ahead of their use."""
    people = dataset.people
    with ThreadPoolExecutor(_READERS) as pool:
        pending: deque[list[Future[Crop]]] = deque()
        try:
            for start in range(0, len(rows), batch_size):
                pending.append(
                    [
                        pool.submit(read_crop, dataset.image_path(row), people.center[row], people.scale[row], size)
                        for row in rows[start : start + batch_size]
                    ]
                )
                if len(pending) > _BATCHES_AHEAD:
                    yield [future.result() for future in pending.popleft()]
            while pending:
                yield [future.result() for future in pending.popleft()]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
