"""Convolutions behind a GroupNorm with one group: `torch.ops.fasthg.norm_conv1x1` and `norm_conv3x3` on CUDA."""

from __future__ import annotations

from torch import Tensor

import triton
import triton.language as tl
from fasthg.kernels.layout import Grid
from fasthg.kernels.triton.launch import launch, resolve, tiles, width_of
from fasthg.kernels.triton.statistics import image_statistics, normalise_relu, store_partials
from fasthg.kernels.triton.tiles import add_residual, grid_rows, image_pixels, load_tile
from fasthg.kernels.tuning import Config


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
    STAGES: tl.constexpr,
):
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
        acc = tl.dot(a, load_tile(weight_ptr, channels, columns, CO), acc)
    acc += tl.load(bias_ptr + columns)[None, :]
    if skip_ptr is not None:
        low_rows = grid_rows(n, h // 2, w // 2, height // 2, width // 2)
        acc = add_residual(acc, skip_ptr, skip_weight_ptr, low_ptr, rows, low_rows, columns, CI, CO, BK, STAGES)
    y = acc.to(x_out_ptr.dtype.element_ty)
    tl.store(x_out_ptr + rows[:, None] * CO + columns[None, :], y, mask=exists[:, None])
    store_partials(y, exists, partials_out_ptr, n, tiles, CO)


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
):
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
        acc = tl.dot(a, load_tile(weight_ptr, tap * C + channels, columns, CO), acc)
    y = (acc + tl.load(bias_ptr + columns)[None, :]).to(x_out_ptr.dtype.element_ty)
    tl.store(x_out_ptr + rows[:, None] * CO + columns[None, :], y, mask=exists[:, None])
    store_partials(y, exists, partials_out_ptr, n, tiles, CO)


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
    config: Config | None = None,
) -> None:
    """The operator's arguments; `config` overrides the table."""
    config = resolve(config, "norm_conv1x1", x_out.shape[1], batch * height * width, x.device)
    narrowest = min(x.shape[1], width_of(skip) if skip_weight is not None else x.shape[1])
    launch(
        norm_conv1x1_kernel, (tiles(height * width, config.block_m), batch), config,
        x, partials, affine, eps, weight, bias, skip, skip_weight, low, x_out, partials_out,
        height, width, Grid(batch, height, width).statistics_tiles,
        C=x.shape[1], CI=width_of(skip), CO=x_out.shape[1],
        BM=config.block_m, BK=min(config.block_k, narrowest), STAGES=config.num_stages,
    )  # fmt: skip


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
    config: Config | None = None,
) -> None:
    """The operator's arguments; `config` overrides the table."""
    config = resolve(config, "norm_conv3x3", x_out.shape[1], batch * height * width, x.device)
    launch(
        norm_conv3x3_kernel, (tiles(height * width, config.block_m), batch), config,
        x, partials, affine, eps, weight, bias, x_out, partials_out,
        height, width, Grid(batch, height, width).statistics_tiles,
        C=x.shape[1], CO=x_out.shape[1],
        BM=config.block_m, BK=min(config.block_k, x.shape[1]), STAGES=config.num_stages,
    )  # fmt: skip
