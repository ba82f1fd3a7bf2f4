"""A path names what it lacks, and takes whichever library it can do with."""

from __future__ import annotations

import re
import sys

import pytest
import torch

import fasthg
from fasthg.errors import FasthgError
from fasthg.network.variants import HourglassConfig
from fasthg.runtimes.paths import PATHS, parse_path, prepare
from fasthg.runtimes.request import Prepared


@pytest.mark.parametrize("absent", ["tensorrt", "tensorrt_rtx"])
def test_either_tensorrt_is_enough_for_its_path(absent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    other = {"tensorrt": "tensorrt_rtx", "tensorrt_rtx": "tensorrt"}[absent]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # the reason is looked for before any GPU is touched
    monkeypatch.setitem(sys.modules, absent, None)
    monkeypatch.setitem(sys.modules, other, sys.modules[__name__])
    assert PATHS["tensorrt"].why_not("cuda:0") is None
    monkeypatch.setitem(sys.modules, other, None)
    assert "no TensorRT is installed; pip install 'fasthg[trt]'" in str(PATHS["tensorrt"].why_not("cuda:0"))


@pytest.fixture(params=["eager", "fused:fp32", "onnxruntime:fp32", "openvino:fp32", "ncnn:fp32"])
def run(request: pytest.FixtureRequest, tiny_config: HourglassConfig) -> Prepared:
    name, precision = parse_path(request.param)
    if reason := PATHS[name].why_not("cpu", precision):
        pytest.skip(reason)
    model = fasthg.HourglassNet(tiny_config).eval()
    return prepare(model, request.param, torch.rand(2, 3, 64, 64), device="cpu", threads=1)


def test_no_images_have_no_heatmaps(run: Prepared) -> None:
    """Where nobody is detected there are no crops."""
    assert run(torch.rand(0, 3, 64, 64)).shape == (0, 16, 16, 16)


@pytest.mark.parametrize("shape", [(3, 64, 64), (2, 1, 64, 64), (2, 3, 70, 64)])
def test_what_is_no_batch_for_the_network_is_refused_on_every_path(run: Prepared, shape: tuple[int, ...]) -> None:
    with pytest.raises(FasthgError, match=re.escape(f"input has shape {shape}; give [N, 3, H, W]")):
        run(torch.rand(shape))


def test_an_example_without_images_is_refused(tiny_config: HourglassConfig) -> None:
    with pytest.raises(FasthgError, match="the example has no images"):
        prepare(fasthg.HourglassNet(tiny_config).eval(), "eager", torch.rand(0, 3, 64, 64), device="cpu")


@pytest.mark.parametrize("threads", [0, 100_000])
def test_threads_that_no_machine_gives_are_refused(threads: int, tiny_config: HourglassConfig) -> None:
    with pytest.raises(FasthgError, match=f"threads is {threads}; give 1 to 1024"):
        prepare(fasthg.HourglassNet(tiny_config).eval(), "fused:fp32", device="cpu", threads=threads)
