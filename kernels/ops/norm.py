"""The fused operators for GroupNorm of one group ("layer" norm); `fasthg.kernels.ops.network` says how they compose.

`partials` are the input's partial statistics, written by its producer; `affine` is [gamma, beta]; `eps` the norm's.
"""

from __future__ import annotations

from torch import Tensor
from torch.library import triton_op

from fasthg.kernels import reference
from fasthg.kernels.layout import Grid
from fasthg.kernels.ops.checks import Arguments
from fasthg.kernels.ops.network import check_residual, emit, emit_partials, wide


@triton_op("fasthg::normalise", mutates_args={"x_out", "partials_out"})
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
    check.require(check.buffer("x_out", x_out, grid) == channels, f"x_out needs {channels} channels")
    check.partials("partials", partials, grid)
    check.vector("affine", affine, 2, channels)
    check.partials("partials_out", partials_out, grid)
    if x.is_cuda:
        from fasthg.kernels.triton.pointwise import normalise as launch

        launch(x, partials, affine, eps, x_out, partials_out, batch, height, width)
        return
    y = reference.group_norm_relu(wide(grid, x), partials, affine, eps)
    emit(grid, y, x_out)
    emit_partials(grid, y, partials_out)


@triton_op("fasthg::norm_conv1x1", mutates_args={"x_out", "partials_out"})
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
    grid, check = Grid(batch, height, width), Arguments("norm_conv1x1", x)
    channels_in, channels = check.buffer("x", x, grid), check.buffer("x_out", x_out, grid)
    if check.together("partials and affine", partials, affine):
        check.partials("partials", partials, grid)
        check.vector("affine", affine, 2, channels_in)
    check.tensor("weight", weight, (channels_in, channels))
    check.vector("bias", bias, channels)
    check.require(skip is not None or (skip_weight is None and low is None), "skip_weight and low need skip")
    if skip is not None:
        check_residual(check, grid, check.buffer("skip", skip, grid), channels, skip_weight, low)
    check.partials("partials_out", partials_out, grid)
    if x.is_cuda:
        from fasthg.kernels.triton.norm_conv import norm_conv1x1 as launch

        launch(
            x, partials, affine, eps, weight, bias, skip, skip_weight, low, x_out, partials_out, batch, height, width
        )
        return
    images = wide(grid, x)
    if partials is not None and affine is not None:
        images = reference.group_norm_relu(images, partials, affine, eps)
    y = reference.conv1x1(images, weight, bias)
    if skip is not None:
        y = reference.add_residual(y, wide(grid, skip), skip_weight, None if low is None else wide(grid.half(), low))
    emit(grid, y, x_out)
    emit_partials(grid, y, partials_out)


@triton_op("fasthg::norm_conv3x3", mutates_args={"x_out", "partials_out"})
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
    check.partials("partials", partials, grid)
    check.vector("affine", affine, 2, channels_in)
    check.tensor("weight", weight, (9, channels_in, channels))
    check.vector("bias", bias, channels)
    check.partials("partials_out", partials_out, grid)
    if x.is_cuda:
        from fasthg.kernels.triton.norm_conv import norm_conv3x3 as launch

        launch(x, partials, affine, eps, weight, bias, x_out, partials_out, batch, height, width)
        return
    y = reference.conv3x3(reference.group_norm_relu(wide(grid, x), partials, affine, eps), weight, bias)
    emit(grid, y, x_out)
    emit_partials(grid, y, partials_out)
