"""What a loader is, and the reference: a plain DataLoader over JPEGs, the meaning that the others are held to."""

from __future__ import annotations

import functools
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fasthg import geometry
from fasthg.errors import FasthgError
from fasthg.image import read_image
from fasthg.mpii import Dataset, People
from fasthg.variants import INPUT_SIZE, STRIDE
from training.augment import (
    NO_AUGMENTATION,
    Augmentation,
    Draws,
    colour_tables,
    crop_matrices,
    epoch_draws,
    place_joints,
)
from training.sampling import BatchRows, EpochOrder

_LOG = logging.getLogger(__name__)


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

    def __post_init__(self) -> None:
        if self.size < STRIDE or self.size % STRIDE:
            raise FasthgError(f"crop size is {self.size}; give a multiple of {STRIDE}")
        for name in ("seed", "epoch", "start_batch", "num_workers", "skip_bad"):
            if getattr(self, name) < 0:
                raise FasthgError(f"{name} is {getattr(self, name)}; give 0 or more")

    def order(self, num_people: int) -> EpochOrder:
        """The batches that these options ask for."""
        return EpochOrder(
            num_people, self.batch_size, self.seed, self.shuffle, self.rank, self.world_size, self.drop_last
        )


class Source(Protocol):
    """Where the pictures of people are read from."""

    people: People

    def read(self, row: int) -> NDArray[np.uint8]:
        """Picture with the person, RGB [H,W,3]; raises FasthgError that names the file."""

    def image_matrices(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Picture -> image that the annotations belong to, [n,2,3]."""


class JpegSource:
    """The images of a dataset as they lie in its folder."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.people = dataset.people

    def read(self, row: int) -> NDArray[np.uint8]:
        return read_image(self.dataset.image_path(row))

    def image_matrices(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.broadcast_to(np.eye(2, 3), (len(rows), 2, 3))


class MadeBatch(NamedTuple):
    """A batch, or None when too many images could not be read, and the message of each row that could not."""

    batch: Batch | None
    failures: dict[int, str]


class BatchMaker:
    """Makes any batch of any epoch from a source; no batch depends on another, so workers may share or copy it."""

    def __init__(self, source: Source, options: LoaderOptions) -> None:
        self.source = source
        self.options = options

    def __call__(self, job: BatchRows) -> MadeBatch:
        pictures, rows, failures = self._read(job.rows)
        if len(pictures) < len(job.rows):
            return MadeBatch(None, failures)
        people, size = self.source.people, self.options.size
        draws = self._draws(job.epoch).take(rows)
        matrices = crop_matrices(people, rows, draws, size)
        joints, weights = place_joints(people, rows, matrices, draws.flip, size)
        picture_matrices = geometry.compose(matrices, self.source.image_matrices(rows))
        images = self._warp(pictures, picture_matrices, colour_tables(draws.gain))
        return MadeBatch(
            Batch(images, torch.from_numpy(joints), torch.from_numpy(weights), torch.from_numpy(rows)), failures
        )

    def _read(self, rows: NDArray[np.int64]) -> tuple[list[NDArray[np.uint8]], NDArray[np.int64], dict[int, str]]:
        """Pictures, the rows they show, and the failures; a readable person stands in for one that cannot be read."""
        pictures: list[NDArray[np.uint8]] = []
        used: list[int] = []
        failures: dict[int, str] = {}
        for row in rows.tolist():
            found = self._read_from(row, failures)
            if found is None:
                break
            pictures.append(found[0])
            used.append(found[1])
        return pictures, np.array(used, dtype=np.int64), failures

    def _read_from(self, first: int, failures: dict[int, str]) -> tuple[NDArray[np.uint8], int] | None:
        """Picture and row of the first person from `first` on that can be read; None when too many cannot."""
        num_people = len(self.source.people)
        for row in (i % num_people for i in range(first, first + num_people)):
            if row in failures:
                continue
            try:
                return self.source.read(row), row
            except FasthgError as error:
                failures[row] = str(error)
                if len(failures) > self.options.skip_bad:
                    break
        return None

    def _draws(self, epoch: int) -> Draws:
        return _cached_draws(self.options.augmentation, len(self.source.people), self.options.seed, epoch)

    def _warp(
        self, pictures: list[NDArray[np.uint8]], matrices: NDArray[np.float64], tables: NDArray[np.float32]
    ) -> Tensor:
        """Warped, gained and normalised crops, float32 [N,3,S,S]; one pass over each crop by a table a channel."""
        size, pin = self.options.size, self.options.pin_memory and not _in_worker()
        shape = (len(pictures), size, size, 3) if self.options.channels_last else (len(pictures), 3, size, size)
        images = torch.empty(shape, pin_memory=pin)
        for picture, matrix, table, out in zip(pictures, matrices, tables, images.numpy()):
            crop = geometry.warp(picture, matrix, size)
            if self.options.channels_last:
                cv2.LUT(crop, table[None], dst=out)
            else:
                for plane, levels, channel in zip(cv2.split(crop), table.T, out):
                    cv2.LUT(plane, np.ascontiguousarray(levels)[None], dst=channel)
        return images.permute(0, 3, 1, 2) if self.options.channels_last else images


@functools.lru_cache(maxsize=2)
def _cached_draws(augmentation: Augmentation, num_people: int, seed: int, epoch: int) -> Draws:
    return epoch_draws(augmentation, num_people, seed, epoch)


def _in_worker() -> bool:
    return torch.utils.data.get_worker_info() is not None


class Loader(ABC):
    """Batches of people, epoch by epoch; the same batches for the same options, whatever makes them.

    Iterating yields the batches of the epoch that `set_epoch` named, from its `start_batch` on, so a run that stopped
    after b batches goes on exactly with `set_epoch(epoch, b)`. An image that cannot be read raises FasthgError naming
    file and row, unless `skip_bad` allows it: then the next readable person takes the place, a warning is logged, and
    `bad` counts it.
    """

    def __init__(self, people: People, options: LoaderOptions) -> None:
        self.people = people
        self.options = options
        self.order = options.order(len(people))
        self.bad: dict[int, str] = {}  # row -> why its image cannot be read
        self.set_epoch(options.epoch, options.start_batch)

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """The next iteration yields the batches of `epoch` from number `start_batch` on."""
        self.epoch, self.start_batch = epoch, start_batch

    def __len__(self) -> int:
        """Batches of a whole epoch on this rank."""
        return len(self.order)

    @property
    def num_people(self) -> int:
        """People of a whole epoch on this rank."""
        return self.order.rows_per_epoch

    def __iter__(self) -> Iterator[Batch]:
        for made in self._make(self.order.batches(self.epoch, self.start_batch)):
            self._count_bad(made)
            assert made.batch is not None
            yield made.batch

    @abstractmethod
    def _make(self, jobs: Iterable[BatchRows]) -> Iterator[MadeBatch]:
        """The batches of the jobs, in their order."""

    def _count_bad(self, made: MadeBatch) -> None:
        """Report the images that could not be read; raise FasthgError when they are more than `skip_bad`."""
        allowed = self.options.skip_bad
        for row, message in made.failures.items():
            if row in self.bad:
                continue
            self.bad[row] = message
            if len(self.bad) <= allowed:
                _LOG.warning("row %d replaced (%d of at most %d): %s", row, len(self.bad), allowed, message)
        if made.batch is None or len(self.bad) > allowed:
            row, message = list(self.bad.items())[-1]
            raise FasthgError(
                f"row {row}: {message}; {len(self.bad)} people cannot be read and {allowed} may be replaced: "
                "restore the file, or raise skip_bad"
            )


class _JobSampler:
    """Hands a DataLoader with persistent workers the jobs of whichever epoch comes next."""

    def __init__(self) -> None:
        self.jobs: list[BatchRows] = []

    def __iter__(self) -> Iterator[BatchRows]:
        return iter(self.jobs)

    def __len__(self) -> int:
        return len(self.jobs)


class _BatchDataset(torch.utils.data.Dataset):
    """A dataset whose items are whole batches, made in the worker that is asked for them."""

    def __init__(self, make: BatchMaker) -> None:
        self.make = make

    def __getitem__(self, job: BatchRows) -> MadeBatch:
        return self.make(job)


def _as_is(made: MadeBatch) -> MadeBatch:
    return made


def _one_thread(_worker: int) -> None:
    cv2.setNumThreads(0)


class ReferenceLoader(Loader):
    """`torch.utils.data.DataLoader` over JPEGs: OpenCV decodes and warps, worker processes make whole batches."""

    def __init__(self, dataset: Dataset, options: LoaderOptions) -> None:
        super().__init__(dataset.people, options)
        self._sampler = _JobSampler()
        self._loader = torch.utils.data.DataLoader(
            _BatchDataset(BatchMaker(JpegSource(dataset), options)),
            batch_size=None,
            sampler=self._sampler,
            num_workers=options.num_workers,
            collate_fn=_as_is,
            worker_init_fn=_one_thread,
            persistent_workers=options.num_workers > 0,
            pin_memory=options.pin_memory and options.num_workers > 0,
        )

    def _make(self, jobs: Iterable[BatchRows]) -> Iterator[MadeBatch]:
        self._sampler.jobs = list(jobs)
        return iter(self._loader)


def make_loader(dataset: Dataset, **options: Any) -> Loader:
    """The reference loader; the keywords are the fields of `LoaderOptions`.

    Raises FasthgError for options that cannot be, and for a person whose box lies outside the image.
    """
    return ReferenceLoader(dataset, LoaderOptions(**options))
