"""Heatmaps to joints, and joints to the heatmaps that a network is trained on.

Points are in continuous heatmap pixels with the origin at the corner of the map: times `STRIDE` they are crop pixels.
"""

from __future__ import annotations

from torch import Tensor

from fasthg.kernels.ops import heatmaps as ops


def decode(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    """Heatmaps [N, J, h, w] -> points [N, J, 2] (x, y) and scores [N, J], float32 on the same device.

    The largest pixel's centre, moved 0.25 pixels toward the larger neighbour on each axis.
    """
    return ops.decode_heatmaps(heatmaps)


def render_targets(points: Tensor, weights: Tensor, size: tuple[int, int] = (64, 64), sigma: float = 1.0) -> Tensor:
    """Points [N, J, 2] and weights [N, J] -> targets [N, J, h, w] float32; `size` is (h, w).

    A Gaussian of `sigma` heatmap pixels about the exact point, cut at 3 sigma; all zero where the weight is 0 or the
    joint is outside the map.
    """
    return ops.render_targets(points, weights, size[0], size[1], sigma)
