"""The first convolution, 7x7 with stride 2: `torch.ops.fasthg.stem` on CUDA."""

from __future__ import annotations

from torch import Tensor

import triton
import triton.language as tl
from fasthg.kernels.layout import STATISTICS_PIXELS, Grid
from fasthg.kernels.parts import Conv, Results
from fasthg.kernels.triton.launch import conv_pointers, launch, reader_pointers, tiles, width_of
from fasthg.kernels.triton.statistics import store_partials
from fasthg.kernels.triton.tiles import (
    dot,
    grid_rows,
    image_pixels,
    load_tile,
    project,
    start_projection,
    store_projection,
)
from fasthg.kernels.tuning import Config, lookup


@triton.jit(do_not_specialize=["height", "width", "tiles"])
def stem_kernel(
    images_ptr,  # [batch, 3, height, width]
    weight_ptr,  # [7, 32, CO]: row of the kernel, 8 * channel + column, output
    bias_ptr,  # [CO] fp32
    next_affine_ptr,  # [2, CO] fp32 or None
    next_weight_ptr,  # [CO, CN] or None
    next_bias_ptr,  # [CN] fp32 or None
    x_out_ptr,  # [rows, CO]
    t_out_ptr,  # [rows, CN] or None
    partials_out_ptr,  # [batch, tiles, 3] fp32 or None
    height,
    width,
    tiles,
    RELU: tl.constexpr,
    CO: tl.constexpr,
    CN: tl.constexpr,
    BM: tl.constexpr,
    PIXELS: tl.constexpr,
):
    dtype: tl.constexpr = x_out_ptr.dtype.element_ty
    out_height = (height + 1) // 2
    out_width = (width + 1) // 2
    n, h, w, exists = image_pixels(out_height, out_width, BM)
    k = tl.arange(0, 32)
    c = tl.arange(0, CO)
    column = 2 * w[:, None] + (k % 8)[None, :] - 3
    readable = (column >= 0) & (column < width) & (k < 24)[None, :] & (k % 8 < 7)[None, :]
    plane_ptr = images_ptr + (n * 3 + k // 8)[None, :] * (height * width)
    acc = tl.zeros((BM, CO), tl.float32)
    for i in tl.range(0, 7, num_stages=1):
        row = 2 * h[:, None] + i - 3
        a = tl.load(plane_ptr + row * width + column, mask=readable & (row >= 0) & (row < height), other=0.0)
        acc = dot(a, load_tile(weight_ptr, i * 32 + k, c, CO), acc)
    acc += tl.load(bias_ptr + c)[None, :]
    if RELU:
        acc = tl.maximum(acc, 0.0)
    x = acc.to(dtype)
    rows = grid_rows(n, h, w, out_height, out_width)
    tl.store(x_out_ptr + rows[:, None] * CO + c[None, :], x, mask=exists[:, None])
    t = project(start_projection(t_out_ptr, BM, CN), x, next_affine_ptr, next_weight_ptr, c, CO, CN)
    store_projection(t, next_bias_ptr, t_out_ptr, rows, exists, CN)
    store_partials(x, exists, partials_out_ptr, n, tiles, CO, BM, PIXELS)


def stem(
    images: Tensor,
    conv: Conv,
    relu: bool,
    out: Results,
    partials_out: Tensor | None,
    grid: Grid,
    config: Config | None = None,
) -> None:
    """The operator's parts, `grid` that of its outputs; `config` overrides the table."""
    config = config or lookup("stem", conv.channels, grid.batch, grid.height * grid.width, images.device)
    t_out = None if out.next is None else out.next.t
    launch(
        stem_kernel, (tiles(grid.height * grid.width, config.block_m), grid.batch), config,
        images_ptr=images, **conv_pointers("", conv), **reader_pointers("next", out.next), x_out_ptr=out.x,
        t_out_ptr=t_out, partials_out_ptr=partials_out, height=images.shape[2], width=images.shape[3],
        tiles=grid.statistics_tiles, RELU=relu, CO=conv.channels, CN=width_of(t_out), BM=config.block_m,
        PIXELS=STATISTICS_PIXELS,
    )  # fmt: skip
