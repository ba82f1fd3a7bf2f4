"""The first step of a training, looked into: its loss and its gradients, so that a wrong backward pass shows.

Batch statistics over one or two images make the gradients of a deep network chaotic: for one crop of 256 pixels in
`small` those of float32 are 1e-2 from those of float64, and those of bf16 7e-1. So gradients are compared in a step of
their own, whose norm layers use their running statistics, and which changes nothing: there float32 is 7e-6 from
float64, and bf16 8e-3. In the study's deeper networks channels last is 3e-5 to 1e-4 from eager, and bf16 2e-2 to 3e-2.
What the backward pass through batch statistics does is not seen.

Layer normalisation keeps its statistics, and there PyTorch's channels-last kernel for CPUs is the less exact one: the
gradients of `feats64-layernorm` are 7e-3 from those of float64, against 5e-5 in the contiguous layout.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fasthg.files import atomic_path
from fasthg.network.model import HourglassNet
from training.learner import Learner
from training.loading.batches import Batch

_LOSS = "loss"  # its name in the file, beside those of the parameters
MAX_SKIPPED = 20  # steps that a gradient scaler may leave out before it has found its scale


@dataclass(frozen=True)
class FirstStep:
    """What the first step says.

    loss       of the true step
    gradients  float32 on the CPU, of every parameter, with frozen norm layers
    """

    loss: float
    gradients: dict[str, Tensor]

    def save(self, path: Path) -> None:
        """Write it to one file, as a whole or not at all."""
        loss = torch.tensor(self.loss, dtype=torch.float64)
        with atomic_path(path) as aside:
            save_file(self.gradients | {_LOSS: loss}, str(aside))

    @classmethod
    def load(cls, path: Path) -> FirstStep:
        """What `save` wrote."""
        tensors = load_file(path)
        return cls(float(tensors.pop(_LOSS)), tensors)


def take_first_step(learner: Learner, batch: Batch) -> FirstStep:
    """Let a new learner take its first step, after one that changes nothing but shows all gradients."""
    with frozen_norms(learner.model):
        _loss, gradients = step(learner, batch, learn=False)
    loss, _gradients = step(learner, batch, learn=True)
    return FirstStep(loss, gradients)


def step(learner: Learner, batch: Batch, learn: bool) -> tuple[float, dict[str, Tensor]]:
    """The loss and the gradients of a step; without `learn` the optimiser is given none."""
    found: dict[str, Tensor] = {}

    def look(*_arguments: Any) -> None:
        for name, parameter in learner.model.named_parameters():
            if parameter.grad is not None:
                found[name] = parameter.grad.detach().to("cpu", torch.float32, copy=True).contiguous()
                if not learn:
                    parameter.grad.zero_()

    hook = learner.optimizer.register_step_pre_hook(look)
    try:
        for _ in range(MAX_SKIPPED):
            loss = float(learner.learn(batch, 0).detach())
            if found:
                break
    finally:
        hook.remove()
    return loss, found


@contextlib.contextmanager
def frozen_norms(model: HourglassNet) -> Iterator[None]:
    """Norm layers use their running statistics inside, and leave them as they are."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.eval()
    yield
    for norm in norms:
        norm.train()
