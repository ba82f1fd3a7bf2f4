"""A path names what it lacks, and takes whichever library it can do with."""

from __future__ import annotations

import sys

import pytest
import torch

from fasthg.runtimes.paths import PATHS


@pytest.mark.parametrize("absent", ["tensorrt", "tensorrt_rtx"])
def test_either_tensorrt_is_enough_for_its_path(absent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    other = {"tensorrt": "tensorrt_rtx", "tensorrt_rtx": "tensorrt"}[absent]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # the reason is looked for before any GPU is touched
    monkeypatch.setitem(sys.modules, absent, None)
    monkeypatch.setitem(sys.modules, other, sys.modules[__name__])
    assert PATHS["tensorrt"].why_not("cuda:0") is None
    monkeypatch.setitem(sys.modules, other, None)
    assert "no TensorRT is installed; pip install 'fasthg[trt]'" in str(PATHS["tensorrt"].why_not("cuda:0"))
