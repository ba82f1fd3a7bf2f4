"""A plan: operator calls in order over named buffers, and which memory each buffer gets.

Buffers are virtual while the plan grows; `Plan.bind` gives two buffers the same memory where the first was read for the
last time before the second is written. Calls on the side stream run beside the main ones until the next `join`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from fasthg.kernels.layout import Grid

Stream = Literal["main", "side"]


@dataclass(frozen=True, eq=False)
class Buffer:
    """Activations [rows, channels] in `grid`, or its partial statistics where `channels` is 0; `exact`: float32."""

    grid: Grid
    channels: int
    exact: bool = False

    def allocate(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Memory for it, with zero borders."""
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        if self.channels:
            return self.grid.empty(self.channels, wide if self.exact else dtype, device)
        return self.grid.empty_partials(device, wide)


@dataclass(frozen=True)
class Step:
    """One call: `operator(*arguments)`, named after the layer that it computes; it writes the arguments in `writes`.

    `fork` makes the side stream wait for what the main one was given before; `join` the main stream for the side one.
    """

    name: str
    operator: Callable[..., Any]
    arguments: tuple[Any, ...]
    writes: tuple[int, ...]
    stream: Stream = "main"
    fork: bool = False
    join: bool = False

    def buffers(self) -> list[Buffer]:
        """What it reads and writes."""
        return [argument for argument in self.arguments if isinstance(argument, Buffer)]

    def tensors(self) -> list[Tensor]:
        """What a bound step reads and writes, weights included."""
        return [argument for argument in self.arguments if isinstance(argument, Tensor)]

    def written(self) -> list[Tensor]:
        """What a bound step writes."""
        return [argument for i in self.writes if isinstance(argument := self.arguments[i], Tensor)]

    def run(self) -> None:
        """Make the call, on the current stream."""
        self.operator(*self.arguments)


@dataclass(frozen=True)
class Bound:
    """A plan over real tensors: its steps, the memory that buffers share, and how many bytes that takes."""

    steps: list[Step]
    memory: dict[Buffer, Tensor]

    @property
    def activation_bytes(self) -> int:
        """Bytes of all activations, shared memory counted once."""
        return sum({tensor.data_ptr(): tensor.nbytes for tensor in self.memory.values()}.values())


def written_arguments(operator: Any) -> tuple[int, ...]:
    """Which arguments an operator of torch.ops writes."""
    arguments = operator.default._schema.arguments
    return tuple(i for i, a in enumerate(arguments) if a.alias_info is not None and a.alias_info.is_write)


@dataclass
class Plan:
    """Calls in the order in which they are issued."""

    steps: list[Step] = field(default_factory=list)
    _fork: bool = False
    _join: bool = False
    _stream: Stream = "main"

    def call(
        self, name: str, operator: Callable[..., Any], *arguments: Any, writes: tuple[int, ...] | None = None
    ) -> None:
        """Append a call to the current stream; `writes` for what is no operator of torch.ops."""
        fork, join = self._fork and self._stream == "side", self._join and self._stream == "main"
        writes = written_arguments(operator) if writes is None else writes
        self.steps.append(Step(name, operator, arguments, writes, self._stream, fork, join))
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

    def bind(self, dtype: torch.dtype, device: torch.device) -> Bound:
        """The same steps over real tensors."""
        last_use = self._last_uses()
        free: dict[tuple[Grid, int, bool], list[Tensor]] = defaultdict(list)
        bound = Bound([], {})
        for index, step in enumerate(self.steps):
            for buffer in step.buffers():
                if buffer not in bound.memory:
                    pool = free[buffer.grid, buffer.channels, buffer.exact]
                    bound.memory[buffer] = pool.pop() if pool else buffer.allocate(dtype, device)
            arguments = tuple(bound.memory[a] if isinstance(a, Buffer) else a for a in step.arguments)
            bound.steps.append(replace(step, arguments=arguments))
            for buffer in [b for b in bound.memory if last_use[b] == index]:
                free[buffer.grid, buffer.channels, buffer.exact].append(bound.memory[buffer])
        return bound

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
