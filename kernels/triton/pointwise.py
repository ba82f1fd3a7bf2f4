"""What moves whole tensors and multiplies nothing: `torch.ops.fasthg.max_pool` and `normalise` on CUDA."""

from __future__ import annotations

from torch import Tensor

import triton
import triton.language as tl
from fasthg.kernels.layout import STATISTICS_PIXELS, Grid
from fasthg.kernels.parts import Norm
from fasthg.kernels.triton.launch import launch, tiles
from fasthg.kernels.triton.statistics import image_statistics, normalise_relu, store_partials
from fasthg.kernels.triton.tiles import grid_rows, image_pixels, load_tile
from fasthg.kernels.tuning import Config, lookup


@triton.jit(do_not_specialize=["height", "width", "tiles"])
def max_pool_kernel(
    x_ptr,  # [rows, C]
    x_out_ptr,  # [half rows, C]
    partials_out_ptr,  # [batch, tiles, 3] fp32 or None
    height,
    width,
    tiles,
    C: tl.constexpr,
    BM: tl.constexpr,
    PIXELS: tl.constexpr,
):
    n, h, w, exists = image_pixels(height // 2, width // 2, BM)
    c = tl.arange(0, C)
    rows = grid_rows(n, 2 * h, 2 * w, height, width)
    y = tl.maximum(load_tile(x_ptr, rows, c, C), load_tile(x_ptr, rows + 1, c, C))
    rows += width + 1
    y = tl.maximum(y, tl.maximum(load_tile(x_ptr, rows, c, C), load_tile(x_ptr, rows + 1, c, C)))
    rows = grid_rows(n, h, w, height // 2, width // 2)
    tl.store(x_out_ptr + rows[:, None] * C + c[None, :], y, mask=exists[:, None])
    store_partials(y, exists, partials_out_ptr, n, tiles, C, BM, PIXELS)


@triton.jit(do_not_specialize=["height", "width", "tiles"])
def normalise_kernel(
    x_ptr,  # [rows, C]
    partials_ptr,  # [batch, tiles, 3] fp32
    affine_ptr,  # [2, C] fp32
    eps,
    x_out_ptr,  # [rows, C]
    partials_out_ptr,  # [batch, tiles, 3] fp32 or None
    height,
    width,
    tiles,
    C: tl.constexpr,
    BM: tl.constexpr,
    PIXELS: tl.constexpr,
):
    n, h, w, exists = image_pixels(height, width, BM)
    mean, inverse = image_statistics(partials_ptr, n, tiles, eps)
    c = tl.arange(0, C)
    rows = grid_rows(n, h, w, height, width)
    y = normalise_relu(load_tile(x_ptr, rows, c, C), affine_ptr, c, mean, inverse, C).to(x_out_ptr.dtype.element_ty)
    tl.store(x_out_ptr + rows[:, None] * C + c[None, :], y, mask=exists[:, None])
    store_partials(y, exists, partials_out_ptr, n, tiles, C, BM, PIXELS)


def max_pool(x: Tensor, x_out: Tensor, partials_out: Tensor | None, grid: Grid, config: Config | None = None) -> None:
    """The operator's parts; `config` overrides the table."""
    half = grid.half()
    pixels = half.height * half.width
    config = config or lookup("max_pool", x.shape[1], grid.batch, pixels, x.device)
    launch(
        max_pool_kernel, (tiles(pixels, config.block_m), grid.batch), config,
        x_ptr=x, x_out_ptr=x_out, partials_out_ptr=partials_out, height=grid.height, width=grid.width,
        tiles=half.statistics_tiles, C=x.shape[1], BM=config.block_m, PIXELS=STATISTICS_PIXELS,
    )  # fmt: skip


def normalise(
    x: Tensor, norm: Norm, x_out: Tensor, partials_out: Tensor | None, grid: Grid, config: Config | None = None
) -> None:
    """The operator's parts; `config` overrides the table."""
    pixels = grid.height * grid.width
    config = config or lookup("normalise", x.shape[1], grid.batch, pixels, x.device)
    launch(
        normalise_kernel, (tiles(pixels, config.block_m), grid.batch), config,
        x_ptr=x, partials_ptr=norm.partials, affine_ptr=norm.affine, eps=norm.eps, x_out_ptr=x_out,
        partials_out_ptr=partials_out, height=grid.height, width=grid.width, tiles=grid.statistics_tiles,
        C=x.shape[1], BM=config.block_m, PIXELS=STATISTICS_PIXELS,
    )  # fmt: skip
