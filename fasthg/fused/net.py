"""Any hourglass network in evaluation as a network of this project's fused operators.

Weights are folded in float64 and packed once; activations are planned once for each input shape, and two that never
live at the same time share memory; on CUDA the whole network is one graph, on the CPU one compiled program where
`fasthg.kernels.cpu` has kernels for the dtype, else the operators' PyTorch reference: right, and slow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Literal

import torch
from torch import Tensor, nn

import fasthg.kernels.ops  # noqa: F401  registers torch.ops.fasthg
from fasthg.errors import FasthgError
from fasthg.fused.plan import Step
from fasthg.fused.schemes import GroupNorms, MovedCut, Scheme, WholeBlocks
from fasthg.fused.weights import Packer
from fasthg.kernels.cpu import network as host
from fasthg.kernels.layout import padded_channels
from fasthg.network.model import HourglassNet, check_input
from fasthg.network.variants import STRIDE

Blocks = Literal["moved_cut", "whole"]


def fuse(
    model: HourglassNet,
    example: Tensor,
    dtype: torch.dtype,
    blocks: Blocks = "moved_cut",
    cuda_graph: bool = True,
    host_precision: str = "fp32",
) -> FusedNet:
    """The network over fused operators, for images [N, 3, H, W] on `example`'s device.

    dtype       of activations and weights: float16 or bfloat16 on CUDA; on the CPU also float32 and float64
    blocks      "moved_cut": one kernel a bottleneck, which also starts its readers; "whole": one with a halo
    cuda_graph  replay one CUDA graph instead of launching kernel by kernel
    host_precision  what float32's products are rounded to on the CPU: one of fasthg.kernels.cpu.network.PRECISIONS

    Raises FasthgError, with the name of what it is, for a network that cannot be fused.
    """
    refusal = why_not(model, example, dtype, blocks)
    if refusal is not None:
        raise FasthgError(f"cannot fuse: {refusal}")
    return FusedNet(model, example, dtype, blocks, cuda_graph, host_precision)


def why_not(model: nn.Module, example: Tensor, dtype: torch.dtype, blocks: Blocks = "moved_cut") -> str | None:
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
    if blocks == "whole" and (config.norm != "batch" or config.num_convs != 3):
        return f"whole blocks with norm={config.norm!r} and num_convs={config.num_convs}; they are for 'batch' and 3"
    if example.is_cuda and dtype not in (torch.float16, torch.bfloat16):
        return f"dtype is {dtype} on {example.device}; give torch.float16 or torch.bfloat16"
    if not dtype.is_floating_point:
        return f"dtype is {dtype}; give a floating-point dtype"
    return None


@dataclass
class _Bound:
    """The plan for one input shape: where images go in, where heatmaps come out, and the calls in between."""

    images: Tensor
    heatmaps: Tensor
    steps: list[Step]
    activation_bytes: int
    graph: torch.cuda.CUDAGraph | None = None
    programs: list[Callable[[], object]] = field(default_factory=list)  # the steps, compiled for the CPU


class FusedNet:
    """Images float32 [N, 3, H, W] -> final heatmaps float32 [N, J, H/4, W/4]; a new shape is planned at its first call.

    Raises FasthgError for images of another device or of sides that the network's levels do not divide.
    """

    def __init__(
        self,
        model: HourglassNet,
        example: Tensor,
        dtype: torch.dtype,
        blocks: Blocks,
        cuda_graph: bool,
        host_precision: str = "fp32",
    ) -> None:
        self._host_precision = host_precision
        self.config, self.dtype, self.device = model.config, dtype, example.device
        self._scheme: type[Scheme] = {"moved_cut": MovedCut, "whole": WholeBlocks}[blocks]
        if self.config.norm == "layer":
            self._scheme = GroupNorms
        self._weights = Packer(model, dtype, self.device)
        self._cuda_graph = cuda_graph and self.device.type == "cuda"
        self._side = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        self._bound: dict[tuple[int, ...], _Bound] = {}
        self._bind(tuple(example.shape))

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        bound = self._load(images)
        if bound.graph is not None:
            bound.graph.replay()
        elif bound.programs:
            for program in bound.programs:
                program()
        else:
            self._run(bound)
        return bound.heatmaps.clone()

    @torch.inference_mode()
    def find_overflow(self, images: Tensor) -> str | None:
        """Name of the first layer whose result is not finite for these images; None where all are."""
        bound = self._load(images)
        for step in bound.steps:
            self._launch(step)
            if not all(tensor.isfinite().all() for tensor in step.tensors()):
                return step.name
        return None

    def steps(self, shape: tuple[int, ...]) -> list[Step]:
        """The operator calls for images of this shape, in the order in which they are launched."""
        return self._bind(shape).steps

    def activation_bytes(self, shape: tuple[int, ...]) -> int:
        """Memory that the activations for images of this shape take."""
        return self._bind(shape).activation_bytes

    def _load(self, images: Tensor) -> _Bound:
        check_input(self.config, images)
        if images.device != self.device:
            raise FasthgError(f"images are on {images.device}; move them to {self.device}, where the network is")
        bound = self._bind(tuple(images.shape))
        bound.images.copy_(images)
        return bound

    @torch.inference_mode(False)  # inference tensors could not be written to by somebody who looks at single steps
    def _bind(self, shape: tuple[int, ...]) -> _Bound:
        if shape not in self._bound:
            batch, _, height, width = shape
            wide = torch.float64 if self.dtype == torch.float64 else torch.float32
            images = torch.zeros(shape, dtype=wide, device=self.device)
            heatmaps = images.new_zeros(batch, self.config.num_joints, height // STRIDE, width // STRIDE)
            scheme = self._scheme(self._weights, images, heatmaps)
            bound = _Bound(images, heatmaps, *scheme.plan.bind(self.dtype, self.device))
            if self._cuda_graph:
                bound.graph = self._capture(bound)
            if self.device.type == "cpu" and host.runs(self.dtype):
                bound.programs = list(_host_programs(bound.steps, self._host_precision))
            self._bound[shape] = bound
        return self._bound[shape]

    def _capture(self, bound: _Bound) -> torch.cuda.CUDAGraph:
        warm_up = torch.cuda.Stream(self.device)  # kernels are compiled before the capture, which may not compile
        warm_up.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(warm_up):
            self._run(bound)
        torch.cuda.current_stream(self.device).wait_stream(warm_up)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._run(bound)
        return graph

    def _run(self, bound: _Bound) -> None:
        for step in bound.steps:
            self._launch(step)

    def _launch(self, step: Step) -> None:
        if self._side is None:
            step.operator(*step.arguments)
            return
        main = torch.cuda.current_stream(self.device)
        if step.fork:
            self._side.wait_stream(main)
        if step.join:
            main.wait_stream(self._side)
        with torch.cuda.stream(self._side if step.stream == "side" else main):
            step.operator(*step.arguments)


def _host_programs(steps: list[Step], precision: str) -> Iterator[Callable[[], object]]:
    """The steps as few compiled programs, in their order; what has no kernel on the CPU stays a call."""
    names: dict[object, str] = {getattr(torch.ops.fasthg, name): name for name in host.operators()}
    for compiled, group in groupby(steps, lambda step: step.operator in names):
        if compiled:
            yield host.Program(((names[step.operator], step.arguments) for step in group), precision)
        else:
            yield from (partial(step.operator, *step.arguments) for step in group)
