"""The tuner's search, with a cost of its own in place of a GPU's time."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
import torch

from bench.gpu import tune
from bench.gpu.calls import Call, Oracle, distinct_calls
from bench.gpu.checks import lively
from fasthg.fused.net import FusedNet
from fasthg.fused.streams import InOrder
from fasthg.kernels.ops import plain
from fasthg.kernels.tuning import KERNELS, Config, Question
from fasthg.network.variants import HourglassConfig

QUESTION = Question("bottleneck", 16, 1, 64)
START = KERNELS["bottleneck"].only(Config(128))
BEST = Config(16, 64, 32, num_warps=8, num_stages=5, chunk_stages=1, tma=True, parts=8)


@pytest.fixture
def call() -> Call:
    images = torch.rand(1, 3, 32, 32)
    network = FusedNet(lively(HourglassConfig(num_stacks=1, num_feats=16, depths=1)), images, torch.float32, InOrder())
    network(images)
    return next(c for c in distinct_calls(network, tuple(images.shape)) if c.operator == "bottleneck")


def cost(config: Config) -> float:
    """Least at BEST, and less with each number that is nearer to it."""
    numbers = KERNELS["bottleneck"].numbers
    return 1.0 + sum(abs(math.log2(1 + getattr(config, n)) - math.log2(1 + getattr(BEST, n))) for n in numbers)


def improved(call: Call, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], minutes: float = 1) -> Any:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    monkeypatch.setattr(tune, "seconds", lambda _oracle, config, _device, _tolerance: cost(config))
    return tune.improve(call, QUESTION, START, time.monotonic() + 60 * minutes)


def test_the_search_comes_to_the_quickest_configuration(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = improved(call, monkeypatch, (9, 0))
    assert outcome.config == BEST
    assert (outcome.before, outcome.after) == (cost(START), 1.0)


def test_tensor_maps_are_not_tried_on_chips_without_them(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    config = improved(call, monkeypatch, (8, 0)).config
    assert not config.tma
    assert config.parts == BEST.parts


def test_the_search_ends_when_its_time_is_over(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    assert improved(call, monkeypatch, (9, 0), minutes=0).config == START


@pytest.mark.parametrize("wrong", [False, True])
def test_a_candidate_that_answers_wrongly_takes_for_ever(
    wrong: bool, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = plain.bottleneck

    def bottleneck(t: Any, conv: Any, expand: Any, residual: Any, out: Any, grid: Any) -> None:
        right(t, conv, expand, residual, out, grid)
        if wrong:
            (out.pooled if out.x is None else out.x).mul_(1.1)

    oracle = Oracle(call)
    monkeypatch.setattr(plain, "bottleneck", bottleneck)
    assert math.isinf(tune.seconds(oracle, START, torch.device("cpu"), call.tolerance)) == wrong


def test_a_candidate_that_does_not_compile_is_out_and_a_broken_device_ends_the_search(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raises(text: str) -> None:
        def fail(*_arguments: Any) -> None:
            raise RuntimeError(text)

        monkeypatch.setattr(plain, "bottleneck", fail)

    oracle = Oracle(call)
    raises("out of resource: shared memory")
    assert math.isinf(tune.seconds(oracle, START, torch.device("cpu"), call.tolerance))
    raises("CUDA error: an illegal memory access was encountered")
    with pytest.raises(RuntimeError, match="illegal memory access"):
        tune.seconds(oracle, START, torch.device("cpu"), call.tolerance)
