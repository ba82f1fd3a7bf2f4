"""The fused operators for GroupNorm of one group ("layer" norm); `fasthg.kernels.ops.network` says how they compose.

`partials` are the input's partial statistics, written by its producer; `affine` is [gamma, beta]; `eps` the norm's.
"""

from __future__ import annotations

from torch import Tensor

from fasthg.kernels.layout import Grid
from fasthg.kernels.ops.checks import Arguments
from fasthg.kernels.ops.dispatch import implementation, operator


@operator("normalise", {"x_out", "partials_out"})
def normalise(
    x: Tensor,
    partials: Tensor,
    affine: Tensor,
    eps: float,
    x_out: Tensor,
    partials_out: Tensor | None,
    batch: int,
    height: int,
    width: int,
) -> None:
    """x_out = ReLU(norm(x)), for a tensor that is also a block's skip (the stem's)."""
    grid, check = Grid(batch, height, width), Arguments("normalise", x)
    channels = check.buffer("x", x, grid)
    check.buffer("x_out", x_out, grid, channels)
    norm = check.norm(grid, channels, partials, affine, eps)
    check.partials("partials_out", partials_out, grid)
    implementation(x).normalise(x, norm, x_out, partials_out, grid)


@operator("norm_conv1x1", {"x_out", "partials_out"})
def norm_conv1x1(
    x: Tensor,
    partials: Tensor | None,
    affine: Tensor | None,
    eps: float,
    weight: Tensor,
    bias: Tensor,
    skip: Tensor | None,
    skip_weight: Tensor | None,
    low: Tensor | None,
    x_out: Tensor,
    partials_out: Tensor | None,
    batch: int,
    height: int,
    width: int,
) -> None:
    """x_out = 1x1(ReLU(norm(x))) [+ skip [@ skip_weight]] [+ low, upsampled]; partials None: x enters as it is.

    weight [C, C'], bias [C'], skip [.., CI] (None: nothing is added), skip_weight [CI, C'], low [.., C'] in the half
    grid.
    """
    grid, check = Grid(batch, height, width), Arguments("norm_conv1x1", weight)
    channels_in, channels = check.source("x", x, grid), check.trunk("x_out", x_out, grid)
    norm = check.norm(grid, channels_in, partials, affine, eps)
    conv = check.conv("", weight, bias, channels_in, channels)
    check.require(skip is not None or (skip_weight is None and low is None), "skip_weight and low need skip")
    residual = None if skip is None else check.residual("skip", grid, channels, skip, skip_weight, low)
    check.partials("partials_out", partials_out, grid)
    implementation(weight).norm_conv1x1(x, norm, conv, residual, x_out, partials_out, grid)


@operator("norm_conv3x3", {"x_out", "partials_out"})
def norm_conv3x3(
    x: Tensor,
    partials: Tensor,
    affine: Tensor,
    eps: float,
    weight: Tensor,
    bias: Tensor,
    x_out: Tensor,
    partials_out: Tensor | None,
    batch: int,
    height: int,
    width: int,
) -> None:
    """x_out = 3x3(ReLU(norm(x))), padded with zeros after the norm. weight [9, C, C'], bias [C']."""
    grid, check = Grid(batch, height, width), Arguments("norm_conv3x3", x)
    channels_in, channels = check.buffer("x", x, grid), check.buffer("x_out", x_out, grid)
    norm = check.norm(grid, channels_in, partials, affine, eps)
    conv = check.conv("", weight, bias, 9, channels_in, channels)
    check.partials("partials_out", partials_out, grid)
    implementation(x).norm_conv3x3(x, norm, conv, x_out, partials_out, grid)
