"""What is called fp32 on a GPU computes in fp32: PyTorch, ONNX Runtime and TensorRT all round to TF32 by themselves."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from fasthg.network.model import HourglassNet
from fasthg.network.precision import without_tf32
from fasthg.network.variants import HourglassConfig
from fasthg.runtimes import onnxruntime
from fasthg.runtimes.paths import PATHS, prepare
from training.distributed import World
from training.learner import Learner
from training.loading.batches import Batch
from training.recipes import Recipe


def switches() -> tuple[bool, bool]:
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[bool, bool]]]:
    """The switches during each forward pass; both are on outside."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    found: list[tuple[bool, bool]] = []
    forward = torch.nn.Conv2d._conv_forward

    def look(*arguments: Tensor, **options: object) -> Tensor:
        found.append(switches())
        return forward(*arguments, **options)

    monkeypatch.setattr(torch.nn.Conv2d, "_conv_forward", look)
    yield found
    torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.parametrize("path", ["eager", "channels_last", "amp"])
def test_no_convolution_of_a_path_rounds_to_tf32(path: str, tiny_config: HourglassConfig, seen: list) -> None:
    if reason := PATHS[path].why_not("cpu"):
        pytest.skip(reason)
    prepared = prepare(HourglassNet(tiny_config).eval(), path, torch.rand(1, 3, 64, 64), device="cpu", cache_dir=None)
    prepared(torch.rand(1, 3, 64, 64))
    assert set(seen) == {(False, False)}
    assert switches() == (True, True)


def test_no_convolution_of_a_training_step_rounds_to_tf32(tiny_config: HourglassConfig, seen: list) -> None:
    learner = Learner(Recipe(variant=tiny_config, size=64, batch_size=1), 1, World(0, 1, torch.device("cpu")))
    during_backward = []
    learner.model.stem.conv.weight.register_hook(lambda _gradient: during_backward.append(switches()))
    learner.learn(Batch(torch.rand(1, 3, 64, 64), torch.ones(1, 16, 2), torch.ones(1, 16), torch.zeros(1)), 0)
    assert set(seen) == set(during_backward) == {(False, False)}
    assert switches() == (True, True)


def test_the_switch_goes_back_when_the_last_thread_has_left(seen: list) -> None:
    inside, leave = threading.Barrier(2), threading.Event()

    def stay() -> None:
        with without_tf32():
            inside.wait()
            leave.wait()

    other = threading.Thread(target=stay)
    other.start()
    with without_tf32():
        inside.wait()
    assert switches() == (False, False)
    leave.set()
    other.join()
    assert switches() == (True, True)


def test_onnx_runtime_is_told() -> None:
    ((provider, options),) = onnxruntime._providers(torch.device("cuda", 1))
    assert (provider, options["use_tf32"], options["device_id"]) == ("CUDAExecutionProvider", 0, 1)
