"""The first stacks of a network answer what the whole network answers there, and leave it as it is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fasthg
from fasthg.errors import FasthgError
from fasthg.network.checkpoint import load_model, save, variant_name
from fasthg.network.load import create_model
from fasthg.network.stacks import first_stacks
from fasthg.network.variants import HourglassConfig, get_config

CONFIG = HourglassConfig(num_stacks=3, num_feats=8, depths=(1, 2, 2), stem_feats=(8, 8))


@pytest.fixture
def model() -> fasthg.HourglassNet:
    """A network whose statistics and merges matter."""
    net = fasthg.HourglassNet(CONFIG)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return net.eval()


@pytest.mark.parametrize("count", [1, 2, 3])
@torch.inference_mode()
def test_the_first_stacks_answer_as_the_whole_network_does_there(model: fasthg.HourglassNet, count: int) -> None:
    images = torch.randn(2, 3, 64, 64)
    expected = model.all_heatmaps(images)
    assert torch.equal(first_stacks(model, count).final(images), expected[count - 1])
    assert all(torch.equal(a, b) for a, b in zip(model.all_heatmaps(images), expected))  # it is as it was


def test_they_are_a_network_like_any_other(model: fasthg.HourglassNet, tmp_path) -> None:
    """Saved and loaded, without the weights that nothing reads."""
    short = first_stacks(model, 2)
    save(short, tmp_path / "short.safetensors")
    loaded = load_model(tmp_path / "short.safetensors")
    assert loaded.config.stack_depths == (1, 2)
    assert not any(name.startswith(("stacks.1.merge", "stacks.2")) for name in loaded.state_dict())
    short.stem.conv.weight.data.zero_()
    assert model.stem.conv.weight.abs().sum() > 0
    assert not any(module.training for module in first_stacks(model, 1).modules())


@pytest.mark.parametrize("count", [0, 4])
def test_stacks_that_are_not_there_are_refused(model: fasthg.HourglassNet, count: int) -> None:
    with pytest.raises(FasthgError, match=f"stacks is {count}; the network has 3, so give 1 to 3"):
        first_stacks(model, count)


def test_first_stacks_have_names() -> None:
    """`small` is feats64's first two: what has a name of its own keeps it."""
    assert get_config("feats64-deepening@5").stack_depths == (2, 2, 2, 3, 3)
    for name in ("original@3", "feats64-deepening@5", "small@1", "stacks6"):
        assert get_config(variant_name(get_config(name)) or "") == get_config(name)
    assert variant_name(get_config("feats64@2")) == "small"
    for name in ("original@9", "original@0"):
        with pytest.raises(FasthgError, match="the network has 8, so give 1 to 8"):
            get_config(name)
    with pytest.raises(FasthgError, match="unknown variant 'original@x'"):
        get_config("original@x")
    with pytest.raises(FasthgError, match="unknown variant 'huge@2'"):
        get_config("huge@2")


def test_a_name_with_stacks_takes_them_of_the_whole_networks_weights() -> None:
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        expected = create_model("small", "default").all_heatmaps(images)[0]
        assert torch.equal(create_model("small@1", "default").final(images), expected)
