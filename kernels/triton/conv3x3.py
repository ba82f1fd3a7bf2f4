"""A 3x3 convolution and ReLU, the second of a bottleneck's four: `torch.ops.fasthg.conv3x3` on CUDA."""

from __future__ import annotations

from torch import Tensor

import triton
import triton.language as tl
from fasthg.kernels.layout import Grid
from fasthg.kernels.parts import Conv
from fasthg.kernels.triton.launch import launch, tensor_map, tiles
from fasthg.kernels.triton.tiles import conv3x3_box, conv3x3_tile, grid_rows, inside_grid, tile_pixels
from fasthg.kernels.tuning import Config, lookup


@triton.jit(do_not_specialize=["batch", "height", "width"])
def conv3x3_pointers(
    t_ptr,  # [rows, C]
    weight_ptr,  # [9, C, CO]
    bias_ptr,  # [CO] fp32
    t_out_ptr,  # [rows, CO]
    batch,
    height,
    width,
    C: tl.constexpr,
    CO: tl.constexpr,
    BM: tl.constexpr,
    BK: tl.constexpr,
    BN: tl.constexpr,
    STAGES: tl.constexpr,
):
    tl.static_assert(CO % BN == 0)
    n, h, w, exists = tile_pixels(batch, height, width, BM, False)
    rows = grid_rows(n, h, w, height, width)
    c = tl.program_id(1) * BN + tl.arange(0, BN)
    acc = conv3x3_tile(t_ptr, weight_ptr, rows, c, width, C, CO, BM, BK, BN, STAGES)
    y = tl.maximum(acc + tl.load(bias_ptr + c)[None, :], 0.0).to(t_out_ptr.dtype.element_ty)
    tl.store(t_out_ptr + rows[:, None] * CO + c[None, :], y, mask=exists[:, None])


@triton.jit(do_not_specialize=["batch", "height", "width"])
def conv3x3_tma(
    t_desc,  # [rows, C] in tiles [BM, BK]
    weight_desc,  # [9 * C, CO] in tiles [BK, BN]
    bias_ptr,  # [CO] fp32
    t_out_desc,  # [rows, CO] in tiles [BM, BN]
    batch,
    height,
    width,
    C: tl.constexpr,
    BM: tl.constexpr,
    BK: tl.constexpr,
    BN: tl.constexpr,
    STAGES: tl.constexpr,
):
    row, _, _, _, inside = inside_grid(batch, height, width, BM)
    column = tl.program_id(1) * BN
    acc = conv3x3_box(t_desc, weight_desc, row, column, width, C, BM, BK, BN, STAGES)
    y = tl.maximum(acc + tl.load(bias_ptr + column + tl.arange(0, BN))[None, :], 0.0)
    t_out_desc.store([row, column], tl.where(inside[:, None], y, 0.0).to(t_out_desc.dtype))


def conv3x3(t: Tensor, conv: Conv, t_out: Tensor, grid: Grid, config: Config | None = None) -> None:
    """The operator's parts; `config` overrides the table. Programs share out pixels and output channels."""
    _, feats_in, feats = conv.weight.shape
    config = config or lookup("conv3x3", feats, grid.batch, grid.height * grid.width, t.device)
    bm, bk, bn = config.block_m, min(config.block_k, feats_in), min(config.block_n, feats)
    constants = {"C": feats_in, "BM": bm, "BK": bk, "BN": bn, "STAGES": config.num_stages}
    sizes = {"batch": grid.batch, "height": grid.height, "width": grid.width}
    if config.tma:
        launch(
            conv3x3_tma, (tiles(grid.used_rows, bm), feats // bn), config,
            t_desc=tensor_map(t, bm, bk), weight_desc=tensor_map(conv.weight, bk, bn), bias_ptr=conv.bias,
            t_out_desc=tensor_map(t_out, bm, bn), **sizes, **constants,
        )  # fmt: skip
        return
    launch(
        conv3x3_pointers, (tiles(grid.pixel_count, bm), feats // bn), config,
        t_ptr=t, weight_ptr=conv.weight, bias_ptr=conv.bias, t_out_ptr=t_out, **sizes, CO=feats, **constants,
    )  # fmt: skip
