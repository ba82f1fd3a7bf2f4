"""The fused network answers like the reference, plans its memory safely, and refuses by name what it cannot fuse."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.gpu.checks import crossing_plan, finds_a_late_overflow, lively, reduced, run_poisoned, unordered
from bench.gpu.checks import relative_error as distance
from fasthg.data.crops import load_crops
from fasthg.errors import FasthgError
from fasthg.fused import weights
from fasthg.fused.net import MAX_SHAPES, FusedNet, fuse
from fasthg.fused.plan import Step
from fasthg.fused.streams import InOrder, OnCuda
from fasthg.network.fold import fold
from fasthg.network.load import create_model
from fasthg.network.model import HourglassNet
from fasthg.network.variants import STUDY_VARIANTS, VARIANTS, HourglassConfig
from fasthg.pixels.image import normalise
from fasthg.pixels.skeleton import COCO, of_count


def relative_error(model: HourglassNet, fused: FusedNet, images: Tensor) -> float:
    with torch.inference_mode():
        expected = model.final(images)
        return float((fused(images) - expected).norm() / expected.norm())


@pytest.mark.parametrize("variant", STUDY_VARIANTS)
def test_every_variant_of_the_study_answers_like_eager(variant: str) -> None:
    model, images = lively(VARIANTS[variant]), torch.rand(1, 3, 64, 64) - 0.4
    assert relative_error(model, fuse(model, images, torch.float32), images) < 1e-5


def test_on_a_cpu_no_threads_of_torch_stay_awake_beside_the_network() -> None:
    """Once there, they look for work for milliseconds after each operator that was shared out among them."""
    script = """
import time
import numpy as np, psutil, torch
from fasthg.fused.net import fuse
from fasthg.network.model import HourglassNet
from fasthg.network.variants import HourglassConfig
from fasthg.pixels.image import normalise

torch.set_num_threads(1)
config, threads = HourglassConfig(num_stacks=1, num_feats=16, depths=2), psutil.Process().num_threads
network = fuse(HourglassNet(config).eval(), torch.zeros(1, 3, 256, 256), torch.float32, host_precision="fp32")
torch.set_num_threads(2)
time.sleep(0.2)  # those that packed its weights are gone
before = threads()
network(normalise(np.zeros((1, 256, 256, 3), np.uint8)))
own = threads()
torch.rand(1, 3, 256, 256).add_(1)
print(own - before, threads() - own)
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["1", "1"]


@pytest.mark.parametrize(
    "config",
    [
        HourglassConfig(num_stacks=2, num_feats=16, depths=(2, 1), num_blocks=3),
        HourglassConfig(num_stacks=2, num_feats=16, depths=2, num_convs=4, num_blocks=2),
        HourglassConfig(num_stacks=2, num_feats=16, depths=2, norm="layer", num_blocks=2),
        HourglassConfig(num_stacks=1, num_feats=24, depths=2, skeleton=COCO, stem_feats=(40, 64)),
        HourglassConfig(num_stacks=1, num_feats=16, depths=1, norm="layer", num_convs=4, skeleton=of_count(5)),
    ],
    ids=["blocks3", "convs4", "layer", "odd-widths", "layer-convs4"],
)
def test_other_architectures_in_double_precision(config: HourglassConfig) -> None:
    model, images = lively(config), torch.rand(3, 3, 32, 48, dtype=torch.float64) - 0.4
    assert relative_error(model.double(), fuse(model, images, torch.float64), images) < 1e-12


def test_the_folded_network_in_double_precision_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, tiny_config: HourglassConfig
) -> None:
    folded: list[weakref.ref[HourglassNet]] = []

    def watched(model: HourglassNet, dtype: torch.dtype) -> HourglassNet:
        network = fold(model, dtype)
        folded.append(weakref.ref(network))
        return network

    monkeypatch.setattr(weights, "fold", watched)
    fused = fuse(lively(tiny_config), torch.zeros(1, 3, 64, 64), torch.float32)
    gc.collect()
    assert [network() for network in folded] == [None]
    assert fused.device.type == "cpu"


def test_another_batch_size_is_planned_at_its_first_call(tiny_config: HourglassConfig) -> None:
    model = lively(tiny_config)
    fused = fuse(model, torch.zeros(4, 3, 64, 64), torch.float32)
    assert relative_error(model, fused, torch.rand(3, 3, 64, 64)) < 1e-5
    assert relative_error(model, fused, torch.rand(1, 3, 128, 64)) < 1e-5


def test_a_bottleneck_is_one_launch() -> None:
    """The design's figure for the original: 125 launches, heatmap decoding included."""
    model, images = HourglassNet(VARIANTS["original"]).eval(), torch.zeros(1, 3, 64, 64)
    assert len(fuse(model, images, torch.float32).steps((1, 3, 64, 64))) == 124


def test_activations_share_memory(tiny_config: HourglassConfig) -> None:
    """Twice the stacks need no more room for activations."""
    images = torch.zeros(1, 3, 64, 64)
    two, four = (
        fuse(HourglassNet(replace(tiny_config, num_stacks=n, depths=2)).eval(), images, torch.float32) for n in (2, 4)
    )
    assert four.activation_bytes((1, 3, 64, 64)) == two.activation_bytes((1, 3, 64, 64))


def beside(config: HourglassConfig, dtype: torch.dtype = torch.float64, shape: tuple = (3, 3, 64, 64)) -> FusedNet:
    """A network planned as for a GPU, with a side stream."""
    return FusedNet(lively(config), torch.zeros(shape), dtype, InOrder(beside=True))


@pytest.mark.parametrize("variant", VARIANTS)
def test_side_stream_and_main_one_never_meet_in_a_buffer(variant: str) -> None:
    steps = beside(reduced(variant)).steps((3, 3, 64, 64))
    levels = sum(reduced(variant).stack_depths)
    assert sum(step.fork for step in steps) == sum(step.join for step in steps) == levels, "every upper branch"
    assert not unordered(steps)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("variant", ["original", "stacks6-feats64-blocks4", "feats64-layernorm", "convs4"])
def test_a_side_stream_as_early_or_as_late_as_may_be_changes_nothing(variant: str, late: bool) -> None:
    config, images = reduced(variant), torch.rand(3, 3, 64, 64, dtype=torch.float64) - 0.4
    model = lively(config).double()
    network = FusedNet(model, images, torch.float64, InOrder(beside=True))
    with torch.inference_mode():
        assert distance(run_poisoned(network, images, late), model.final(images)) < 1e-12


def test_memory_that_the_side_stream_reads_is_not_given_away_before_it_has_joined() -> None:
    assert not unordered(crossing_plan().steps)
    steps = crossing_plan().steps[:5]
    first, made, main, _, later = (step.written()[0].data_ptr() for step in steps)
    assert main != first
    assert later in (first, made, main), "after the join memory is used again"
    assert not unordered(steps)
    shared = [replace(step, arguments=steps[0].arguments) if step.name == "main" else step for step in steps]
    assert unordered(shared) == [(1, 2)]


def test_large_levels_stay_on_one_stream_and_a_bottleneck_one_launch() -> None:
    config = replace(VARIANTS["original"], num_stacks=1, num_feats=16, depths=4)
    network = FusedNet(HourglassNet(config).eval(), torch.zeros(1, 3, 64, 64), torch.float16, InOrder(beside=True))
    sides = {
        batch: [s.arguments[-1] for s in network.steps((batch, 3, 256, 256)) if s.stream == "side"] for batch in (1, 64)
    }
    assert sides == {1: [64, 32, 16, 8], 64: [8]}


def test_heads_and_the_last_trunk_keep_float32_in_bf16() -> None:
    """Trained weights on real crops: rounded like the rest they are off by 2.4e-2."""
    model, images = create_model("small", weights="default").eval(), normalise(load_crops(None).images[:4])
    with torch.inference_mode():
        expected = model.final(images)
    limits = {torch.float16: 3e-3, torch.bfloat16: 1e-2}
    for dtype, limit in limits.items():
        assert distance(fuse(model, images, dtype)(images), expected.double()) < limit, dtype


def test_threads_that_share_a_network_get_their_own_answers(tiny_config: HourglassConfig) -> None:
    model, images = lively(tiny_config), torch.rand(8, 1, 3, 64, 64) - 0.4
    fused = fuse(model, images[0], torch.float32)
    with torch.inference_mode():
        expected = [model.final(image) for image in images]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            for found, meant in zip(pool.map(fused, images), expected):
                torch.testing.assert_close(found, meant, rtol=1e-3, atol=1e-4)


def test_only_the_shapes_used_last_keep_their_memory(tiny_config: HourglassConfig) -> None:
    fused = fuse(lively(tiny_config), torch.zeros(1, 3, 64, 64), torch.float32)
    first = fused.plan((1, 3, 64, 64))
    for batch in range(2, MAX_SHAPES + 1):
        fused.plan((batch, 3, 64, 64))
    assert fused.plan((1, 3, 64, 64)) is first
    second = fused.plan((2, 3, 64, 64))
    for batch in range(10, 10 + MAX_SHAPES):
        fused.plan((batch, 3, 64, 64))
        assert len(fused._shapes) <= MAX_SHAPES
    assert fused.plan((2, 3, 64, 64)) is not second


class FakeCuda:
    """torch.cuda as far as streams go, which notes on which device and stream each thing happens."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.now, self.stream_now = "cuda:0", "caller"

    def device(self, device: torch.device) -> AbstractContextManager:
        return self.during("now", str(device))

    @contextmanager
    def during(self, name: str, value: str) -> Iterator[None]:
        before = getattr(self, name)
        setattr(self, name, value)
        yield
        setattr(self, name, before)

    def current_stream(self, device: torch.device) -> Any:
        return self.made(f"{self.stream_now}@{device}")

    def made(self, name: str) -> Any:
        return SimpleNamespace(
            name=name,
            wait_stream=lambda other: self.log.append(f"{name} waits for {other.name}"),
            wait_event=lambda event: self.log.append(f"{name} waits for {event.name}"),
        )

    def Stream(self, device: torch.device) -> Any:
        return self.made(f"side@{device}")

    def Event(self) -> Any:
        return SimpleNamespace(
            name=f"event@{self.now}", record=lambda stream: self.log.append(f"event on {stream.name}")
        )

    def stream(self, stream: Any) -> AbstractContextManager:
        return self.during("stream_now", stream.name.partition("@")[0])

    def CUDAGraph(self) -> Any:
        return SimpleNamespace(replay=lambda: self.log.append(f"replay on {self.now}"))

    def graph(self, graph: Any, stream: Any) -> AbstractContextManager:
        self.log.append(f"capture on {self.now} by {stream.name}")
        return self.during("stream_now", "capture")


def test_steps_and_capture_stay_on_the_device_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda()
    monkeypatch.setattr(torch, "cuda", cuda)
    streams = OnCuda(torch.device("cuda:1"), graph=True)

    def step(name: str, **options: Any) -> Step:
        return Step(name, lambda: cuda.log.append(f"{name} on {cuda.stream_now}, {cuda.now}"), (), (), **options)

    def run() -> None:
        for each in (step("a"), step("b", stream="side", fork=True), step("c", join=True)):
            streams.launch(each)

    replay = streams.capture(run)
    run_once = [
        "a on {0}, cuda:1",
        "side@cuda:1 waits for {0}@cuda:1",
        "b on side, cuda:1",
        "{0}@cuda:1 waits for side@cuda:1",
        "c on {0}, cuda:1",
    ]
    first, second = ([line.format(name) for line in run_once] for name in ("side", "capture"))
    assert cuda.log == [
        "side@cuda:1 waits for caller@cuda:1",
        *first,
        "caller@cuda:1 waits for side@cuda:1",
        "capture on cuda:1 by side@cuda:1",
        *second,
    ]
    cuda.log.clear()
    streams.enter()
    replay()
    streams.leave()
    assert cuda.log == ["caller@cuda:1 waits for event@cuda:1", "replay on cuda:1", "event on caller@cuda:1"]


def test_an_overflow_names_its_layer(tiny_config: HourglassConfig) -> None:
    model = lively(tiny_config)
    block = model.get_submodule("stacks.1.hourglass.low3.0")
    with torch.no_grad():
        block.get_parameter("convs.2.bias").fill_(1e5)  # above float16's 65504, within bfloat16's range
    images = torch.rand(1, 3, 64, 64)
    assert fuse(model, images, torch.float16).find_overflow(images) == "stacks.1.hourglass.low3.0"
    assert fuse(model, images, torch.bfloat16).find_overflow(images) is None


def test_an_overflow_on_the_side_stream_is_seen_though_that_is_late() -> None:
    assert finds_a_late_overflow()


def test_refusals_name_what_cannot_be_fused(tiny_config: HourglassConfig) -> None:
    model, images = HourglassNet(tiny_config), torch.zeros(1, 3, 64, 64)
    with pytest.raises(FasthgError, match="the model is in training mode"):
        fuse(model, images, torch.float32)
    model.eval().stacks[1].train()
    with pytest.raises(FasthgError, match=r"stacks\.1 is in training mode"):
        fuse(model, images, torch.float32)
    model.eval()
    with pytest.raises(FasthgError, match="multiples of 16"):
        fuse(model, torch.zeros(1, 3, 60, 64), torch.float32)
    with pytest.raises(FasthgError, match="Sequential"):
        fuse(nn.Sequential(model), images, torch.float32)  # type: ignore[arg-type]
    with pytest.raises(FasthgError, match="powers of two"):
        fuse(HourglassNet(replace(tiny_config, norm="layer", num_feats=24)).eval(), images, torch.float32)
    with pytest.raises(FasthgError, match=r"torch\.int8"):
        fuse(model, images, torch.int8)
