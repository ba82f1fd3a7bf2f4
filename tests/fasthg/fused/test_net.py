"""The fused network answers like the reference, plans its memory safely, and refuses by name what it cannot fuse."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from fasthg.errors import FasthgError
from fasthg.fused.net import FusedNet, fuse
from fasthg.network.model import HourglassNet
from fasthg.network.variants import STUDY_VARIANTS, VARIANTS, HourglassConfig


def trained_looking(config: HourglassConfig) -> HourglassNet:
    """A network whose normalisations are far from the identity, as after training."""
    model = HourglassNet(config)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
        if isinstance(module, (nn.BatchNorm2d, nn.GroupNorm)):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    return model.eval()


def relative_error(model: HourglassNet, fused: FusedNet, images: Tensor) -> float:
    with torch.inference_mode():
        expected = model.final(images)
        return float((fused(images) - expected).norm() / expected.norm())


@pytest.mark.parametrize("variant", STUDY_VARIANTS)
def test_every_variant_of_the_study_answers_like_eager(variant: str) -> None:
    model, images = trained_looking(VARIANTS[variant]), torch.rand(1, 3, 64, 64) - 0.4
    assert relative_error(model, fuse(model, images, torch.float32), images) < 1e-5


@pytest.mark.parametrize(
    "config",
    [
        HourglassConfig(num_stacks=2, num_feats=16, depths=(2, 1), num_blocks=3),
        HourglassConfig(num_stacks=2, num_feats=16, depths=2, num_convs=4, num_blocks=2),
        HourglassConfig(num_stacks=2, num_feats=16, depths=2, norm="layer", num_blocks=2),
        HourglassConfig(num_stacks=1, num_feats=24, depths=2, num_joints=17, stem_feats=(40, 64)),
        HourglassConfig(num_stacks=1, num_feats=16, depths=1, norm="layer", num_convs=4, num_joints=5),
    ],
    ids=["blocks3", "convs4", "layer", "odd-widths", "layer-convs4"],
)
def test_other_architectures_in_double_precision(config: HourglassConfig) -> None:
    model, images = trained_looking(config), torch.rand(3, 3, 32, 48, dtype=torch.float64) - 0.4
    assert relative_error(model.double(), fuse(model, images, torch.float64), images) < 1e-12


def test_whole_blocks_answer_like_the_moved_cut(tiny_config: HourglassConfig) -> None:
    model, images = trained_looking(replace(tiny_config, num_blocks=2)), torch.rand(2, 3, 64, 64) - 0.4
    assert relative_error(model, fuse(model, images, torch.float32, blocks="whole"), images) < 1e-5


def test_another_batch_size_is_planned_at_its_first_call(tiny_config: HourglassConfig) -> None:
    model = trained_looking(tiny_config)
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


def test_what_the_side_stream_uses_is_left_alone_until_it_has_joined() -> None:
    config = HourglassConfig(num_stacks=2, num_feats=16, depths=3, num_blocks=3)
    fused = fuse(HourglassNet(config).eval(), torch.zeros(1, 3, 64, 64), torch.float32)
    weights = {tensor.data_ptr() for tensor in vars_of(fused)}
    pending: set[int] = set()
    beside = 0
    written_before: set[int] = set()
    for step in fused.steps((1, 3, 64, 64)):
        touched = {tensor.data_ptr() for tensor in step.tensors()} - weights
        if step.join:
            pending.clear()
        if step.stream == "side":
            beside += 1
            pending |= touched - written_before if step.fork else touched
        else:
            # The side stream's own buffers; what both only read (the hourglass's input) was written before the fork.
            assert not (touched - written_before) & pending, step.name
            written_before |= touched
    assert beside == 2 * 3 * 2  # two of three blocks, on each of three levels, in each of two stacks


def vars_of(fused: FusedNet) -> list[Tensor]:
    """Every packed weight."""
    found: list[Tensor] = []

    def walk(value: object) -> None:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            for item in value:
                walk(item)
        elif hasattr(value, "__dict__") and not isinstance(value, type):
            for item in vars(value).values():
                walk(item)

    walk([fused._weights.stem, fused._weights.stacks])
    return found


def test_an_overflow_names_its_layer(tiny_config: HourglassConfig) -> None:
    model = trained_looking(tiny_config)
    block = model.get_submodule("stacks.1.hourglass.low3.0")
    with torch.no_grad():
        block.get_parameter("convs.2.bias").fill_(1e5)  # above float16's 65504, within bfloat16's range
    images = torch.rand(1, 3, 64, 64)
    assert fuse(model, images, torch.float16).find_overflow(images) == "stacks.1.hourglass.low3.0"
    assert fuse(model, images, torch.bfloat16).find_overflow(images) is None


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
    with pytest.raises(FasthgError, match="whole blocks"):
        fuse(HourglassNet(replace(tiny_config, num_convs=4)).eval(), images, torch.float32, blocks="whole")
    with pytest.raises(FasthgError, match=r"torch\.int8"):
        fuse(model, images, torch.int8)
