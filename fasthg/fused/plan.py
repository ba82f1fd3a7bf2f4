"""A plan: operator calls in order over named buffers, and which memory each buffer gets.

Buffers are virtual while the plan grows; `Plan.bind` gives two buffers the same memory where the first was read for the
last time before the second is written. Calls on the side stream run beside the main ones until the next `join`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from fasthg.kernels.layout import Grid

Stream = Literal["main", "side"]


@dataclass(frozen=True, eq=False)
class Buffer:
    """Activations [rows, channels] in `grid`, or its partial statistics where `channels` is 0."""

    grid: Grid
    channels: int

    def allocate(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Memory for it, with zero borders."""
        if self.channels:
            return self.grid.empty(self.channels, dtype, device)
        return self.grid.empty_partials(device, torch.float64 if dtype == torch.float64 else torch.float32)


@dataclass(frozen=True)
class Step:
    """One call: `operator(*arguments)`, named after the layer that it computes.

    `fork` makes the side stream wait for what the main one was given before; `join` the main stream for the side one.
    """

    name: str
    operator: Callable[..., Any]
    arguments: tuple[Any, ...]
    stream: Stream = "main"
    fork: bool = False
    join: bool = False

    def buffers(self) -> list[Buffer]:
        """What it reads and writes."""
        return [argument for argument in self.arguments if isinstance(argument, Buffer)]

    def tensors(self) -> list[Tensor]:
        """What a bound step reads and writes, weights included."""
        return [argument for argument in self.arguments if isinstance(argument, Tensor)]


@dataclass
class Plan:
    """Calls in the order in which they are issued."""

    steps: list[Step] = field(default_factory=list)
    _fork: bool = False
    _join: bool = False
    _stream: Stream = "main"

    def call(self, name: str, operator: Callable[..., Any], *arguments: Any) -> None:
        """Append a call to the current stream."""
        fork, join = self._fork and self._stream == "side", self._join and self._stream == "main"
        self.steps.append(Step(name, operator, arguments, self._stream, fork, join))
        self._fork, self._join = self._fork and not fork, self._join and not join

    def on_side(self, branch: Callable[[], Any]) -> Any:
        """Issue the calls of `branch` on the side stream, after everything issued so far."""
        assert self._stream == "main", "branches do not nest"
        self._stream, self._fork = "side", True
        result = branch()
        self._stream, self._fork = "main", False
        return result

    def join(self) -> None:
        """The next call on the main stream waits for the side stream."""
        self._join = True

    def bind(self, dtype: torch.dtype, device: torch.device) -> tuple[list[Step], int]:
        """The same steps over real tensors, and how many bytes of activations these take."""
        last_use = self._last_uses()
        free: dict[tuple[Grid, int], list[Tensor]] = defaultdict(list)
        memory: dict[Buffer, Tensor] = {}
        allocated = 0
        bound = []
        for index, step in enumerate(self.steps):
            for buffer in step.buffers():
                if buffer not in memory:
                    pool = free[buffer.grid, buffer.channels]
                    if not pool:
                        pool.append(buffer.allocate(dtype, device))
                        allocated += pool[-1].nbytes
                    memory[buffer] = pool.pop()
            arguments = tuple(memory[a] if isinstance(a, Buffer) else a for a in step.arguments)
            bound.append(Step(step.name, step.operator, arguments, step.stream, step.fork, step.join))
            for buffer in [b for b in memory if last_use[b] == index]:
                free[buffer.grid, buffer.channels].append(memory[buffer])
        return bound, allocated

    def _last_uses(self) -> dict[Buffer, int]:
        """Step after which a buffer's memory is free: not before the join for one that the side stream touches."""
        joins = [index for index, step in enumerate(self.steps) if step.join]
        last_use: dict[Buffer, int] = {}
        for index, step in enumerate(self.steps):
            done = index
            if step.stream == "side":
                done = next((join for join in joins if join > index), len(self.steps) - 1)
            for buffer in step.buffers():
                last_use[buffer] = max(last_use.get(buffer, 0), done)
        return last_use
