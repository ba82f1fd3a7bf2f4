"""What is kept between processes is found again only for the same network, precision and calibration crops."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fasthg.network.model import HourglassNet
from fasthg.network.variants import HourglassConfig
from fasthg.runtimes import tensorrt, tensorrt_engine
from fasthg.runtimes.request import Request


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
