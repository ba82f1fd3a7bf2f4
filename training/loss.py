"""The loss of stacked-hourglass training: intermediate supervision by masked mean squared error."""

from __future__ import annotations

from torch import Tensor


def heatmap_loss(heatmaps: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Mean squared error of each stack's heatmaps, summed over the stacks; a float32 scalar.

    heatmaps   [N, S, J, h, w] of the S stacks, any floating type
    targets    float32 [N, J, h, w], the same for every stack
    weights    float32 [N, J], 1 where the joint counts and 0 where it does not

    A stack's error is divided by N * J * h * w, joints that do not count included (they add zero). So the loss of a
    batch is the mean of the losses of its equal parts, which keeps gradient accumulation and data-parallel training
    exact.
    """
    squared = (heatmaps.float() - targets.unsqueeze(1)).square()
    return (squared * weights[:, None, :, None, None]).sum() / targets.numel()
