"""Convolutions behind a GroupNorm with one group: `torch.ops.fasthg.norm_conv1x1` and `norm_conv3x3` on CUDA."""

from __future__ import annotations

from torch import Tensor

import triton
import triton.language as tl
from fasthg.kernels.layout import STATISTICS_PIXELS, Grid
from fasthg.kernels.parts import Conv, Norm, Residual
from fasthg.kernels.triton.launch import conv_pointers, launch, tiles, width_of
from fasthg.kernels.triton.statistics import image_statistics, normalise_relu, store_partials
from fasthg.kernels.triton.tiles import add_residual, dot, grid_rows, image_pixels, load_tile
from fasthg.kernels.tuning import Config, lookup


@triton.jit(do_not_specialize=["height", "width", "tiles"])
def norm_conv1x1_kernel(
    x_ptr,  # [rows, C]
    partials_ptr,  # [batch, tiles, 3] fp32 or None
    affine_ptr,  # [2, C] fp32 or None
    eps,
    weight_ptr,  # [C, CO]
    bias_ptr,  # [CO] fp32
    skip_ptr,  # [rows, CI] or None
    skip_weight_ptr,  # [CI, CO] or None
    low_ptr,  # [half rows, CO] or None
    x_out_ptr,  # [rows, CO]
    partials_out_ptr,  # [batch, tiles, 3] fp32 or None
    height,
    width,
    tiles,
    C: tl.constexpr,
    CI: tl.constexpr,
    CO: tl.constexpr,
    BM: tl.constexpr,
    BK: tl.constexpr,
    SK: tl.constexpr,
    STAGES: tl.constexpr,
    PIXELS: tl.constexpr,
):
    tl.static_assert(C % BK == 0)
    n, h, w, exists = image_pixels(height, width, BM)
    rows = grid_rows(n, h, w, height, width)
    if partials_ptr is not None:
        mean, inverse = image_statistics(partials_ptr, n, tiles, eps)
    columns = tl.arange(0, CO)
    acc = tl.zeros((BM, CO), tl.float32)
    for k in tl.range(0, C // BK, num_stages=STAGES):
        channels = k * BK + tl.arange(0, BK)
        a = load_tile(x_ptr, rows, channels, C)
        if partials_ptr is not None:
            a = normalise_relu(a, affine_ptr, channels, mean, inverse, C)
        acc = dot(a, load_tile(weight_ptr, channels, columns, CO), acc)
    acc += tl.load(bias_ptr + columns)[None, :]
    if skip_ptr is not None:
        low_rows = grid_rows(n, h // 2, w // 2, height // 2, width // 2)
        acc = add_residual(acc, skip_ptr, skip_weight_ptr, low_ptr, rows, low_rows, columns, CI, CO, SK, STAGES)
    y = acc.to(x_out_ptr.dtype.element_ty)
    tl.store(x_out_ptr + rows[:, None] * CO + columns[None, :], y, mask=exists[:, None])
    store_partials(y, exists, partials_out_ptr, n, tiles, CO, BM, PIXELS)


@triton.jit(do_not_specialize=["height", "width", "tiles"])
def norm_conv3x3_kernel(
    x_ptr,  # [rows, C]
    partials_ptr,  # [batch, tiles, 3] fp32
    affine_ptr,  # [2, C] fp32
    eps,
    weight_ptr,  # [9, C, CO]
    bias_ptr,  # [CO] fp32
    x_out_ptr,  # [rows, CO]
    partials_out_ptr,  # [batch, tiles, 3] fp32 or None
    height,
    width,
    tiles,
    C: tl.constexpr,
    CO: tl.constexpr,
    BM: tl.constexpr,
    BK: tl.constexpr,
    STAGES: tl.constexpr,
    PIXELS: tl.constexpr,
):
    tl.static_assert(C % BK == 0)
    n, h, w, exists = image_pixels(height, width, BM)
    rows = grid_rows(n, h, w, height, width)
    mean, inverse = image_statistics(partials_ptr, n, tiles, eps)
    columns = tl.arange(0, CO)
    acc = tl.zeros((BM, CO), tl.float32)
    for step in tl.range(0, 9 * (C // BK), num_stages=STAGES):
        chunk = step // 9
        tap = step - chunk * 9
        down = tap // 3 - 1
        right = tap % 3 - 1
        channels = chunk * BK + tl.arange(0, BK)
        a = load_tile(x_ptr, rows + down * (width + 1) + right, channels, C)
        a = normalise_relu(a, affine_ptr, channels, mean, inverse, C)
        # Zero borders are not zero once they are normalised.
        inside = (h + down >= 0) & (h + down < height) & (w + right >= 0) & (w + right < width)
        a = tl.where(inside[:, None], a, 0.0)
        acc = dot(a, load_tile(weight_ptr, tap * C + channels, columns, CO), acc)
    y = (acc + tl.load(bias_ptr + columns)[None, :]).to(x_out_ptr.dtype.element_ty)
    tl.store(x_out_ptr + rows[:, None] * CO + columns[None, :], y, mask=exists[:, None])
    store_partials(y, exists, partials_out_ptr, n, tiles, CO, BM, PIXELS)


def norm_conv1x1(
    x: Tensor,
    norm: Norm | None,
    conv: Conv,
    residual: Residual | None,
    x_out: Tensor,
    partials_out: Tensor | None,
    grid: Grid,
    config: Config | None = None,
) -> None:
    """The operator's parts; `config` overrides the table."""
    kind = "norm_conv1x1" if conv.weight.dtype.itemsize == 2 else "norm_conv1x1_fp32"
    pixels, (channels_in, channels) = grid.height * grid.width, conv.weight.shape
    config = config or lookup(kind, channels, grid.batch, pixels, x.device)
    skip = None if residual is None else residual.x
    launch(
        norm_conv1x1_kernel, (tiles(pixels, config.block_m), grid.batch), config,
        x_ptr=x, **_norm_arguments(norm), **conv_pointers("", conv), skip_ptr=skip,
        skip_weight_ptr=residual and residual.weight, low_ptr=residual and residual.low, x_out_ptr=x_out,
        partials_out_ptr=partials_out, height=grid.height, width=grid.width, tiles=grid.statistics_tiles,
        C=channels_in, CI=width_of(skip), CO=channels, BM=config.block_m, BK=min(config.block_k, channels_in),
        SK=min(config.block_k, width_of(skip)), STAGES=config.num_stages, PIXELS=STATISTICS_PIXELS,
    )  # fmt: skip


def norm_conv3x3(
    x: Tensor,
    norm: Norm,
    conv: Conv,
    x_out: Tensor,
    partials_out: Tensor | None,
    grid: Grid,
    config: Config | None = None,
) -> None:
    """The operator's parts; `config` overrides the table."""
    pixels, (_, channels_in, channels) = grid.height * grid.width, conv.weight.shape
    config = config or lookup("norm_conv3x3", channels, grid.batch, pixels, x.device)
    launch(
        norm_conv3x3_kernel, (tiles(pixels, config.block_m), grid.batch), config,
        x_ptr=x, **_norm_arguments(norm), **conv_pointers("", conv), x_out_ptr=x_out, partials_out_ptr=partials_out,
        height=grid.height, width=grid.width, tiles=grid.statistics_tiles, C=channels_in, CO=channels,
        BM=config.block_m, BK=min(config.block_k, channels_in), STAGES=config.num_stages, PIXELS=STATISTICS_PIXELS,
    )  # fmt: skip


def _norm_arguments(norm: Norm | None) -> dict[str, Tensor | float | None]:
    if norm is None:
        return {"partials_ptr": None, "affine_ptr": None, "eps": 0.0}
    return {"partials_ptr": norm.partials, "affine_ptr": norm.affine, "eps": norm.eps}
