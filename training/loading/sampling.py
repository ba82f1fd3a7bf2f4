"""The order of an epoch and its division between ranks: a function of (seed, epoch), shared by every loader."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fasthg.errors import FasthgError

_ORDER_STREAM = 0  # the draws of the augmentation are stream 1 of the same seed, see training/loading/augment.py


class BatchRows(NamedTuple):
    """A batch to be made: the epoch whose draws it takes, and its rows int64 [n] of the people."""

    epoch: int
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class EpochOrder:
    """Which rows make which batch on which rank.

    Rank r takes every `world_size`-th person from the r-th on, so the ranks' batches number b hold, together, the same
    people as batch b of one process with a batch `world_size` times as large. Every person comes exactly once between
    the ranks. With `drop_last` only whole batches remain, equally many on every rank, which collective training needs;
    without it, the ranks' people differ by at most one, and so the last batch may exist on some ranks only.

    Raises FasthgError for a rank outside the world, a batch size below 1, or a shard that makes no batch.
    """

    num_people: int
    batch_size: int
    seed: int = 0
    shuffle: bool = False
    rank: int = 0
    world_size: int = 1
    drop_last: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise FasthgError(f"batch size is {self.batch_size}; give at least 1")
        if not 0 <= self.rank < self.world_size:
            raise FasthgError(f"rank is {self.rank} of {self.world_size}; ranks count from 0")
        if not len(self):
            raise FasthgError(
                f"{self.num_people} people make no batch of {self.batch_size} on each of {self.world_size} ranks; "
                "give a smaller batch size or more people"
            )

    def __len__(self) -> int:
        """Batches of an epoch on this rank."""
        if self.drop_last:
            return self.num_people // (self.batch_size * self.world_size)
        return -(-self._shard_size // self.batch_size)

    @property
    def rows_per_epoch(self) -> int:
        """People of an epoch on this rank."""
        return min(self._shard_size, len(self) * self.batch_size)

    @property
    def _shard_size(self) -> int:
        return len(range(self.rank, self.num_people, self.world_size))

    def rows(self, epoch: int) -> NDArray[np.int64]:
        """Rows of this rank in an epoch, in their order, int64 [rows_per_epoch]."""
        if self.shuffle:
            order = np.random.default_rng([self.seed, epoch, _ORDER_STREAM]).permutation(self.num_people)
        else:
            order = np.arange(self.num_people)
        return order[self.rank :: self.world_size][: self.rows_per_epoch]

    def batches(self, epoch: int, start_batch: int = 0) -> Iterator[BatchRows]:
        """The batches of an epoch on this rank, from number `start_batch` on."""
        rows = self.rows(epoch)
        for start in range(start_batch * self.batch_size, len(rows), self.batch_size):
            yield BatchRows(epoch, rows[start : start + self.batch_size])
