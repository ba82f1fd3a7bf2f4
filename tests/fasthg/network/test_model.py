"""The reference network's structure, of which parameter counts alone would not tell."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from fasthg.errors import FasthgError
from fasthg.network.load import create_model
from fasthg.network.model import Bottleneck, Hourglass, check_input
from fasthg.network.variants import HourglassConfig


def test_bottleneck_normalises_before_each_convolution_and_adds_its_input(tiny_config: HourglassConfig) -> None:
    block = Bottleneck(tiny_config, 32, 16, 32)
    torch.nn.init.zeros_(block.convs[-1].weight)
    torch.nn.init.zeros_(block.convs[-1].bias)
    x = torch.randn(2, 32, 8, 8)
    assert torch.equal(block(x), x)
    assert [conv.kernel_size[0] for conv in block.convs] == [1, 3, 1]
    assert [norm.num_features for norm in block.norms] == [32, 16, 16]
    four = Bottleneck(replace(tiny_config, num_convs=4), 32, 16, 32)
    assert [conv.kernel_size[0] for conv in four.convs] == [1, 3, 3, 1]
    assert isinstance(Bottleneck(tiny_config, 16, 16, 32).skip, nn.Conv2d)


def test_layer_norm_spans_all_channels_and_pixels(tiny_config: HourglassConfig) -> None:
    norm = Bottleneck(replace(tiny_config, norm="layer"), 32, 16, 32).norms[0]
    x = torch.randn(2, 32, 8, 8) * 3 + 1
    torch.testing.assert_close(norm(x), torch.layer_norm(x, x.shape[1:]), atol=1e-5, rtol=1e-5)


def test_hourglass_upsamples_to_the_nearest_pixel_and_adds_the_upper_branch(tiny_config: HourglassConfig) -> None:
    hourglass = Hourglass(tiny_config, depth=1).eval()
    for blocks in (hourglass.up1, hourglass.low1, hourglass.low2, hourglass.low3):
        for block in blocks:
            torch.nn.init.zeros_(block.convs[-1].weight)
            torch.nn.init.zeros_(block.convs[-1].bias)  # every block now passes its input on
    x = torch.arange(32 * 16.0).view(1, 32, 4, 4)
    largest = x.view(1, 32, 2, 2, 2, 2).amax(dim=(3, 5))
    assert torch.equal(hourglass(x), x + largest.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))


def test_inference_returns_the_last_stacks_heatmaps(tiny_config: HourglassConfig) -> None:
    model, images = create_model(tiny_config).eval(), torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        assert torch.equal(model.final(images), model(images)[:, -1])
        assert model(images).shape == (2, 2, 16, 16, 24)


def test_every_stack_is_supervised_and_feeds_the_next(tiny_config: HourglassConfig) -> None:
    model = create_model(tiny_config)
    model(torch.randn(2, 3, 64, 64))[:, -1].square().mean().backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not without, "the last stack's loss must reach all of the network, the first stack's heatmaps included"
    assert model.stacks[0].merge_score is not None
    assert model.stacks[-1].merge_score is None


def test_dropout_acts_in_training_only(tiny_config: HourglassConfig) -> None:
    model, images = create_model(replace(tiny_config, dropout=0.5)), torch.randn(2, 3, 64, 64)
    model.train()
    with torch.no_grad():
        model(images)  # fills the running statistics
        assert not torch.equal(model(images), model(images))
        model.eval()
        assert torch.equal(model(images), model(images))


def test_inputs_that_the_levels_do_not_divide_are_refused(tiny_config: HourglassConfig) -> None:
    check_input(tiny_config, torch.empty(1, 3, 64, 48))
    for shape in ((1, 3, 64, 40), (1, 1, 64, 64), (3, 64, 64)):
        with pytest.raises(FasthgError, match="with H and W multiples of 16"):
            check_input(tiny_config, torch.empty(shape))
