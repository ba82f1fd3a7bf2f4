"""Optimisers by name, the learning rate as a function of the step, and the moving average of the weights."""

from __future__ import annotations

import copy
import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fasthg.errors import FasthgError


def _adam(momentum: float) -> dict[str, Any]:
    return {"betas": (momentum, 0.999), "fused": True}


#: Optimisers by name, and their options for a momentum; Adam's is its first beta.
OPTIMIZERS: dict[str, tuple[type[torch.optim.Optimizer], Callable[[float], dict[str, Any]]]] = {
    "rmsprop": (torch.optim.RMSprop, lambda momentum: {"momentum": momentum}),
    "adam": (torch.optim.Adam, _adam),
    "adamw": (torch.optim.AdamW, _adam),
    "sgd": (torch.optim.SGD, lambda momentum: {"momentum": momentum, "fused": True}),
}


def make_optimizer(
    name: str, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.0, weight_decay: float = 0.0
) -> torch.optim.Optimizer:
    """One of `OPTIMIZERS`; raises FasthgError that lists the names."""
    if name not in OPTIMIZERS:
        raise FasthgError(f"unknown optimizer {name!r}; choose one of {', '.join(OPTIMIZERS)}")
    kind, options = OPTIMIZERS[name]
    return kind(parameters, lr=lr, weight_decay=weight_decay, **options(momentum))  # type: ignore[call-arg]


SCHEDULES = ("constant", "step", "cosine")


@dataclass(frozen=True)
class Schedule:
    """The learning rate of every step: a function, so a resumed run needs no state of it.

    kind         "constant"; "step": times `gamma` at each milestone; "cosine": half a cosine from `lr` to zero
    lr           after the warm-up, before any decay
    total_steps  of the run
    warmup       steps in which the rate rises linearly to `lr`
    milestones   shares of the run, ascending
    """

    kind: str
    lr: float
    total_steps: int
    warmup: int = 0
    milestones: Sequence[float] = ()
    gamma: float = 0.1

    def __post_init__(self) -> None:
        if self.kind not in SCHEDULES:
            raise FasthgError(f"unknown schedule {self.kind!r}; choose one of {', '.join(SCHEDULES)}")

    def __call__(self, step: int) -> float:
        """Learning rate of step number `step`, counted from 0."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        if self.kind == "step":
            reached = bisect_right([share * self.total_steps for share in self.milestones], step)
            return self.lr * self.gamma**reached
        if self.kind == "cosine":
            done = (step - self.warmup) / max(1, self.total_steps - self.warmup)
            return self.lr * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
        return self.lr


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every parameter group the learning rate `lr`."""
    for group in optimizer.param_groups:
        group["lr"] = lr


class WeightAverage:
    """Exponential moving average of a model's weights and batch statistics.

    Update n, counted from 0, moves the average by 1 - min(decay, (1 + n) / (10 + n)), so it soon forgets the initial
    weights. (`torch.optim.swa_utils.AveragedModel` has no such ramp, and waits for the GPU at every update.)
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0.0 < decay < 1.0:
            raise FasthgError(f"ema is {decay}; give a decay between 0 and 1, such as 0.999, or 0 to switch it off")
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average toward the model's present weights."""
        move = 1.0 - min(self.decay, (1.0 + self.updates) / (10.0 + self.updates))
        averages, currents = self.model.state_dict(), model.state_dict()
        floating = [name for name, tensor in averages.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([averages[name] for name in floating], [currents[name] for name in floating], move)
        for name in averages.keys() - set(floating):
            averages[name].copy_(currents[name])
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights and the number of updates."""
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`."""
        self.model.load_state_dict(state["model"])
        self.updates = state["updates"]
