"""What is kept between processes is found again only for the same network, precision and calibration crops."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fasthg.errors import FasthgError
from fasthg.network.model import HourglassNet
from fasthg.network.variants import HourglassConfig
from fasthg.runtimes import pytorch, tensorrt, tensorrt_engine
from fasthg.runtimes.paths import prepare
from fasthg.runtimes.request import Prepared, Request


@pytest.mark.parametrize("precision", ["fp16", "int8", "fp32"])
def test_an_engine_belongs_to_the_crops_that_its_ranges_were_found_on(
    tiny_config: HourglassConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    built: list[Request] = []
    monkeypatch.setattr(tensorrt_engine, "choose_library", lambda: tensorrt_engine.FULL)
    monkeypatch.setattr(tensorrt, "import_library", lambda _library: type("library", (), {"__version__": "10"}))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "a GPU")
    monkeypatch.setattr(tensorrt, "_engine", lambda _library, request: built.append(request) or b"engine")
    monkeypatch.setattr(tensorrt, "_prepared", lambda *_arguments: None)
    crops = torch.rand(2, 3, 64, 64)
    request = Request(
        HourglassNet(tiny_config).eval(),
        crops[:1],
        torch.device("cuda", 0),
        precision,
        1,
        calibration=crops,
        cache_dir=tmp_path,
    )
    for calibration in (crops, crops.clone(), crops + 0.1):
        tensorrt.build("tensorrt", replace(request, calibration=calibration))
    assert len(built) == (1 if precision == "fp32" else 2)


def test_a_network_that_a_path_cannot_run_is_not_laid_on_the_cache(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    odd = HourglassNet(HourglassConfig(num_stacks=1, num_feats=48, depths=1, stem_feats=(8, 48), norm="layer"))
    with pytest.raises(FasthgError, match="cannot fuse"):
        prepare(odd.eval(), "fused", torch.zeros(1, 3, 64, 64), device="cpu", cache_dir=tmp_path)
    assert "does not serve" not in caplog.text


def test_a_cache_without_which_a_path_runs_is_done_without(
    tiny_config: HourglassConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = pytorch.build

    def full(name: str, request: Request) -> Prepared:
        if request.cache_dir:
            raise FasthgError(f"cannot write {tmp_path}: the disk is full")
        return build(name, request)

    monkeypatch.setattr(pytorch, "build", full)
    prepared = prepare(HourglassNet(tiny_config).eval(), "eager", device="cpu", cache_dir=tmp_path)
    assert prepared.path == "eager"
    assert f"the cache {tmp_path} does not serve (cannot write" in caplog.text
