"""Decoding and targets, in the reference and in the compiled module alike."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.library import opcheck

from fasthg.kernels import cpu as host
from fasthg.kernels import reference
from fasthg.kernels.ops import heatmaps as ops

DECODERS = [reference.decode_heatmaps, host.decode_heatmaps, ops.decode_heatmaps]
RENDERERS = [reference.render_targets, host.render_targets, ops.render_targets]


def decode_by_hand(heatmap: NDArray[np.float64]) -> tuple[float, float, float]:
    """One map [h, w] by the rule as it is written down, one pixel at a time."""
    best_y, best_x = 0, 0
    for y, x in np.ndindex(*heatmap.shape):
        if heatmap[y, x] > heatmap[best_y, best_x]:
            best_y, best_x = y, x
    point_x, point_y = best_x + 0.5, best_y + 0.5
    if 0 < best_x < heatmap.shape[1] - 1:
        point_x += 0.25 * np.sign(heatmap[best_y, best_x + 1] - heatmap[best_y, best_x - 1])
    if 0 < best_y < heatmap.shape[0] - 1:
        point_y += 0.25 * np.sign(heatmap[best_y + 1, best_x] - heatmap[best_y - 1, best_x])
    return point_x, point_y, heatmap[best_y, best_x]


@pytest.mark.parametrize("decode", DECODERS)
def test_peak_moves_a_quarter_toward_the_larger_neighbour_on_each_axis(decode: Callable) -> None:
    heatmap = torch.zeros(1, 1, 5, 6)
    heatmap[0, 0, 3, 2], heatmap[0, 0, 3, 3], heatmap[0, 0, 2, 2] = 2.0, 1.0, 0.5
    points, scores = decode(heatmap)
    assert points.tolist() == [[[2.75, 3.25]]]
    assert scores.tolist() == [[2.0]]


@pytest.mark.parametrize("decode", DECODERS)
def test_peak_at_the_border_or_between_equals_stays_at_its_centre(decode: Callable) -> None:
    heatmaps = torch.zeros(1, 3, 4, 4)
    heatmaps[0, 0, 0, 3] = 1.0  # corner, though both inner neighbours are larger than nothing
    heatmaps[0, 0, 0, 2] = heatmaps[0, 0, 1, 3] = 0.5
    heatmaps[0, 1, 1, 1] = 1.0  # all neighbours equal
    heatmaps[0, 2, 0, 1] = heatmaps[0, 2, 2, 2] = 1.0  # the first of two equal peaks
    points, _ = decode(heatmaps)
    assert points[0].tolist() == [[3.5, 0.5], [1.5, 1.5], [1.5, 0.5]]


@pytest.mark.parametrize("decode", DECODERS)
def test_nan_heatmaps_show_as_nan_scores(decode: Callable) -> None:
    heatmaps = torch.rand(1, 2, 8, 8)
    heatmaps[0, 0, 4, 5] = math.nan
    heatmaps[0, 1] = math.nan
    points, scores = decode(heatmaps)
    assert scores.isnan().all()
    assert points[0, 1].tolist() == [0.5, 0.5]
    assert points[0, 0].tolist() == reference.decode_heatmaps(heatmaps)[0][0, 0].tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_decoding_takes_what_networks_give(dtype: torch.dtype, layout: torch.memory_format) -> None:
    heatmaps = torch.randn(2, 3, 9, 7).to(dtype)
    expected = [decode_by_hand(map_.double().numpy()) for map_ in heatmaps.flatten(0, 1)]
    points, scores = ops.decode_heatmaps(heatmaps.to(memory_format=layout))
    assert points.dtype == scores.dtype == torch.float32
    assert torch.cat([points, scores[..., None]], dim=-1).view(-1, 3).tolist() == pytest.approx(np.array(expected))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), height=st.integers(1, 9), width=st.integers(1, 40), levels=st.integers(2, 50))
def test_reference_and_compiled_decoding_follow_the_rule(seed: int, height: int, width: int, levels: int) -> None:
    maps = np.random.default_rng(seed).integers(0, levels, (1, 2, height, width)) / levels - 0.5  # many equal values
    expected = [decode_by_hand(np.float32(map_)) for map_ in maps[0]]
    for decode in (reference.decode_heatmaps, host.decode_heatmaps):
        points, scores = decode(torch.tensor(maps, dtype=torch.float32))
        assert torch.cat([points, scores[..., None]], dim=-1)[0].tolist() == [list(map(float, row)) for row in expected]


@pytest.mark.parametrize("render", RENDERERS)
def test_targets_are_gaussians_about_the_exact_point(render: Callable) -> None:
    x, y, sigma = 5.3, 2.9, 1.5
    target = render(torch.tensor([[[x, y]]]), torch.ones(1, 1), 8, 12, sigma)[0, 0]
    dx = np.arange(12) + 0.5 - x
    dy = (np.arange(8) + 0.5 - y)[:, None]
    expected = np.exp(-(dx**2 + dy**2) / (2 * sigma**2)) * (abs(dx) <= 3 * sigma) * (abs(dy) <= 3 * sigma)
    np.testing.assert_allclose(target.numpy(), expected, atol=1e-6)
    assert (expected == 0).any(), "the case must reach beyond three sigma"


@pytest.mark.parametrize("render", RENDERERS)
def test_missing_outside_and_nan_joints_have_empty_targets(render: Callable) -> None:
    points = torch.tensor([[[4.0, 4.0], [8.0, 4.0], [4.0, -0.01], [math.nan, 4.0], [0.0, 7.99]]])
    weights = torch.tensor([[0.0, 1.0, 1.0, 1.0, 1.0]])
    targets = render(points, weights, 8, 8, 1.0)
    assert targets.flatten(2).any(dim=2).tolist() == [[False, False, False, False, True]]


def test_decoding_gives_targets_back_within_half_a_pixel() -> None:
    points = torch.rand(64, 16, 2) * 64
    decoded, scores = ops.decode_heatmaps(ops.render_targets(points, torch.ones(64, 16), 64, 64, 1.0))
    inside = ((points > 1) & (points < 63)).all(dim=-1)
    assert (decoded - points).abs().max() <= 0.5
    assert (decoded - points)[inside].abs().max() <= 0.2501  # the quarter halves the error of the largest pixel
    assert scores.min() > math.exp(-0.251)


def sample_inputs() -> dict[str, tuple]:
    return {
        "decode_heatmaps": (torch.randn(2, 3, 6, 8),),
        "render_targets": (torch.rand(2, 3, 2) * 8, torch.ones(2, 3), 6, 8, 1.0),
    }


@pytest.mark.parametrize("name", list(sample_inputs()))
def test_operators_are_sound_for_compile_and_export(name: str) -> None:
    opcheck(getattr(torch.ops.fasthg, name).default, sample_inputs()[name])
