"""What a loader is, and the reference: a plain DataLoader over JPEGs, the meaning that the others are held to."""

from __future__ import annotations

import logging
import math
import os
import shutil
import signal
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from fasthg.ahead import map_ahead
from fasthg.console import note
from fasthg.data.dataset import Dataset
from fasthg.data.people import People
from fasthg.errors import FasthgError
from fasthg.pixels.image import read_encoded, read_image
from training.loading.batches import Batch, BatchMaker, LoaderOptions, MadeBatch, Source
from training.loading.checks import check_boxes
from training.loading.sampling import BatchRows

SHARED_MEMORY = "/dev/shm"  # where PyTorch's loader processes put their batches
_LOG = logging.getLogger(__name__)


class JpegSource:
    """The images of a dataset as they lie in its folder, decoded by OpenCV."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.people = dataset.people

    def choose_views(
        self, rows: NDArray[np.int64], matrices: NDArray[np.float64], _size: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        return np.zeros_like(rows), matrices

    def read(self, row: int, _view: int) -> NDArray[np.uint8]:
        return read_image(self.dataset.image_path(row))

    def read_encoded(self, row: int, _view: int) -> bytes:
        return read_encoded(self.dataset.image_path(row))


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


def _as_is(made: Any) -> Any:
    return made


def _start_worker(_worker: int) -> None:
    """One thread; a SIGTERM to the whole process group ends the worker quietly, and the training process says so."""
    cv2.setNumThreads(0)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))


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
            worker_init_fn=_start_worker,
            persistent_workers=options.num_workers > 0,
            pin_memory=options.pin_memory and options.num_workers > 0,
        )

    def _make(self, jobs: Iterable[BatchRows]) -> Iterator[MadeBatch]:
        self._sampler.jobs = list(jobs)
        return iter(self._loader)


class ThreadLoader(Loader):
    """Threads of this process make whole batches: OpenCV and the JPEG decoder work outside the interpreter's lock.

    Nothing is copied between processes. `num_workers` threads keep twice as many batches under way.
    """

    def __init__(self, source: Source, options: LoaderOptions) -> None:
        super().__init__(source.people, options)
        self._maker = BatchMaker(source, options)

    def _make(self, jobs: Iterable[BatchRows]) -> Iterator[MadeBatch]:
        return map_ahead(self._maker, jobs, self.options.num_workers)


def make_loader(dataset: Dataset, **options: Any) -> Loader:
    """The reference loader; the keywords are the fields of `LoaderOptions`.

    Where the memory that processes share is too small for its batches (64 MB in a container, unless it is asked for
    more), threads make the same batches, and a note says so. Raises FasthgError for options that cannot be, and for a
    person whose box lies outside the image.
    """
    check_boxes(dataset)
    chosen = LoaderOptions(**options)
    needed, free = chosen.shared_bytes, _free_shared_memory()
    if needed <= free:
        return ReferenceLoader(dataset, chosen)
    note(
        f"{SHARED_MEMORY} has {free / 2**20:.0f} MiB free and {chosen.num_workers} loader processes need "
        f"{needed / 2**20:.0f}: threads load instead; docker run --shm-size 1g gives more"
    )
    return ThreadLoader(JpegSource(dataset), chosen)


def _free_shared_memory() -> float:
    """Bytes that processes may still share; no limit where the system keeps them elsewhere."""
    return shutil.disk_usage(SHARED_MEMORY).free if os.path.isdir(SHARED_MEMORY) else math.inf
