"""Heatmaps and joints, as the rest of the package calls them."""

from __future__ import annotations

import numpy as np
import torch

from fasthg.pixels import heatmap


def test_size_is_height_and_width() -> None:
    assert heatmap.render_targets(torch.rand(2, 16, 2), torch.ones(2, 16), size=(12, 20)).shape == (2, 16, 12, 20)
    assert heatmap.render_targets(torch.rand(2, 16, 2), torch.ones(2, 16)).shape == (2, 16, 64, 64)


def test_x_comes_before_y() -> None:
    points, scores = heatmap.decode(heatmap.render_targets(torch.tensor([[[30.5, 10.5]]]), torch.ones(1, 1)))
    assert points.tolist() == [[[30.5, 10.5]]]
    assert scores.tolist() == [[1.0]]


def test_occluded_joints_are_drawn_like_visible_ones() -> None:
    # The caller's weight says labelled, not visible: any positive weight draws the whole Gaussian.
    points = torch.tensor([[[8.2, 9.7], [8.2, 9.7]]])
    targets = heatmap.render_targets(points, torch.tensor([[1.0, 0.5]]), (16, 16))
    assert torch.equal(targets[0, 0], targets[0, 1])


def test_a_gaussians_mass_is_that_of_sigma() -> None:
    targets = heatmap.render_targets(torch.tensor([[[32.3, 31.8]]]), torch.ones(1, 1), sigma=2.0)
    whole = 2 * np.pi * 2.0**2  # cut at three sigma on each axis: 0.9973 squared of it remains
    assert abs(targets.sum().item() / whole - 0.9973**2) < 0.005
