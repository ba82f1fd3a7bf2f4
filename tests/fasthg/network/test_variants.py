"""Every configuration by its published size; a variant that is added is tested here without a new test."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fasthg.errors import FasthgError
from fasthg.network.flops import count_flops, count_parameters
from fasthg.network.load import create_model
from fasthg.network.variants import STUDY_VARIANTS, VARIANTS, HourglassConfig, get_config

# Millions of parameters and GFLOPs of an image of 256x256, multiply-adds counted twice.
PUBLISHED = {
    "original": (25.594624, 56.19),
    "feats64": (6.73, 17.56),
    "stacks6": (19.31, 43.45),
    "stacks6-feats64-blocks4": (18.75, 37.87),
    "feats64-layernorm": (6.73, 17.56),  # GroupNorm has as many parameters as BatchNorm
    "feats64-deepening": (5.27, 17.47),
    "feats64-shallowing": (5.43, 17.49),
    "convs4": (42.49, 88.77),
}


def test_the_studys_eight_are_there_in_its_order() -> None:
    assert tuple(PUBLISHED) == STUDY_VARIANTS
    assert set(VARIANTS) - set(PUBLISHED) == {"small"}
    assert (VARIANTS["small"].num_stacks, VARIANTS["small"].num_feats) == (2, 64)


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_published_parameters_and_flops_come_out(name: str) -> None:
    million, gflops = PUBLISHED[name]
    with torch.device("meta"):
        parameters = sum(p.numel() for p in create_model(name).parameters())
    assert parameters == count_parameters(VARIANTS[name])
    assert parameters / 1e6 == pytest.approx(million, abs=5e-7 if name == "original" else 5e-3)
    assert count_flops(VARIANTS[name]) / 1e9 == pytest.approx(gflops, abs=5e-3)


@pytest.mark.parametrize("name", list(VARIANTS))
def test_every_variant_answers_with_heatmaps_of_every_stack(name: str) -> None:
    config = VARIANTS[name]
    size = config.min_input_multiple
    model = create_model(name).eval()
    with torch.inference_mode():
        heatmaps = model(torch.randn(1, 3, size, size))
    assert heatmaps.shape == (1, config.num_stacks, 16, size // 4, size // 4)
    assert heatmaps.isfinite().all()
    assert heatmaps.std() > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_stacks": 0}, "num_stacks is 0; give a whole number of at least 1"),
        ({"num_feats": 64.0}, "num_feats is 64.0"),
        ({"depths": (4, 4)}, "depths has 2 entries for 8 stacks; give one int or 8"),
        ({"depths": 0}, "each hourglass has 1 to 6 levels"),
        ({"depths": 7}, "each hourglass has 1 to 6 levels"),
        ({"num_convs": 5}, "num_convs is 5; a bottleneck has 3 or 4 convolutions"),
        ({"norm": "instance"}, "norm is 'instance'; give 'batch' or 'layer'"),
        ({"dropout": 1.0}, "dropout is 1.0; give a probability"),
        ({"stem_feats": (64,)}, "stem_feats is"),
    ],
)
def test_configurations_that_no_network_can_have_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(FasthgError, match=message):
        HourglassConfig(**arguments)


def test_unknown_variants_are_refused_with_the_names_there_are() -> None:
    with pytest.raises(FasthgError, match="unknown variant 'orginal'; choose one of original, feats64"):
        get_config("orginal")


def test_one_depth_means_the_same_as_that_depth_for_each_stack() -> None:
    assert HourglassConfig(num_stacks=2, depths=3) == HourglassConfig(num_stacks=2, depths=(3, 3))
    assert HourglassConfig(depths=(4, 4, 3, 3, 3, 3, 2, 2)).min_input_multiple == 64
