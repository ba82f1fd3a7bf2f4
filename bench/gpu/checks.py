"""What is checked of the fused network, on a GPU and in Triton's interpreter alike: each call against float64, a whole
network over poisoned memory against float64, and the order of its steps.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from bench.gpu.calls import Call, Oracle, distinct_calls
from fasthg.fused.net import FusedNet
from fasthg.fused.plan import Bound, Buffer, Plan, Step
from fasthg.fused.streams import InOrder
from fasthg.kernels.layout import MAX_TILE, Grid
from fasthg.kernels.tuning import KERNELS, Choice, Config, Question, trial
from fasthg.network.model import HourglassNet
from fasthg.network.variants import VARIANTS, HourglassConfig


def reduced(variant: str) -> HourglassConfig:
    """A variant's architecture at a quarter of its width, with two stacks of few levels: for crops of 64 pixels."""
    config = VARIANTS[variant]
    depths = {-1: (2, 3), 0: (2, 2), 1: (3, 2)}[
        (config.stack_depths[0] > config.stack_depths[-1]) - (config.stack_depths[0] < config.stack_depths[-1])
    ]
    return replace(config, num_stacks=2, depths=depths, num_feats=config.num_feats // 4, stem_feats=(16, 32))


def lively(config: HourglassConfig, seed: int = 0) -> HourglassNet:
    """A network in evaluation whose normalisations are far from the identity, as after training."""
    torch.manual_seed(seed)
    model = HourglassNet(config)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
        if isinstance(module, (nn.BatchNorm2d, nn.GroupNorm)):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    return model.eval()


def expected_heatmaps(model: HourglassNet, images: Tensor) -> Tensor:
    """The network's answer in float64, by plain PyTorch."""
    with torch.inference_mode():
        return copy.deepcopy(model).double().final(images.double())


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Relative L2 distance; infinite where something is not finite."""
    error = float((found.double() - expected).norm() / expected.norm())
    return error if math.isfinite(error) else math.inf


def check_calls(network: FusedNet, images: Tensor, choices: Sequence[Choice] = ()) -> Iterator[tuple[Call, float]]:
    """Every distinct call, at its place in a run of the network over poisoned memory, with its relative error.

    By each of `choices` of configurations; without any, by what the network itself runs with.
    """
    with torch.inference_mode():
        steps, buffers = network.load(images), _poisoned(network, images)
        calls = {id(call.step): call for call in distinct_calls(network, tuple(images.shape))}
        for step in steps:
            if id(step) in calls:
                oracle = Oracle(calls[id(step)])
                for choice in choices or (None,):
                    with trial(choice) if choice else nullcontext():
                        error = oracle.relative_error()
                    yield oracle.call, error
            _run_each([step], buffers)


def poison(buffer: Buffer, tensor: Tensor) -> None:
    """NaN wherever an operator has to write before another one reads; the borders stay zero."""
    (buffer.grid.pixels(tensor) if buffer.channels else tensor).fill_(math.nan)


def run_poisoned(network: FusedNet, images: Tensor, late: bool = False) -> Tensor:
    """The network's answer where each call finds NaN in what it has to write, so that nothing old is read unseen.

    late   the side stream runs as late as the joins allow; else each step runs when it is issued

    Raises ValueError where a border is no longer zero.
    """
    with torch.inference_mode():
        steps, buffers = network.load(images), _poisoned(network, images)
        pending: list[Step] = []
        for step in steps:
            if late and step.stream == "side":
                pending.append(step)
                continue
            if step.join:
                _run_each(pending, buffers)
                pending = []
            _run_each([step], buffers)
        found = network.heatmaps(tuple(images.shape)).clone()
        for buffer, tensor in buffers.values():
            if buffer.channels:
                buffer.grid.pixels(tensor).zero_()
                if tensor.count_nonzero():
                    raise ValueError(f"a border of {buffer.grid} with {buffer.channels} channels is not zero")
    return found


def _poisoned(network: FusedNet, images: Tensor) -> dict[int, tuple[Buffer, Tensor]]:
    """The network's memory by address, all of it poisoned."""
    memory = network.plan(tuple(images.shape)).memory
    for buffer, tensor in memory.items():
        poison(buffer, tensor)
    network.heatmaps(tuple(images.shape)).fill_(math.nan)
    return {tensor.data_ptr(): (buffer, tensor) for buffer, tensor in memory.items()}


def _run_each(steps: Sequence[Step], buffers: dict[int, tuple[Buffer, Tensor]]) -> None:
    for step in steps:
        for tensor in step.written():
            if tensor.data_ptr() in buffers:
                poison(*buffers[tensor.data_ptr()])
        step.run()


def unordered(steps: Sequence[Step]) -> list[tuple[int, int]]:
    """Pairs of steps that share memory which one of them writes, and that nothing puts in an order.

    Steps of one stream run in order; one on the side stream after what was issued on the main one before the last
    fork, one on the main stream after what was issued on the side one before the last join.
    """
    touched = [{tensor.data_ptr() for tensor in step.tensors()} for step in steps]
    written = [{tensor.data_ptr() for tensor in step.written()} for step in steps]
    last, found = {"fork": 0, "join": 0}, []
    for j, step in enumerate(steps):
        last["fork"], last["join"] = j if step.fork else last["fork"], j if step.join else last["join"]
        since = last["fork"] if step.stream == "side" else last["join"]
        for i in range(since, j):
            if steps[i].stream != step.stream and (written[i] & touched[j] or touched[i] & written[j]):
                found.append((i, j))
    return found


def crossing_plan() -> Bound:
    """A plan whose main stream works at the side stream's resolution meanwhile, which no hourglass has.

    Steps, twice: first, side (reads the first's), main, last (joins), later.
    """
    plan, grid = Plan(), Grid(1, 4, 4)

    def copy(source: Tensor, target: Tensor) -> None:
        target.copy_(source)

    def side(read: Buffer, made: Buffer) -> None:
        plan.call("side", copy, read, made, writes=(1,))

    for _ in range(2):
        read, elsewhere, made, after = (Buffer(grid, 16) for _ in range(4))
        plan.call("first", torch.zero_, read, writes=(0,))
        plan.on_side(partial(side, read, made))
        plan.call("main", torch.zero_, elsewhere, writes=(0,))
        plan.join()
        plan.call("last", torch.zero_, made, writes=(0,))
        plan.call("later", torch.zero_, after, writes=(0,))
    return plan.bind(torch.float32, torch.device("cpu"))


class Late(InOrder):
    """Streams whose side steps run where they are joined, or never."""

    def __init__(self) -> None:
        super().__init__(beside=True)
        self._pending: list[Step] = []

    def launch(self, step: Step) -> None:
        if step.join:
            for late in self._pending:
                late.run()
            self._pending = []
        if step.stream == "side":
            self._pending.append(step)
        else:
            step.run()


def finds_a_late_overflow() -> bool:
    """Whether `find_overflow` names the layer where a block overflows on a side stream that is late."""
    model = lively(HourglassConfig(num_stacks=1, num_feats=16, depths=1, num_blocks=2, stem_feats=(16, 16)))
    with torch.no_grad():  # the first of two blocks, so that the second, on both streams, has a name of its own
        model.get_submodule("stacks.0.hourglass.up1.0").get_parameter("convs.1.bias").fill_(1e6)
    images = torch.rand(1, 3, 32, 32)
    return FusedNet(model, images, torch.float16, Late()).find_overflow(images) == "stacks.0.hourglass.up1.0"


def long_tiles(question: Question) -> Config:
    """A configuration of few programs: what takes the interpreter the least time."""
    return KERNELS[question.operator].only(Config(MAX_TILE, 64, 64))
