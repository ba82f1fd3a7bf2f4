"""The distinct operator calls of a fused network: each checked against float64, timed, and set against the roof."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.measure.timing import measure
from fasthg.fused.net import FusedNet
from fasthg.fused.plan import Step
from fasthg.kernels.ops.dispatch import by_triton
from fasthg.metrics import agreement
from fasthg.runtimes.request import DTYPES

GRAPH_S, REPLAYS = 5e-4, 10  # seconds of one graph of launches that are timed, and how often it is replayed
TOLERANCES = {dtype: agreement.TOLERANCES[name].operator for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Call:
    """One operator on arguments of one shape, as a network makes it `count` times.

    flops   two for each multiply-add
    moved   bytes of every argument, each read or written once
    """

    operator: str
    layer: str
    step: Step
    count: int
    flops: int
    moved: int

    def run(self) -> None:
        """Launch it, over the network's own buffers."""
        self.step.operator(*self.step.arguments)

    @property
    def tolerance(self) -> float:
        """Relative error that its products' dtype allows: that of its weights, or of what it moves."""
        named = {a.name: value for a, value in zip(_schema(self.step), self.step.arguments)}
        weights = [value for name, value in named.items() if name.endswith("weight") and isinstance(value, Tensor)]
        return TOLERANCES[(weights or self.step.tensors())[0].dtype]

    def floor(self, tflops: float, gb_s: float) -> float:
        """Seconds that the machine's limits leave it."""
        return max(self.flops / (tflops * 1e12), self.moved / (gb_s * 1e9))


def distinct_calls(network: FusedNet, shape: tuple[int, ...]) -> list[Call]:
    """The network's calls for images of this shape, those that differ in weights alone taken together."""
    found: dict[tuple[Any, ...], Call] = {}
    for step in network.steps(shape):
        if not hasattr(step.operator, "default"):
            continue  # a plain copy, no operator
        key = (step.operator, *(_shape(argument) for argument in step.arguments))
        before = found.get(key)
        if before is None:
            name = str(step.operator).rpartition(".")[2]
            found[key] = Call(name, step.name, step, 1, _flops(step), _moved(step))
        else:
            found[key] = Call(before.operator, before.layer, before.step, before.count + 1, before.flops, before.moved)
    return list(found.values())


class Oracle:
    """What a call should answer: the same operator in float64 on the CPU, by plain PyTorch, computed once.

    The inputs are what is in the network's buffers now. The call writes into memory of its own, poisoned each time.
    """

    def __init__(self, call: Call) -> None:
        self.call = call
        self._arguments = list(call.step.arguments)
        expected = [_double(argument) for argument in self._arguments]
        self._outputs: dict[str, tuple[Tensor, Tensor]] = {}
        for index in call.step.writes:
            if isinstance(self._arguments[index], Tensor):
                self._arguments[index] = torch.zeros_like(self._arguments[index])
                expected[index] = torch.full_like(expected[index], math.nan)
                name = _schema(call.step)[index].name
                self._outputs[name] = self._arguments[index], expected[index]
        with by_triton():  # float64 goes to neither Triton nor other kernels
            call.step.operator(*expected)

    def run(self) -> None:
        """Make the call, into the oracle's memory."""
        self.call.step.operator(*self._arguments)

    def relative_error(self) -> float:
        """Run the call: relative distance of its worst output, infinite where one is not finite or a border not zero.

        L2 for activations; for partial statistics, what they mean: means in standard deviations, variances in shares.
        """
        for found, expected in self._outputs.values():
            found.zero_().masked_fill_(~expected.isnan().to(found.device), math.nan)
        self.run()
        errors = [
            _statistics_error(found.double().cpu(), expected)
            if name == "partials_out"
            else _error(found.double().cpu(), expected)
            for name, (found, expected) in self._outputs.items()
        ]
        return max(errors) if all(map(math.isfinite, errors)) else math.inf


def combined(partials: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean and variance [N] of each image from its partial statistics [N, tiles, 3]."""
    count, mean, squares = partials.double().unbind(2)
    total = count.sum(1)
    centre = (count * mean).sum(1) / total
    return total, centre, (squares + count * (mean - centre[:, None]).square()).sum(1) / total


def _statistics_error(found: Tensor, expected: Tensor) -> float:
    (count, mean, variance), (all_of_it, centre, spread) = combined(found), combined(expected)
    if not torch.equal(count, all_of_it):
        return math.inf
    tiny = 1e-12 + 1e-6 * centre.square()  # an image of one colour
    means, variances = (mean - centre).abs() / (spread + tiny).sqrt(), (variance - spread).abs() / (spread + tiny)
    return float(torch.maximum(means, variances).max())


def _error(found: Tensor, expected: Tensor) -> float:
    border = expected.isnan()  # what the operator in float64 left alone
    if found[border].any():
        return math.inf
    return float((found - expected)[~border].norm() / expected[~border].norm().clamp(min=1e-30))


def time_call(run: Callable[[], object], device: torch.device) -> float:
    """Median seconds of one launch; on a GPU from CUDA graphs of many, so that the host's part doesn't count."""
    if device.type == "cpu":
        return measure(run, budget=0.0, warmup=0, max_repeats=1).median  # a rehearsal
    once = _replays(run, 1, device)
    launches = max(1, min(50, int(GRAPH_S / once)))
    return _replays(run, launches, device)


def _replays(run: Callable[[], object], launches: int, device: torch.device) -> float:
    """Median seconds of a launch over some replays of a CUDA graph of that many."""
    with torch.cuda.device(device):
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            run()  # compiles, which a capture may not
        torch.cuda.current_stream(device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(launches):
                run()
        marks = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(REPLAYS + 1)]
        for begin, end in marks:
            begin.record()
            graph.replay()
            end.record()
        torch.cuda.synchronize(device)
    return statistics.median(1e-3 * begin.elapsed_time(end) for begin, end in marks[1:]) / launches


def _shape(argument: Any) -> Any:
    return (tuple(argument.shape), argument.dtype) if isinstance(argument, Tensor) else argument


def _double(argument: Any) -> Any:
    if isinstance(argument, Tensor):
        return argument.detach().cpu().double() if argument.is_floating_point() else argument.cpu()
    return argument


def _schema(step: Step) -> list[Any]:
    operator: Any = step.operator  # an overload packet of torch.ops
    return list(operator.default._schema.arguments)


def _moved(step: Step) -> int:
    return sum(tensor.nbytes for tensor in step.tensors())


def _flops(step: Step) -> int:
    """Two for each weight and output pixel; weights behind a max-pool see a quarter of the pixels."""
    arguments = {argument.name: value for argument, value in zip(_schema(step), step.arguments)}
    if "images" in arguments:
        images, weight = arguments["images"], arguments["weight"]
        pixels = images.shape[0] * (images.shape[2] // 2) * (images.shape[3] // 2)
        total = 2 * pixels * 7 * 7 * 3 * weight.shape[-1]
        return total + (0 if arguments["next_weight"] is None else 2 * pixels * arguments["next_weight"].numel())
    pixels = arguments["batch"] * arguments["height"] * arguments["width"]
    total = 0
    for name, value in arguments.items():
        if name.endswith("weight") and isinstance(value, Tensor):
            total += 2 * (pixels // 4 if name.startswith("pool") else pixels) * value.numel()
    return total
