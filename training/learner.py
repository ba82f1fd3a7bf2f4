"""A network that learns: one optimiser step on a batch, and everything that has to be kept to go on with the next."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from fasthg.network.checkpoint import load_into
from fasthg.network.load import Matched, find_weights, load_matching
from fasthg.network.model import HourglassNet
from fasthg.network.precision import without_tf32
from fasthg.network.variants import STRIDE
from fasthg.pixels.heatmap import render_targets
from fasthg.runtimes.paths import training_setup
from training.distributed import World
from training.loading.batches import Batch
from training.loss import heatmap_loss
from training.memory import keep_freed_memory
from training.optim import Schedule, WeightAverage, make_optimizer, set_learning_rate
from training.recipes import Recipe
from training.teacher import Teacher


class Learner:
    """The network of a recipe, its optimiser, scaler, learning rate and weight average.

    Whatever is random is drawn from (seed, step, rank), so `state_dict()` and the number of the step are all that a
    later process needs to take the same next step, bit for bit.
    """

    def __init__(
        self,
        recipe: Recipe,
        total_steps: int,
        world: World,
        init_weights: Path | None = None,
        start: str | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        self.recipe, self.world = recipe, world
        self.matched: Matched | None = None
        if world.device.type == "cpu":
            keep_freed_memory()
        self.setup = training_setup(recipe.path, world.device)
        self.schedule = Schedule(
            recipe.schedule, recipe.lr, total_steps, recipe.warmup, recipe.milestones, recipe.gamma
        )
        self.model = self._make_model(init_weights, start)
        self.teacher = teacher.to(world.device, self.memory_format) if teacher else None
        self.average = WeightAverage(self.model, recipe.ema) if recipe.ema else None
        self.network = world.wrap(self.model, recipe.sync_norm)
        self.optimizer = make_optimizer(
            recipe.optimizer, self.model.parameters(), recipe.lr, recipe.momentum, recipe.weight_decay
        )
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=self.setup.amp_dtype is torch.float16)

    def _make_model(self, init_weights: Path | None, start: str | None) -> HourglassNet:
        torch.manual_seed(self.recipe.seed)
        model = HourglassNet(self.recipe.config)
        if init_weights:
            load_into(model, find_weights(init_weights))
        elif start:
            self.matched = load_matching(model, start)
        model = model.to(self.world.device, memory_format=self.memory_format).train()  # type: ignore[call-overload]
        if self.recipe.freeze_norm:
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        if self.setup.compile:
            # One hourglass at a time: its code is compiled once and serves every stack of the same depth.
            for hourglass in (stack.hourglass for stack in model.stacks):
                hourglass.compile()
        return model

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.setup.channels_last else torch.contiguous_format

    def autocast(self) -> torch.autocast:
        """The precision of the recipe's path, on or off."""
        dtype = self.setup.amp_dtype
        return torch.autocast(self.world.device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)

    @without_tf32()
    def learn(self, batch: Batch, step: int) -> Tensor:
        """Step number `step` on this rank's part of a batch; returns its loss, a scalar on the device."""
        recipe = self.recipe
        if recipe.dropout:
            torch.manual_seed(hash((recipe.seed, step, self.world.rank)) % 2**63)
        set_learning_rate(self.optimizer, self.schedule(step))
        loss = torch.zeros((), device=self.world.device)
        parts = list(zip(*(tensor.chunk(recipe.accumulate) for tensor in self._on_device(batch))))
        for number, (images, targets, weights) in enumerate(parts, start=1):
            with self._exchange_gradients(number == len(parts)):
                with self.autocast():
                    heatmaps = self.network(images)
                    taught = self.teacher(images) if self.teacher else None
                part_loss = heatmap_loss(heatmaps, targets, weights)
                if self.teacher and taught is not None:
                    part_loss = self.teacher.mix(part_loss, heatmaps, taught)
                self.scaler.scale(part_loss / len(parts)).backward()
            loss += part_loss.detach() / len(parts)
        if recipe.clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average:
            self.average.update(self.model)
        return loss

    def _on_device(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Images [N,3,S,S], targets [N,J,S/4,S/4] and weights [N,J] of a batch."""
        device = self.world.device
        images = batch.images.to(device, memory_format=self.memory_format, non_blocking=True)
        joints, weights = (tensor.to(device, non_blocking=True) for tensor in (batch.joints, batch.weights))
        side = self.recipe.size // STRIDE
        return images, render_targets(joints, weights, (side, side), self.recipe.sigma), weights

    def _exchange_gradients(self, exchange: bool) -> contextlib.AbstractContextManager[Any]:
        """Ranks average their gradients in the backward pass inside, or keep them to themselves for the time being."""
        if not exchange and isinstance(self.network, nn.parallel.DistributedDataParallel):
            return self.network.no_sync()
        return contextlib.nullcontext()

    @property
    def evaluated(self) -> HourglassNet:
        """The network that is validated and shipped: the average where there is one."""
        return cast(HourglassNet, self.average.model) if self.average else self.model

    @without_tf32()
    def predict(self, images: Tensor) -> Tensor:
        """Images float32 [N,3,S,S] -> final heatmaps float32 [N,J,S/4,S/4] of the evaluated network."""
        model = self.evaluated
        training = [module for module in model.modules() if module.training]
        model.eval()
        with self.autocast():
            heatmaps = model.final(images.to(self.world.device, memory_format=self.memory_format)).float()
        for module in training:
            module.training = True
        return heatmaps

    @torch.no_grad()
    def average_statistics(self) -> None:
        """Make the running statistics of batch normalisation the means over all ranks, in the average of weights too.

        They are moving averages, linear in what they have seen, so this gives what averaging at every step would give,
        but for the rounding: a run that is to be the same bit for bit does so at the same steps.
        """
        self.world.average(self._buffers())

    def statistics(self) -> Tensor:
        """This rank's own running statistics, of the average of weights too, in one row."""
        return torch.cat([torch.empty(0, device=self.world.device), *map(torch.flatten, self._buffers())])

    def _buffers(self) -> list[Tensor]:
        models = [self.model, self.average.model] if self.average else [self.model]
        return [buffer for model in models for buffer in model.buffers() if buffer.is_floating_point()]

    def not_finite(self) -> str | None:
        """Name of the first weight or statistic that is NaN or infinite; None where all is well."""
        tensors = {name: tensor for name, tensor in self.model.state_dict().items() if tensor.is_floating_point()}
        finite = torch.stack([tensor.isfinite().all() for tensor in tensors.values()]).tolist()
        return next((name for name, well in zip(tensors, finite) if not well), None)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values to go on from: this rank's, and the running statistics of all; all ranks call it."""
        return {
            "statistics": self.world.gather(self.statistics()),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average.state_dict() if self.average else None,
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()` of the same recipe: bit for bit on as many ranks, else with the ranks' means."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average:
            self.average.load_state_dict(state["average"])
        if "statistics" in state:  # an earlier release's are means, in the model and the average themselves
            ranks = state["statistics"]
            mine = ranks[self.world.rank] if len(ranks) == self.world.size else ranks.mean(dim=0)
            buffers = self._buffers()
            for buffer, kept in zip(buffers, mine.split([buffer.numel() for buffer in buffers])):
                buffer.copy_(kept.view_as(buffer))
