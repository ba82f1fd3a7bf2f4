"""A bottleneck from its 3x3 on, and the first third of its readers: `torch.ops.fasthg.bottleneck` on CUDA."""

from __future__ import annotations

from torch import Tensor
from torch.library import custom_op

import triton
import triton.language as tl
from fasthg.kernels.triton.launch import as_ints, from_ints, launch, resolve, tensor_map, tiles, width_of
from fasthg.kernels.triton.slab import BAND, SEGMENT, bottleneck_by_slab
from fasthg.kernels.triton.tiles import (
    activate,
    add_residual,
    conv3x3_box,
    conv3x3_tile,
    grid_rows,
    inside_grid,
    load_tile,
    pooled_rows,
    start_projection,
    store_chunk,
    store_projection,
    tile_pixels,
)
from fasthg.kernels.tuning import Config


@triton.jit(do_not_specialize=["batch", "height", "width"])
def bottleneck_pointers(
    t_ptr,  # [rows, C]
    x_ptr,  # [rows, CI]
    conv_weight_ptr,  # [9, C, C]
    conv_bias_ptr,  # [C] fp32
    expand_weight_ptr,  # [C, CO]
    expand_bias_ptr,  # [CO] fp32
    skip_weight_ptr,  # [CI, CO] or None
    low_ptr,  # [half rows, CO] or None
    next_affine_ptr,  # [2, CO] fp32 or None
    next_weight_ptr,  # [CO, CN] or None
    next_bias_ptr,  # [CN] fp32 or None
    pool_affine_ptr,  # [2, CO] fp32 or None
    pool_weight_ptr,  # [CO, CP] or None
    pool_bias_ptr,  # [CP] fp32 or None
    x_out_ptr,  # [rows, CO] or None
    t_out_ptr,  # [rows, CN] or None
    x_pool_ptr,  # [half rows, CO] or None
    t_pool_ptr,  # [half rows, CP] or None
    batch,
    height,
    width,
    C: tl.constexpr,
    CI: tl.constexpr,
    CO: tl.constexpr,
    CN: tl.constexpr,
    CP: tl.constexpr,
    BM: tl.constexpr,
    BK: tl.constexpr,
    BN: tl.constexpr,
    STAGES: tl.constexpr,
    CHUNK_STAGES: tl.constexpr,
):
    dtype: tl.constexpr = t_ptr.dtype.element_ty
    n, h, w, exists = tile_pixels(batch, height, width, BM, x_pool_ptr is not None)
    rows = grid_rows(n, h, w, height, width)
    low_rows = grid_rows(n, h // 2, w // 2, height // 2, width // 2)
    pool_rows, pool_exists = pooled_rows(x_pool_ptr, batch, height, width, BM)
    c = tl.arange(0, C)

    acc = conv3x3_tile(t_ptr, conv_weight_ptr, rows, width, C, C, BM, BK, STAGES)
    hidden = tl.maximum(acc + tl.load(conv_bias_ptr + c)[None, :], 0.0).to(dtype)
    next_acc = start_projection(t_out_ptr, BM, CN)
    pool_acc = start_projection(t_pool_ptr, BM // 4, CP)
    # A loop that stays a loop: unrolled, its loads are hoisted together and spill.
    for j in tl.range(0, CO // BN, num_stages=CHUNK_STAGES):
        columns = j * BN + tl.arange(0, BN)
        y = tl.dot(hidden, load_tile(expand_weight_ptr, c, columns, CO)) + tl.load(expand_bias_ptr + columns)[None, :]
        y = add_residual(y, x_ptr, skip_weight_ptr, low_ptr, rows, low_rows, columns, CI, CO, BK, CHUNK_STAGES)
        next_acc, pool_acc = store_chunk(
            y.to(dtype), columns, rows, exists, pool_rows, pool_exists, next_acc, pool_acc,
            next_affine_ptr, next_weight_ptr, pool_affine_ptr, pool_weight_ptr, x_out_ptr, x_pool_ptr,
            CO, CN, CP, BM, BN,
        )  # fmt: skip
    store_projection(next_acc, next_bias_ptr, t_out_ptr, rows, exists, CN)
    store_projection(pool_acc, pool_bias_ptr, t_pool_ptr, pool_rows, pool_exists, CP)


@triton.jit(do_not_specialize=["batch", "height", "width"])
def bottleneck_tma(
    t_desc,  # [rows, C] in tiles [BM, BK]
    x_desc,  # [rows, CI] in tiles [BM, BN]
    conv_weight_desc,  # [9 * C, C] in tiles [BK, C]
    conv_bias_ptr,  # [C] fp32
    expand_weight_desc,  # [C, CO] in tiles [C, BN]
    expand_bias_ptr,  # [CO] fp32
    low_ptr,  # [half rows, CO] or None
    next_affine_ptr,  # [2, CO] fp32 or None
    next_weight_desc,  # [CO, CN] in tiles [BN, CN] or None
    next_bias_ptr,  # [CN] fp32 or None
    x_out_desc,  # [rows, CO] in tiles [BM, BN]
    t_out_desc,  # [rows, CN] in tiles [BM, CN] or None
    batch,
    height,
    width,
    C: tl.constexpr,
    CO: tl.constexpr,
    CN: tl.constexpr,
    BM: tl.constexpr,
    BK: tl.constexpr,
    BN: tl.constexpr,
    STAGES: tl.constexpr,
    CHUNK_STAGES: tl.constexpr,
):
    """The same over whole rows of the grid, borders included, so that every tile is one box of a tensor map."""
    dtype: tl.constexpr = t_desc.dtype
    row, n, h, w, inside = inside_grid(batch, height, width, BM)
    acc = conv3x3_box(t_desc, conv_weight_desc, row, width, C, C, BM, BK, STAGES)
    hidden = tl.maximum(acc + tl.load(conv_bias_ptr + tl.arange(0, C))[None, :], 0.0).to(dtype)
    next_acc = start_projection(t_out_desc, BM, CN)
    for j in tl.range(0, CO // BN, num_stages=CHUNK_STAGES):
        columns = j * BN + tl.arange(0, BN)
        y = tl.dot(hidden, expand_weight_desc.load([0, j * BN])) + tl.load(expand_bias_ptr + columns)[None, :]
        y += x_desc.load([row, j * BN])
        if low_ptr is not None:
            low_rows = grid_rows(n, h // 2, w // 2, height // 2, width // 2)
            y += tl.load(low_ptr + low_rows[:, None] * CO + columns[None, :], mask=inside[:, None], other=0.0)
        y = tl.where(inside[:, None], y, 0.0).to(dtype)
        x_out_desc.store([row, j * BN], y)
        if next_affine_ptr is not None:
            z = activate(y, next_affine_ptr, columns, CO)
            next_acc = tl.dot(z, next_weight_desc.load([j * BN, 0]), next_acc)
    if t_out_desc is not None:
        u = tl.maximum(next_acc + tl.load(next_bias_ptr + tl.arange(0, CN))[None, :], 0.0)
        t_out_desc.store([row, 0], tl.where(inside[:, None], u, 0.0).to(dtype))


@custom_op("fasthg::bottleneck_tma", mutates_args={"x_out", "t_out"})
def bottleneck_by_tma(
    t: Tensor,
    x: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor,
    expand_weight: Tensor,
    expand_bias: Tensor,
    low: Tensor | None,
    next_affine: Tensor | None,
    next_weight: Tensor | None,
    next_bias: Tensor | None,
    x_out: Tensor,
    t_out: Tensor | None,
    batch: int,
    height: int,
    width: int,
    config: list[int],
) -> None:
    """Launch `bottleneck_tma`: an opaque operator of its own, since tracing cannot follow tensor maps."""
    chosen, (feats, channels), feats_next = from_ints(config), expand_weight.shape, width_of(t_out)
    bm, bk, bn = chosen.block_m, min(chosen.block_k, feats), min(chosen.block_n, channels)
    launch(
        bottleneck_tma, (tiles(batch * (height + 1) * (width + 1), bm),), chosen,
        tensor_map(t, bm, bk), tensor_map(x, bm, bn), tensor_map(conv_weight, bk, feats), conv_bias,
        tensor_map(expand_weight, feats, bn), expand_bias, low, next_affine, tensor_map(next_weight, bn, feats_next),
        next_bias, tensor_map(x_out, bm, bn), tensor_map(t_out, bm, feats_next), batch, height, width,
        C=feats, CO=channels, CN=feats_next, BM=bm, BK=bk, BN=bn,
        STAGES=chosen.num_stages, CHUNK_STAGES=chosen.chunk_stages,
    )  # fmt: skip


def bottleneck(
    t: Tensor,
    x: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor,
    expand_weight: Tensor,
    expand_bias: Tensor,
    skip_weight: Tensor | None,
    low: Tensor | None,
    next_affine: Tensor | None,
    next_weight: Tensor | None,
    next_bias: Tensor | None,
    pool_affine: Tensor | None,
    pool_weight: Tensor | None,
    pool_bias: Tensor | None,
    x_out: Tensor | None,
    t_out: Tensor | None,
    x_pool: Tensor | None,
    t_pool: Tensor | None,
    batch: int,
    height: int,
    width: int,
    config: Config | None = None,
) -> None:
    """The operator's arguments; `config` overrides the table.

    TMA moves whole boxes of rows, so the kernel that pools (2x2 windows), projects the skip or stores no x' uses
    pointers.
    """
    feats, channels = expand_weight.shape
    kind = "bottleneck_skip" if skip_weight is not None else "bottleneck_pool" if x_pool is not None else "bottleneck"
    config = resolve(config, kind, feats, batch * height * width, t.device)
    if config.tma and x_pool is None and skip_weight is None and x_out is not None:
        run = bottleneck_by_slab if config.slab and not (height % BAND or width % SEGMENT) else bottleneck_by_tma
        run(
            t, x, conv_weight, conv_bias, expand_weight, expand_bias, low, next_affine, next_weight, next_bias,
            x_out, t_out, batch, height, width, as_ints(config),
        )  # fmt: skip
        return
    launch(
        bottleneck_pointers, (tiles(batch * height * width, config.block_m),), config,
        t, x, conv_weight, conv_bias, expand_weight, expand_bias, skip_weight, low, next_affine, next_weight, next_bias,
        pool_affine, pool_weight, pool_bias, x_out, t_out, x_pool, t_pool, batch, height, width,
        C=feats, CI=x.shape[1], CO=channels, CN=width_of(t_out), CP=width_of(t_pool),
        BM=config.block_m, BK=min(config.block_k, feats), BN=min(config.block_n, channels),
        STAGES=config.num_stages, CHUNK_STAGES=config.chunk_stages,
    )  # fmt: skip
