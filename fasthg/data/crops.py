"""Crops of people with known joints, on which an artefact has to answer like the network it was made from.

A small set ships with the package (`crops.npz`, rendered people that no training has seen); a user's own dataset
takes its place. Part of the crops is set aside for calibration and never scored.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fasthg.data.dataset import Dataset, find_people, load_dataset
from fasthg.data.protocols import PCKH, Protocol
from fasthg.data.reading import Reading
from fasthg.errors import FasthgError
from fasthg.network.variants import INPUT_SIZE
from fasthg.pixels import geometry
from fasthg.pixels.image import read_crop
from fasthg.pixels.skeleton import MPII, Skeleton

log = logging.getLogger("fasthg")

SHIPPED = Path(__file__).with_name("crops.npz")


@dataclass(frozen=True)
class Crops:
    """Crops to calibrate on and crops to score.

    images       uint8 [M, S, S, 3] RGB
    joints       float64 [M, J, 2] crop pixels, origin at the corner
    labelled     bool [M, J]
    lengths      float64 [M] crop pixels, what the protocol divides by: 0.6 x the diagonal of the head's box on MPII
    calibration  uint8 [K, S, S, 3] RGB, other people
    source       where the crops come from, for people to read
    protocol     how they are scored
    skeleton     which joints they are
    """

    images: NDArray[np.uint8]
    joints: NDArray[np.float64]
    labelled: NDArray[np.bool_]
    lengths: NDArray[np.float64]
    calibration: NDArray[np.uint8]
    source: str
    protocol: Protocol = PCKH
    skeleton: Skeleton = MPII

    def __len__(self) -> int:
        return len(self.images)

    def first(self, count: int) -> Crops:
        """The same with the first `count` crops to score, and to calibrate on."""
        return Crops(
            self.images[:count],
            self.joints[:count],
            self.labelled[:count],
            self.lengths[:count],
            self.calibration[:count],
            f"the first of {self.source}",
            self.protocol,
            self.skeleton,
        )


def load_crops(
    data: str | Path | None,
    size: int = INPUT_SIZE,
    scored: int = 256,
    calibration: int = 128,
    reading: Reading | None = None,
) -> Crops:
    """Crops of `size` pixels: those that ship with the package, or `scored` validation people of the dataset `data` and
    `calibration` training people. Where its file holds one split, nobody who is scored is calibrated on.

    Raises FasthgError for a dataset that cannot be read or scored, or leaves nobody to calibrate on.
    """
    if data is None:
        return read_crops(SHIPPED, size)
    scored_set, calibration_set = (load_dataset(data, split, False, reading) for split in ("val", "train"))
    usable = np.flatnonzero(scored_set.lengths > 0)
    if not len(usable) or (scored_set.protocol.everyone and len(usable) < len(scored_set)):
        raise FasthgError(f"{data} has people without head size; PCKh needs head boxes (`head_box`) in the annotations")
    scored_set = scored_set.select(usable[spread(len(usable), scored)])
    crops, joints, lengths, seen = dataset_crops(scored_set, np.arange(len(scored_set)), size)
    calibration_set = apart_from(calibration_set, scored_set)
    others, *_rest = dataset_crops(calibration_set, spread(len(calibration_set), calibration), size)
    source = f"{len(crops)} validation people of {data}"
    people = scored_set.people
    return Crops(crops, joints, people.labelled[seen], lengths, others, source, scored_set.protocol, people.skeleton)


def read_crops(path: Path, size: int = INPUT_SIZE) -> Crops:
    """The crops of a file that `training.make_crops` wrote, scaled to `size` pixels."""
    try:
        with np.load(path) as file:
            jpegs, ends, split = file["jpegs"], file["ends"], int(file["calibration"])
            joints, labelled, head_size = file["joints"], file["labelled"], file["head_size"]
        encoded = np.split(jpegs, ends[:-1])
        whole = [np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR_RGB), np.uint8) for jpeg in encoded]
        joints, labelled = joints.astype(np.float64), labelled.astype(bool)
        lengths = head_size.astype(np.float64)
        shape = len(whole), len(MPII)
        if (labelled.shape, joints.shape, lengths.shape) != (shape, (*shape, 2), shape[:1]) or not 0 <= split < shape[
            0
        ]:
            raise ValueError(f"joints, labels or head sizes are not those of {shape[0]} crops")
    except Exception as error:  # NumPy, zip and zlib raise errors of their own where a file is damaged
        raise FasthgError(f"{path} holds no crops ({error!s:.200}); give a dataset with --data DIR") from None
    factor = size / len(whole[0])
    resized = [cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA) for crop in whole] if factor != 1 else whole
    crops = np.stack(resized).astype(np.uint8, copy=False)
    return Crops(
        images=crops[split:],
        joints=joints[split:] * factor,
        labelled=labelled[split:],
        lengths=lengths[split:] * factor,
        calibration=crops[:split],
        source=f"{len(crops) - split} rendered people that ship with fasthg",
    )


def apart_from(dataset: Dataset, scored: Dataset) -> Dataset:
    """The people of `dataset` who are not among the scored ones; raises FasthgError where that leaves nobody."""
    free = ~find_people(dataset, scored)
    if not free.any():
        raise FasthgError(
            f"data {dataset.annotations}: all {len(dataset)} people are scored, which leaves nobody to calibrate on; "
            "give a dataset with a training split"
        )
    return dataset.select(free)


def dataset_crops(
    dataset: Dataset, rows: NDArray[np.int64], size: int = INPUT_SIZE
) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Crops uint8 [M, S, S, 3], joints float64 [M, J, 2] and the protocol's lengths [M] of some of its people, both in
    crop pixels, and the rows [M] that they are of: people whose photograph cannot be read are left out, and named."""
    people, kept = dataset.people, []
    found = []
    for row in rows:
        try:
            found.append(read_crop(dataset.image_path(row), people.center[row], people.scale[row], size))
            kept.append(row)
        except FasthgError as error:
            log.warning("left out: %s", error)
    if not found:
        raise FasthgError(f"data {dataset.image_dir}: no photograph can be read; copy them there again")
    rows = np.array(kept)
    matrices = np.stack([matrix for _crop, matrix in found])
    zoom = np.sqrt(np.linalg.det(matrices[:, :, :2]))
    joints = geometry.apply(matrices, people.joints[rows])
    return np.stack([crop for crop, _matrix in found]), joints, dataset.lengths[rows] * zoom, rows


def spread(length: int, count: int) -> NDArray[np.int64]:
    """At most `count` rows of `length`, evenly spaced."""
    return np.unique(np.linspace(0, length - 1, min(count, length)).round().astype(np.int64))
