"""Several devices by `torchrun`: who this process is, and the few things that all of them do together."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch import distributed as dist

from fasthg.errors import FasthgError


@dataclass(frozen=True)
class World:
    """This process among those that train together; one process alone is rank 0 of 1."""

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process writes files and talks to the user."""
        return self.rank == 0

    def wrap(self, model: nn.Module, sync_norm: bool) -> nn.Module:
        """`model`, averaging its gradients over the world."""
        if self.size == 1:
            return model
        if sync_norm:
            if self.device.type != "cuda":
                raise FasthgError("sync_norm needs GPUs: PyTorch's SyncBatchNorm does not run on a CPU; leave it out")
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return nn.parallel.DistributedDataParallel(
            model,
            device_ids=[self.device.index] if self.device.type == "cuda" else None,
            gradient_as_bucket_view=True,
            broadcast_buffers=False,  # each rank has statistics of its own batches: see `average`
        )

    def mean(self, values: Tensor) -> Tensor:
        """Mean of `values` over the world; the same on every rank."""
        if self.size > 1:
            dist.all_reduce(values)
            values /= self.size
        return values

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace floating `tensors` by their means over the world, in one exchange."""
        if self.size == 1 or not tensors:
            return
        whole = self.mean(torch.cat([tensor.flatten() for tensor in tensors]))
        for tensor, mean in zip(tensors, whole.split([tensor.numel() for tensor in tensors])):
            tensor.copy_(mean.view_as(tensor))

    def gather(self, mine: Tensor) -> Tensor:
        """Every rank's tensor, which are all of one shape, stacked by rank: [size, ...] on every rank."""
        if self.size == 1:
            return mine[None]
        theirs = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(theirs, mine)
        return torch.stack(theirs)

    def as_leader(self, conditions: tuple[bool, ...]) -> tuple[bool, ...]:
        """What the rank that leads says of `conditions`; clocks differ from rank to rank."""
        if self.size == 1:
            return conditions
        shared = torch.tensor(conditions, dtype=torch.uint8, device=self.device)
        dist.broadcast(shared, 0)
        return tuple(map(bool, shared.tolist()))

    def gather_rows(self, num_rows: int, rows: NDArray[np.int64], mine: NDArray[np.float64]) -> NDArray[np.float64]:
        """[num_rows, ...] from the rows that each rank holds; every row has to be held by exactly one."""
        whole = np.zeros((num_rows, *mine.shape[1:]))
        counts = np.zeros(num_rows)
        whole[rows], counts[rows] = mine, 1.0
        if self.size > 1:
            for array in (whole, counts):
                shared = torch.from_numpy(array).to(self.device)
                dist.all_reduce(shared)
                array[...] = shared.cpu().numpy()
        if (counts != 1.0).any():
            raise RuntimeError(f"row {np.flatnonzero(counts != 1.0)[0]} was predicted {counts.min():g} times, not once")
        return whole

    def wait(self) -> None:
        """Go on when every rank has come here."""
        if self.size > 1:
            dist.barrier()


def join_world(device: torch.device) -> World:
    """The world that `torchrun` describes in the environment; a process that it did not start is alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World(0, 1, device)
    local_rank = int(os.environ["LOCAL_RANK"])
    if device.type == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise FasthgError(
                f"local rank {local_rank} has no GPU of its own ({torch.cuda.device_count()} here); "
                "give torchrun --nproc-per-node as many processes as there are GPUs"
            )
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return World(dist.get_rank(), size, device)


def leave_world() -> None:
    """End what `join_world` began."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
