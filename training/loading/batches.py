"""What a batch is, and how one is made from pictures of people: the same steps whichever loader asks for them."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fasthg.data.people import People
from fasthg.errors import FasthgError
from fasthg.kernels.cpu import NATIVE_ERROR
from fasthg.network.variants import INPUT_SIZE, STRIDE
from fasthg.pixels import geometry
from training.loading.augment import (
    NO_AUGMENTATION,
    Augmentation,
    colour_table,
    crop_matrices,
    epoch_draws,
    place_joints,
)
from training.loading.sampling import BatchRows, EpochOrder

if NATIVE_ERROR is None:
    from fasthg.kernels.cpu import _native

_FLOAT_BYTES = 4
Content = TypeVar("Content")


class Batch(NamedTuple):
    """What a network is trained on; targets are rendered from it on the device that trains.

    images   float32 [N,3,S,S], RGB / 255 with the gain applied, clipped to 0..1, minus the mean
    joints   float32 [N,J,2], heatmap coordinates; (0, 0) where not labelled
    weights  float32 [N,J], 1 where labelled (occluded too) and inside the crop, else 0
    rows     int64 [N], rows of the people
    """

    images: Tensor
    joints: Tensor
    weights: Tensor
    rows: Tensor


@dataclass(frozen=True)
class LoaderOptions:
    """What every loader is asked for.

    size           side of the crop, pixels
    batch_size     people in a batch on this rank
    augmentation   ranges of the augmentation
    seed           of the order and of the draws
    epoch          epoch that is iterated until `set_epoch`
    start_batch    batch of it that comes first
    shuffle        a new order each epoch, or the order of the file
    num_workers    processes (reference) or threads (packed, DALI) that make batches; 0 makes them in the caller
    rank, world_size, drop_last   see `EpochOrder`
    skip_bad       people that may be replaced because their image cannot be read; one more stops the run
    channels_last  memory format of the images
    pin_memory     batches lie in page-locked memory, ready for a GPU
    mean           what is subtracted from RGB in 0..1: the network's
    """

    size: int = INPUT_SIZE
    batch_size: int = 20
    augmentation: Augmentation = NO_AUGMENTATION
    seed: int = 0
    epoch: int = 0
    start_batch: int = 0
    shuffle: bool = False
    num_workers: int = 0
    rank: int = 0
    world_size: int = 1
    drop_last: bool = False
    skip_bad: int = 0
    channels_last: bool = False
    pin_memory: bool = False
    mean: tuple[float, float, float] = geometry.MEAN

    def __post_init__(self) -> None:
        if self.size < STRIDE or self.size % STRIDE:
            raise FasthgError(f"crop size is {self.size}; give a multiple of {STRIDE}")
        for name in ("seed", "epoch", "start_batch", "num_workers", "skip_bad"):
            if getattr(self, name) < 0:
                raise FasthgError(f"{name} is {getattr(self, name)}; give 0 or more")

    @property
    def shared_bytes(self) -> int:
        """Memory that all ranks' batches take between processes: two a worker, one in use, one on its way to a GPU."""
        batch = self.batch_size * 3 * self.size * self.size * _FLOAT_BYTES
        return self.world_size * (2 * self.num_workers + 2) * batch if self.num_workers else 0

    def order(self, num_people: int) -> EpochOrder:
        """The batches that these options ask for."""
        return EpochOrder(
            num_people, self.batch_size, self.seed, self.shuffle, self.rank, self.world_size, self.drop_last
        )


class Source(Protocol):
    """Where the pictures of people are read from; a source may hold several views of a person, such as two crops."""

    people: People

    def choose_views(
        self, rows: NDArray[np.int64], matrices: NDArray[np.float64], size: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """For the crops of `size` pixels that `matrices` [n,2,3] cut from the photographs of `rows`: which view of each
        person to read, int64 [n], and the map from that view's pixels to the crop, float64 [n,2,3].
        """

    def read(self, row: int, view: int) -> NDArray[np.uint8]:
        """A view of a person, [H,W,3] RGB or [H,W,4] RGBX; raises FasthgError that names the file."""

    def read_encoded(self, row: int, view: int) -> bytes:
        """The same as an encoded image, for a decoder elsewhere; raises FasthgError that names the file."""


class MadeBatch(NamedTuple):
    """A batch, or None when too many images could not be read, and the message of each row that could not."""

    batch: Batch | None
    failures: dict[int, str]


class BatchPlan(NamedTuple):
    """What is known of a batch before its pictures are read.

    views     int64 [n], which view of each person is read
    matrices  float64 [n,2,3], that view -> crop
    gain      float64 [n,3], for R, G, B
    joints    float32 [n,J,2], heatmap coordinates
    weights   float32 [n,J]
    """

    views: NDArray[np.int64]
    matrices: NDArray[np.float64]
    gain: NDArray[np.float64]
    joints: NDArray[np.float32]
    weights: NDArray[np.float32]


def plan_batch(source: Source, options: LoaderOptions, epoch: int, rows: NDArray[np.int64]) -> BatchPlan:
    """Crops, colours, joints and weights of `rows` in an epoch."""
    people, size = source.people, options.size
    draws = _epoch_draws(options.augmentation, len(people), options.seed, epoch).take(rows)
    matrices = crop_matrices(people, rows, draws, size)
    joints, weights = place_joints(people, rows, matrices, draws.flip, size)
    views, from_view = source.choose_views(rows, matrices, size)
    return BatchPlan(views, from_view, draws.gain, joints, weights)


_epoch_draws = functools.lru_cache(maxsize=2)(epoch_draws)


class BatchReader(Generic[Content]):
    """The people of a batch as they are read, one after the other.

    The next person that can be read takes the place of one that cannot. Iterating yields what `read(row, view)`
    returns for each of the `rows`, and ends early, with `complete` False, when more people fail than `skip_bad` of the
    options allows, or all of them do. `known_bad` are rows that are known to fail, and why.
    """

    def __init__(
        self,
        source: Source,
        options: LoaderOptions,
        job: BatchRows,
        read: Callable[[int, int], Content],
        known_bad: Mapping[int, str] | None = None,
    ) -> None:
        self._replan = functools.partial(plan_batch, source, options, job.epoch)
        self._num_people = len(source.people)
        self._allowed = min(options.skip_bad, self._num_people - 1)
        self._read = read
        self._known_bad = known_bad or {}
        self.rows = job.rows.copy()
        self.plan = self._replan(self.rows)
        self.failures: dict[int, str] = {}
        self.complete = False

    def __iter__(self) -> Iterator[Content]:
        for i in range(len(self.rows)):
            while (content := self._try(int(self.rows[i]), int(self.plan.views[i]))) is None:
                if len(self.failures) > self._allowed:
                    return
                self.rows[i] = (self.rows[i] + 1) % self._num_people
                self.plan = self._replan(self.rows)
            yield content
        self.complete = True

    def _try(self, row: int, view: int) -> Content | None:
        if row in self._known_bad:
            self.failures[row] = self._known_bad[row]
        if row not in self.failures:
            try:
                return self._read(row, view)
            except FasthgError as error:
                self.failures[row] = str(error)
        return None

    def finish(self, images: Tensor) -> MadeBatch:
        """The batch around its images [N,3,S,S]."""
        if not self.complete:
            return MadeBatch(None, self.failures)
        joints, weights = torch.from_numpy(self.plan.joints), torch.from_numpy(self.plan.weights)
        return MadeBatch(Batch(images, joints, weights, torch.from_numpy(self.rows)), self.failures)


class BatchMaker:
    """Makes any batch of any epoch from a source; no batch depends on another, so workers may share or copy it."""

    def __init__(self, source: Source, options: LoaderOptions) -> None:
        self.source = source
        self.options = options
        self._mean = np.array(options.mean, np.float32)
        self._free: list[NDArray[np.float32]] = []  # memory of batches that nobody refers to any more

    def __call__(self, job: BatchRows) -> MadeBatch:
        reading = BatchReader(self.source, self.options, job, self.source.read)
        images = self._empty(len(job.rows))
        pixels = images.numpy()
        for i, picture in enumerate(reading):
            self._cut(picture, reading.plan.matrices[i], reading.plan.gain[i], pixels[i])
        return reading.finish(images.permute(0, 3, 1, 2) if self.options.channels_last else images)

    def _cut(
        self,
        picture: NDArray[np.uint8],
        matrix: NDArray[np.float64],
        gain: NDArray[np.float64],
        out: NDArray[np.float32],
    ) -> None:
        """The crop of a picture under `matrix` [2,3] and `gain` [3] into out, [3,S,S] or [S,S,3].

        RGBX goes through the compiled code in one pass, which rounds nothing; RGB through OpenCV, whose crop has bytes.
        """
        if picture.shape[-1] == 4 and NATIVE_ERROR is None:
            to_picture, factors = geometry.invert(matrix), gain.astype(np.float32)
            _native.cut_crop(picture, to_picture, factors, self._mean, self.options.channels_last, out)
        else:
            colour(geometry.warp(picture, matrix, self.options.size), colour_table(gain, self.options.mean), out)

    def _empty(self, count: int) -> Tensor:
        """Memory for the images of a batch; that of an earlier batch, where one was let go.

        Fresh memory comes page by page from the kernel, which costs as much as looking up the colours.
        """
        options = self.options
        shape = (options.size, options.size, 3) if options.channels_last else (3, options.size, options.size)
        in_worker = torch.utils.data.get_worker_info() is not None  # which may not touch CUDA; the DataLoader pins
        if options.pin_memory and not in_worker:
            return torch.empty((count, *shape), pin_memory=True)
        memory = self._free.pop() if self._free else np.empty((options.batch_size, *shape), np.float32)
        lent = memory[:count]
        weakref.finalize(lent, self._free.append, memory).atexit = False
        return torch.from_numpy(lent)


def colour(crop: NDArray[np.uint8], table: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Look the bytes of a crop [S,S,3 or 4] up in table [256,3] and write them to out, [3,S,S] or [S,S,3].

    Gain, clipping, scaling and mean are in the table, so that a crop is passed over once.
    """
    if out.shape[-1] == 3:
        rgb = crop if crop.shape[-1] == 3 else cv2.cvtColor(crop, cv2.COLOR_RGBA2RGB)
        cv2.LUT(rgb, table[None], dst=out)
        return
    for plane, levels, channel in zip(cv2.split(crop), np.ascontiguousarray(table.T), out):
        cv2.LUT(plane, levels[None], dst=channel)
