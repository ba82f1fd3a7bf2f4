"""The fused operators over buffers, in plain PyTorch: what they compute on a device without kernels of its own.

Inputs are widened to float32 (float64 stays), outputs rounded once, where they are stored.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from fasthg.kernels import reference
from fasthg.kernels.layout import Grid
from fasthg.kernels.parts import Conv, Norm, Projection, Residual, Results


def wide(grid: Grid, buffer: Tensor) -> Tensor:
    """A buffer's images [N, C, H, W] in the dtype that the reference computes in: float32 or wider."""
    images = grid.images(buffer)
    return images.float() if images.dtype.itemsize < 4 else images


def stem(images: Tensor, conv: Conv, relu: bool, out: Results, partials_out: Tensor | None, grid: Grid) -> None:
    """See `torch.ops.fasthg.stem`."""
    x = reference.conv_stem(images.to(conv.bias.dtype), conv.weight, conv.bias)
    x = F.relu(x) if relu else x
    _emit_results(grid, x, out)
    _emit_partials(grid, x, partials_out)


def conv3x3(t: Tensor, conv: Conv, t_out: Tensor, grid: Grid) -> None:
    """See `torch.ops.fasthg.conv3x3`."""
    _emit(grid, F.relu(reference.conv3x3(wide(grid, t), conv.weight, conv.bias)), t_out)


def bottleneck(t: Tensor, conv: Conv | None, expand: Conv, residual: Residual, out: Results, grid: Grid) -> None:
    """See `torch.ops.fasthg.bottleneck`, and `expand`, where there is no `conv`."""
    hidden = wide(grid, t)
    if conv is not None:
        hidden = F.relu(reference.conv3x3(hidden, conv.weight, conv.bias))
    y = reference.conv1x1(hidden, expand.weight, expand.bias)
    _emit_results(grid, _add(grid, y, residual), out)


def head(
    y: Tensor,
    features: Conv,
    score: Conv | None,
    heatmaps: Tensor | None,
    trunk: Tensor | None,
    merge: Conv | None,
    out: Results,
    grid: Grid,
) -> None:
    """See `torch.ops.fasthg.head`."""
    hidden = F.relu(reference.conv1x1(wide(grid, y), features.weight, features.bias))
    if score is not None and heatmaps is not None:
        heatmaps.copy_(reference.conv1x1(hidden, score.weight, score.bias)[:, : heatmaps.shape[1]])
    if trunk is not None and merge is not None:
        _emit_results(grid, wide(grid, trunk) + reference.conv1x1(hidden, merge.weight, merge.bias), out)


def max_pool(x: Tensor, x_out: Tensor, partials_out: Tensor | None, grid: Grid) -> None:
    """See `torch.ops.fasthg.max_pool`."""
    pooled = F.max_pool2d(wide(grid, x), 2)
    _emit(grid.half(), pooled, x_out)
    _emit_partials(grid.half(), pooled, partials_out)


def normalise(x: Tensor, norm: Norm, x_out: Tensor, partials_out: Tensor | None, grid: Grid) -> None:
    """See `torch.ops.fasthg.normalise`."""
    y = _normalised(grid, x, norm)
    _emit(grid, y, x_out)
    _emit_partials(grid, y, partials_out)


def norm_conv1x1(
    x: Tensor,
    norm: Norm | None,
    conv: Conv,
    residual: Residual | None,
    x_out: Tensor,
    partials_out: Tensor | None,
    grid: Grid,
) -> None:
    """See `torch.ops.fasthg.norm_conv1x1`."""
    y = reference.conv1x1(_normalised(grid, x, norm), conv.weight, conv.bias)
    y = y if residual is None else _add(grid, y, residual)
    _emit(grid, y, x_out)
    _emit_partials(grid, y, partials_out)


def norm_conv3x3(x: Tensor, norm: Norm, conv: Conv, x_out: Tensor, partials_out: Tensor | None, grid: Grid) -> None:
    """See `torch.ops.fasthg.norm_conv3x3`."""
    y = reference.conv3x3(_normalised(grid, x, norm), conv.weight, conv.bias)
    _emit(grid, y, x_out)
    _emit_partials(grid, y, partials_out)


def _normalised(grid: Grid, x: Tensor, norm: Norm | None) -> Tensor:
    images = wide(grid, x)
    return images if norm is None else reference.group_norm_relu(images, norm.partials, norm.affine, norm.eps)


def _add(grid: Grid, y: Tensor, residual: Residual) -> Tensor:
    low = None if residual.low is None else wide(grid.half(), residual.low)
    return reference.add_residual(y, wide(grid, residual.x), residual.weight, low)


def _emit(grid: Grid, x: Tensor, x_out: Tensor | None) -> None:
    if x_out is not None:
        grid.images(x_out).copy_(x)


def _emit_projected(grid: Grid, x: Tensor, reader: Projection | None) -> None:
    if reader is not None:
        _emit(grid, reference.project(x, reader.affine, reader.conv.weight, reader.conv.bias), reader.t)


def _emit_results(grid: Grid, x: Tensor, out: Results) -> None:
    _emit(grid, x, out.x)
    _emit_projected(grid, x, out.next)
    if out.pooled is not None:
        pooled = F.max_pool2d(x, 2)
        _emit(grid.half(), pooled, out.pooled)
        _emit_projected(grid.half(), pooled, out.pool)


def _emit_partials(grid: Grid, x: Tensor, partials_out: Tensor | None) -> None:
    if partials_out is not None:
        partials_out.copy_(reference.statistics(x, grid.statistics_tiles))
