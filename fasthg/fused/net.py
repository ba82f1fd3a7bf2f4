"""Any hourglass network in evaluation as a network of this project's fused operators.

Weights are folded in float64 and packed once; activations are planned once for each input shape, and two that never
live at the same time share memory; on CUDA the whole network is one graph, on the CPU one compiled program where
`fasthg.kernels.cpu` has kernels for the dtype, else the operators' PyTorch reference: right, and slow. The last head is
float32 whatever the precision, and in bf16 the last stack's trunk is too.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

import fasthg.kernels.ops  # noqa: F401  registers torch.ops.fasthg
from fasthg.errors import FasthgError
from fasthg.fused.plan import Bound, Step
from fasthg.fused.schemes import GroupNorms, MovedCut
from fasthg.fused.streams import InOrder, OnCuda, Streams
from fasthg.fused.weights import Packer
from fasthg.kernels.cpu import network as host
from fasthg.kernels.layout import padded_channels
from fasthg.network.model import HourglassNet, check_input
from fasthg.network.variants import STRIDE

MAX_SHAPES = 4  # input shapes whose buffers and graphs are kept


def fuse(
    model: HourglassNet, example: Tensor, dtype: torch.dtype, cuda_graph: bool = True, host_precision: str = "fp32"
) -> FusedNet:
    """The network over fused operators, for images [N, 3, H, W] on `example`'s device.

    dtype       of activations and weights: float16 or bfloat16 on CUDA; on the CPU also float32 and float64
    cuda_graph  replay one CUDA graph instead of launching kernel by kernel
    host_precision  what float32's products are rounded to on the CPU: one of fasthg.kernels.cpu.network.PRECISIONS

    Raises FasthgError, with the name of what it is, for a network that cannot be fused.
    """
    refusal = why_not(model, example, dtype)
    if refusal is not None:
        raise FasthgError(f"cannot fuse: {refusal}")
    if example.is_cuda:
        return FusedNet(model, example, dtype, OnCuda(example.device, cuda_graph))
    return FusedNet(model, example, dtype, InOrder(), host_precision)


def why_not(model: nn.Module, example: Tensor, dtype: torch.dtype) -> str | None:
    """Why this network, for these images, cannot be fused; None where it can."""
    if not isinstance(model, HourglassNet):
        return f"the model is a {type(model).__name__}; give a HourglassNet"
    for name, module in model.named_modules():
        if module.training:
            return f"{name or 'the model'} is in training mode; call model.eval()"
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is None:
            return f"{name} has no running statistics; train with track_running_stats=True"
    check_input(model.config, example)
    config = model.config
    widths = (*config.stem_feats, config.num_feats)
    if config.norm == "layer" and any(padded_channels(width) != width for width in widths):
        return f"norm='layer' with widths {widths}; give powers of two from 16, since padding would join the statistics"
    if example.is_cuda and dtype not in (torch.float16, torch.bfloat16):
        return f"dtype is {dtype} on {example.device}; give torch.float16 or torch.bfloat16"
    if not dtype.is_floating_point:
        return f"dtype is {dtype}; give a floating-point dtype"
    return None


@dataclass(frozen=True)
class _Shape:
    """The plan for one input shape: where images go in, where heatmaps come out, the calls in between, all of them."""

    images: Tensor
    heatmaps: Tensor
    plan: Bound
    run: Callable[[], Any]


class FusedNet:
    """Images float32 [N, 3, H, W] -> final heatmaps float32 [N, J, H/4, W/4]; a new shape is planned at its first call.

    The `MAX_SHAPES` shapes used last keep their buffers and graph. Several threads may call one network: calls take
    turns, since they share buffers, and on CUDA each waits on its own stream for the one before.

    host_precision: see `fuse`; None calls the operators one by one on the CPU too.

    Raises FasthgError for images of another device or of sides that the network's levels do not divide.
    """

    def __init__(
        self,
        model: HourglassNet,
        example: Tensor,
        dtype: torch.dtype,
        streams: Streams,
        host_precision: str | None = None,
    ) -> None:
        self.config, self.dtype, self.device, self._streams = model.config, dtype, example.device, streams
        self._host_precision = host_precision if host.runs(dtype) else None
        self._weights = Packer(model, dtype, self.device)
        self._lock = threading.RLock()
        self._shapes: OrderedDict[tuple[int, ...], _Shape] = OrderedDict()
        self._shape(tuple(example.shape))

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        with self._lock:
            shape = self._load(images)
            shape.run()
            heatmaps = torch.empty_like(shape.heatmaps)
            _copy(shape.heatmaps, heatmaps)
            self._streams.leave()
            return heatmaps

    @torch.inference_mode()
    def find_overflow(self, images: Tensor) -> str | None:
        """Name of the first layer whose result is not finite for these images; None where all are.

        Step by step on one stream, so that each result is there when it is looked at.
        """
        with self._lock:
            try:
                for step in self._load(images).plan.steps:
                    step.run()
                    if not all(tensor.isfinite().all() for tensor in step.written()):
                        return step.name
                return None
            finally:
                self._streams.leave()

    def plan(self, shape: tuple[int, ...]) -> Bound:
        """The operator calls for images of this shape, in the order in which they are launched, and their memory."""
        with self._lock:
            return self._shape(shape).plan

    def steps(self, shape: tuple[int, ...]) -> list[Step]:
        """The operator calls alone."""
        return self.plan(shape).steps

    def load(self, images: Tensor) -> list[Step]:
        """Put images where the plan reads them; returns its steps, for who wants to look at each."""
        with self._lock:
            return self._load(images).plan.steps

    def heatmaps(self, shape: tuple[int, ...]) -> Tensor:
        """Where the plan for this shape leaves its heatmaps."""
        with self._lock:
            return self._shape(shape).heatmaps

    def activation_bytes(self, shape: tuple[int, ...]) -> int:
        """Memory that the activations for images of this shape take."""
        return self.plan(shape).activation_bytes

    def _load(self, images: Tensor) -> _Shape:
        check_input(self.config, images)
        if images.device != self.device:
            raise FasthgError(f"images are on {images.device}; move them to {self.device}, where the network is")
        shape = self._shape(tuple(images.shape))
        self._streams.enter()
        _copy(images, shape.images)
        return shape

    @torch.inference_mode(False)  # inference tensors could not be written to by somebody who looks at single steps
    def _shape(self, shape: tuple[int, ...]) -> _Shape:
        if shape not in self._shapes:
            while len(self._shapes) >= MAX_SHAPES:
                self._shapes.popitem(last=False)
            self._shapes[shape] = self._planned(shape)
        self._shapes.move_to_end(shape)
        return self._shapes[shape]

    def _planned(self, shape: tuple[int, ...]) -> _Shape:
        batch, _, height, width = shape
        wide = torch.float64 if self.dtype == torch.float64 else torch.float32
        images = torch.zeros(shape, dtype=wide, device=self.device)
        heatmaps = images.new_zeros(batch, self.config.num_joints, height // STRIDE, width // STRIDE)
        scheme = GroupNorms if self.config.norm == "layer" else MovedCut
        plan = scheme(self._weights, images, heatmaps, self._streams.beside).plan.bind(self.dtype, self.device)

        if self._host_precision:
            return _Shape(images, heatmaps, plan, _compile(plan.steps, self._host_precision))

        def run() -> None:
            for step in plan.steps:
                self._streams.launch(step)

        return _Shape(images, heatmaps, plan, self._streams.capture(run))


def _copy(source: Tensor, target: Tensor) -> None:
    """Fill `target`; on the CPU by this thread alone: torch's threads look for more work for milliseconds, on the cores
    that the program is about to use."""
    if target.is_cuda:
        target.copy_(source)
    else:
        target.numpy()[...] = source.detach().numpy()


def _compile(steps: list[Step], precision: str) -> Callable[[], None]:
    """The steps as few compiled programs, in their order; what has no kernel on the CPU stays a call."""
    names: dict[object, str] = {getattr(torch.ops.fasthg, name): name for name in host.operators()}
    programs: list[Callable[[], object]] = []
    for compiled, group in groupby(steps, lambda step: step.operator in names):
        if compiled:
            programs.append(host.Program(((names[step.operator], step.arguments) for step in group), precision))
        else:
            programs += [partial(step.operator, *step.arguments) for step in group]

    def run() -> None:
        for program in programs:
            program()

    return run
