"""Every path gives each of several callers its own answer, and says what is wrong after a fork."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import fasthg
from fasthg.network.variants import HourglassConfig
from fasthg.runtimes.paths import PATHS, prepare

THREADS, ROUNDS = 8, 6
ON_CPU = [f"{name}:{precision}" for name, path in PATHS.items() for precision in path.on.get("cpu", ())]


@pytest.mark.parametrize("mode", ["latency", "throughput"])
@pytest.mark.parametrize("path", ON_CPU)
def test_eight_threads_get_their_own_answers(path: str, mode: str, tiny_config: HourglassConfig) -> None:
    name, _, precision = path.partition(":")
    if reason := PATHS[name].why_not("cpu", precision):
        pytest.skip(reason)
    if mode == "throughput" and name not in ("ncnn", "onnxruntime", "openvino"):
        pytest.skip("one mode")
    torch.manual_seed(0)
    model = fasthg.HourglassNet(tiny_config).eval()
    batches = [torch.rand(2, 3, 64, 64) * (i + 1) for i in range(THREADS)]
    options = {"calibration": torch.rand(4, 3, 64, 64)} if precision == "int8" else {}
    run = prepare(model, path, batches[0], device="cpu", threads=1, mode=mode, **options)  # type: ignore[arg-type]
    alone = [run(batch).clone() for batch in batches]
    assert all((alone[0] - other).abs().max() > 1e-4 for other in alone[1:])  # else a swap would not be seen

    def ask(caller: int) -> float:
        return max((run(batches[caller]) - alone[caller]).abs().max().item() for _ in range(ROUNDS))

    with ThreadPoolExecutor(THREADS) as pool:
        assert max(pool.map(ask, range(THREADS))) < 1e-5


def test_several_threads_may_make_networks_ready_at_once(
    tmp_path: Path, tiny_config: HourglassConfig, caplog: pytest.LogCaptureFixture
) -> None:
    models = [fasthg.HourglassNet(tiny_config).eval() for _ in range(3)]
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        wanted = [model.final(images) for model in models]

    def ask(model: fasthg.HourglassNet) -> torch.Tensor:
        return prepare(model, "onnxruntime", images, device="cpu", threads=1, cache_dir=tmp_path)(images)

    with ThreadPoolExecutor(3) as pool:
        for found, want in zip(pool.map(ask, models), wanted):
            assert torch.allclose(found, want, atol=1e-4)
    assert not caplog.messages  # such as that the cache is done without


def test_several_threads_may_ask_for_other_batch_sizes(tiny_config: HourglassConfig) -> None:
    model = fasthg.HourglassNet(tiny_config).eval()
    run = prepare(model, "openvino:fp32", torch.rand(1, 3, 64, 64), device="cpu", threads=1)
    batches = [torch.rand(1 + i % 4, 3, 64, 64) for i in range(THREADS)]
    with torch.inference_mode():
        wanted = [model.final(batch) for batch in batches]
    with ThreadPoolExecutor(THREADS) as pool:
        for found, want in zip(pool.map(run, batches), wanted):
            assert torch.allclose(found, want, atol=1e-4)


# A process of its own: one that other tests have given threads may leave locks that nobody opens in its fork.
FORKED = """
import os, sys, torch
import numpy as np
from fasthg import Predictor
from fasthg.errors import FasthgError
from fasthg.network.load import create_model
from fasthg.runtimes.paths import prepare

batch, model = torch.rand(1, 3, 64, 64), create_model("small")
torch.set_num_threads(2)  # those of OpenMP, for which a fork would wait for ever

def ends_as(code, ask):
    if child := os.fork():
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return ended == code or sys.exit(f"{ended} instead of {code}")
    try:
        ask()
        os._exit(1)
    except FasthgError as error:
        os._exit(5 if "forked off" in str(error) else 6)

ends_as(1, lambda: prepare(model, "eager", batch, device="cpu"))
run = prepare(model, "eager", batch, device="cpu")
ends_as(5, lambda: run(batch))
predictor = Predictor(model, runtime="eager", device="cpu")
photo = np.zeros((900, 900, 3), np.uint8)
predictor(photo)  # OpenCV has threads from here on, for which a fork would wait too
ends_as(5, lambda: predictor(photo))
ends_as(5, lambda: prepare(model, "eager", batch, device="cpu"))
ends_as(5, lambda: prepare(model, "eager", device="cpu"))  # with an example that PyTorch's threads fill
ends_as(5, lambda: Predictor(model, runtime="eager", device="cpu"))
"""


def test_a_forked_process_is_told_so_and_one_that_was_forked_before_the_first_network_answers() -> None:
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
