"""ncnn answers like eager, in fp32 from end to end, with as many threads as it is given."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import torch

from fasthg.errors import BackendUnavailable
from fasthg.network.model import HourglassNet
from fasthg.network.variants import HourglassConfig
from fasthg.runtimes.paths import PATHS, prepare

if reason := PATHS["ncnn"].why_not("cpu"):
    pytest.skip(reason, allow_module_level=True)

from fasthg.runtimes import ncnn as runtime


@pytest.mark.parametrize(
    "config",
    [
        HourglassConfig(num_stacks=2, num_feats=32, depths=2, num_convs=4),
        HourglassConfig(num_stacks=1, num_feats=16, depths=2, norm="layer"),
    ],
    ids=["four convolutions", "layer norm"],
)
def test_it_answers_like_eager_in_fp32(config: HourglassConfig) -> None:
    """Its own choice, halves between layers, is 1e-4 off at best."""
    torch.manual_seed(0)
    model, images = HourglassNet(config).eval(), torch.rand(3, 3, 64, 128) - 0.5
    with torch.inference_mode():
        expected = model.final(images)
    run = prepare(model, "ncnn", images[:1], device="cpu", threads=1, cache_dir=None)
    assert (run(images) - expected).norm() < 1e-5 * expected.norm()
    assert (run(images[:, :, :, ::2].repeat_interleave(2, 3)) - expected).norm() > 1e-2 * expected.norm()


def test_each_thread_that_it_is_given_and_none_beside(tiny_config: HourglassConfig) -> None:
    model, images = HourglassNet(tiny_config).eval(), torch.rand(2, 3, 64, 64)
    before = psutil.Process().num_threads()
    run = prepare(model, "ncnn", images, device="cpu", threads=2, cache_dir=None)
    run(images)
    assert psutil.Process().num_threads() <= before + 1
    assert run.details["threads"] == "2"


def test_a_conversion_that_fails_leaves_nothing_and_says_why(tmp_path: Path) -> None:
    source, out = tmp_path / "network.pt", tmp_path / "out"
    out.mkdir()
    torch.jit.save(torch.jit.trace(torch.nn.Identity(), torch.rand(1, 3, 64, 64)), source)
    with pytest.raises(RuntimeError, match="pnnx failed with status"):
        runtime._convert(source, (1, 3, 64, 0), out / "network.param")
    assert not list(out.iterdir())


def test_without_the_package_the_path_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    model = HourglassNet(HourglassConfig(num_stacks=1, num_feats=16, depths=2))
    with pytest.raises(BackendUnavailable, match=r"ncnn is not installed; pip install 'fasthg\[ncnn\]'"):
        prepare(model, "ncnn", device="cpu")
