"""The loss means what the papers say: masked mean squared error, summed over the stacks."""

import numpy as np
import pytest
import torch

from training.loss import heatmap_loss


def test_hand_worked_case():
    targets = torch.zeros(1, 2, 1, 2)
    targets[0, 0] = torch.tensor([[1.0, 0.0]])
    heatmaps = torch.zeros(1, 2, 2, 1, 2)
    heatmaps[0, 1, 0] = torch.tensor([[0.5, 0.5]])
    heatmaps[0, :, 1] = 9.0  # a joint that does not count
    weights = torch.tensor([[1.0, 0.0]])
    # The first stack misses by 1, the second by 0.25 + 0.25, over 2 joints x 2 pixels.
    assert heatmap_loss(heatmaps, targets, weights).item() == pytest.approx((1.0 + 0.5) / 4)


def test_agrees_with_float64():
    rng = np.random.default_rng(0)
    heatmaps, targets = rng.normal(size=(3, 2, 16, 8, 8)), rng.random((3, 16, 8, 8))
    weights = (rng.random((3, 16)) < 0.8).astype(float)
    expected = sum((((heatmaps[:, s] - targets) ** 2) * weights[..., None, None]).mean() for s in range(2))
    loss = heatmap_loss(*(torch.from_numpy(a).float() for a in (heatmaps, targets, weights)))
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_unlabelled_joints_get_no_gradient():
    heatmaps = torch.randn(2, 2, 16, 4, 4, requires_grad=True)
    weights = torch.ones(2, 16)
    weights[0, 3] = 0.0
    heatmap_loss(heatmaps, torch.rand(2, 16, 4, 4), weights).backward()
    assert heatmaps.grad is not None
    assert not heatmaps.grad[0, :, 3].any()
    assert heatmaps.grad[1, :, 3].all()


def test_half_precision_heatmaps_are_compared_in_float32():
    targets = torch.full((1, 16, 4, 4), 1e-4)
    loss = heatmap_loss(torch.zeros(1, 1, 16, 4, 4, dtype=torch.float16), targets, torch.ones(1, 16))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(1e-8)
