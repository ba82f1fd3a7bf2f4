"""A 3x3 convolution and ReLU, the second of a bottleneck's four: `torch.ops.fasthg.conv3x3` on CUDA."""

from __future__ import annotations

from torch import Tensor
from torch.library import custom_op

import triton
import triton.language as tl
from fasthg.kernels.triton.launch import as_ints, from_ints, launch, resolve, tensor_map, tiles
from fasthg.kernels.triton.tiles import conv3x3_box, conv3x3_tile, grid_rows, inside_grid, tile_pixels
from fasthg.kernels.tuning import Config


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
    STAGES: tl.constexpr,
):
    n, h, w, exists = tile_pixels(batch, height, width, BM, False)
    rows = grid_rows(n, h, w, height, width)
    acc = conv3x3_tile(t_ptr, weight_ptr, rows, width, C, CO, BM, BK, STAGES)
    c = tl.arange(0, CO)
    y = tl.maximum(acc + tl.load(bias_ptr + c)[None, :], 0.0).to(t_out_ptr.dtype.element_ty)
    tl.store(t_out_ptr + rows[:, None] * CO + c[None, :], y, mask=exists[:, None])


@triton.jit(do_not_specialize=["batch", "height", "width"])
def conv3x3_tma(
    t_desc,  # [rows, C] in tiles [BM, BK]
    weight_desc,  # [9 * C, CO] in tiles [BK, CO]
    bias_ptr,  # [CO] fp32
    t_out_desc,  # [rows, CO] in tiles [BM, CO]
    batch,
    height,
    width,
    C: tl.constexpr,
    CO: tl.constexpr,
    BM: tl.constexpr,
    BK: tl.constexpr,
    STAGES: tl.constexpr,
):
    row, _, _, _, inside = inside_grid(batch, height, width, BM)
    acc = conv3x3_box(t_desc, weight_desc, row, width, C, CO, BM, BK, STAGES)
    y = tl.maximum(acc + tl.load(bias_ptr + tl.arange(0, CO))[None, :], 0.0)
    t_out_desc.store([row, 0], tl.where(inside[:, None], y, 0.0).to(t_out_desc.dtype))


@custom_op("fasthg::conv3x3_tma", mutates_args={"t_out"})
def conv3x3_by_tma(
    t: Tensor, weight: Tensor, bias: Tensor, t_out: Tensor, batch: int, height: int, width: int, config: list[int]
) -> None:
    """Launch `conv3x3_tma`: an opaque operator of its own, since tracing cannot follow tensor maps."""
    chosen, (_, feats_in, feats) = from_ints(config), weight.shape
    bm, bk = chosen.block_m, min(chosen.block_k, feats_in)
    launch(
        conv3x3_tma, (tiles(batch * (height + 1) * (width + 1), bm),), chosen,
        tensor_map(t, bm, bk), tensor_map(weight, bk, feats), bias, tensor_map(t_out, bm, feats), batch, height, width,
        C=feats_in, CO=feats, BM=bm, BK=bk, STAGES=chosen.num_stages,
    )  # fmt: skip


def conv3x3(
    t: Tensor,
    weight: Tensor,
    bias: Tensor,
    t_out: Tensor,
    batch: int,
    height: int,
    width: int,
    config: Config | None = None,
) -> None:
    """The operator's arguments; `config` overrides the table."""
    _, feats_in, feats = weight.shape
    config = resolve(config, "conv3x3", feats, batch * height * width, t.device)
    if config.tma:
        conv3x3_by_tma(t, weight, bias, t_out, batch, height, width, as_ints(config))
        return
    launch(
        conv3x3_pointers, (tiles(batch * height * width, config.block_m),), config,
        t, weight, bias, t_out, batch, height, width,
        C=feats_in, CO=feats, BM=config.block_m, BK=min(config.block_k, feats_in), STAGES=config.num_stages,
    )  # fmt: skip
