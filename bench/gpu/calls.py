"""The distinct operator calls of a fused network: each checked against float64, timed, and set against the roof."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.measure.timing import measure
from fasthg.fused.net import FusedNet
from fasthg.fused.plan import Step
from fasthg.metrics import agreement
from fasthg.runtimes.request import DTYPES

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
    """What a call should answer: the same operator in float64 on the CPU, computed once.

    The inputs are whatever the network left in its buffers, so run the network once before.
    """

    def __init__(self, call: Call) -> None:
        self.call = call
        self._expected = [_double(argument) for argument in call.step.arguments]
        call.step.operator(*self._expected)

    def relative_error(self) -> float:
        """Run the call: relative L2 distance of its worst output, infinite where one is not finite."""
        self.call.run()
        errors = [0.0]
        for index in _written(self.call.step):
            found, expected = self.call.step.arguments[index], self._expected[index]
            if isinstance(found, Tensor):
                errors.append(float((found.double().cpu() - expected).norm() / expected.norm().clamp(min=1e-30)))
        return max(errors) if all(map(math.isfinite, errors)) else math.inf


def time_call(run: Callable[[], object], device: torch.device) -> float:
    """Median seconds of one launch; on a GPU from CUDA graphs of many, so that launch gaps don't count."""
    if device.type == "cpu":
        return measure(run, budget=0.1).median
    from triton.testing import do_bench_cudagraph

    return do_bench_cudagraph(run, rep=30, return_mode="median") * 1e-3


def _shape(argument: Any) -> Any:
    return (tuple(argument.shape), argument.dtype) if isinstance(argument, Tensor) else argument


def _double(argument: Any) -> Any:
    if isinstance(argument, Tensor):
        return argument.detach().cpu().double() if argument.is_floating_point() else argument.cpu()
    return argument


def _schema(step: Step) -> list[Any]:
    operator: Any = step.operator  # an overload packet of torch.ops
    return list(operator.default._schema.arguments)


def _written(step: Step) -> Iterator[int]:
    for index, argument in enumerate(_schema(step)):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield index


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
