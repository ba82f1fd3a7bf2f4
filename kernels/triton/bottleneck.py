"""A bottleneck from its 3x3 on, and the first third of its readers: `torch.ops.fasthg.bottleneck` on CUDA.

Without the 3x3 it is `torch.ops.fasthg.expand`.

One program reads all weights, 425 kB at 128 feats: what a level of few pixels waits for. There the programs of a tile
can share out the output channels, in two launches: of the 3x3, then of the rest, where x' is computed by each of them
for the channels of the readers' t that it makes.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

import triton
import triton.language as tl
from fasthg.kernels.layout import Grid
from fasthg.kernels.parts import Conv, Residual, Results
from fasthg.kernels.triton.conv3x3 import conv3x3
from fasthg.kernels.triton.launch import (
    conv_pointers,
    launch,
    reader_pointers,
    result_pointers,
    tensor_map,
    tiles,
    width_of,
)
from fasthg.kernels.triton.tiles import (
    activate,
    add_residual,
    conv3x3_box,
    conv3x3_tile,
    dot,
    grid_rows,
    inside_grid,
    load_tile,
    pooled_rows,
    start_projection,
    store_chunk,
    store_projection,
    tile_pixels,
)
from fasthg.kernels.tuning import KERNELS, Config, lookup


@triton.jit(do_not_specialize=["batch", "height", "width"])
def bottleneck_pointers(
    t_ptr,  # [rows, C]
    x_ptr,  # [rows, CI]
    conv_weight_ptr,  # [9, C, C] or None: t is what the 3x3 gave
    conv_bias_ptr,  # [C] fp32 or None
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
    SK: tl.constexpr,
    STAGES: tl.constexpr,
    CHUNK_STAGES: tl.constexpr,
    PARTS: tl.constexpr,  # programs of a tile
    OWN: tl.constexpr,  # whether a program computes those columns of x' alone that it writes
):
    tl.static_assert(CO % BN == 0)
    dtype: tl.constexpr = t_ptr.dtype.element_ty
    part = 0
    if PARTS > 1:
        part = tl.program_id(1)
    n, h, w, exists = tile_pixels(batch, height, width, BM, x_pool_ptr is not None)
    rows = grid_rows(n, h, w, height, width)
    low_rows = grid_rows(n, h // 2, w // 2, height // 2, width // 2)
    pool_rows, pool_exists = pooled_rows(x_pool_ptr, batch, height, width, BM)
    c = tl.arange(0, C)

    if conv_weight_ptr is None:
        hidden = load_tile(t_ptr, rows, c, C)
    else:
        acc = conv3x3_tile(t_ptr, conv_weight_ptr, rows, c, width, C, C, BM, BK, C, STAGES)
        hidden = tl.maximum(acc + tl.load(conv_bias_ptr + c)[None, :], 0.0).to(dtype)
    next_acc = start_projection(t_out_ptr, BM, CN // PARTS)
    pool_acc = start_projection(t_pool_ptr, BM // 4, CP // PARTS)
    first = 0
    if OWN:
        first = part * (CO // PARTS)
    # A loop that stays a loop: unrolled, its loads are hoisted together and spill.
    for j in tl.range(0, CO // PARTS // BN if OWN else CO // BN, num_stages=CHUNK_STAGES):
        columns = first + j * BN + tl.arange(0, BN)
        y = dot(hidden, load_tile(expand_weight_ptr, c, columns, CO)) + tl.load(expand_bias_ptr + columns)[None, :]
        y = add_residual(y, x_ptr, skip_weight_ptr, low_ptr, rows, low_rows, columns, CI, CO, SK, CHUNK_STAGES)
        next_acc, pool_acc = store_chunk(
            y, columns, rows, exists, pool_rows, pool_exists, next_acc, pool_acc,
            next_affine_ptr, next_weight_ptr, pool_affine_ptr, pool_weight_ptr, x_out_ptr, x_pool_ptr,
            CO, CN, CP, BM, BN, part, PARTS,
        )  # fmt: skip
    store_projection(next_acc, next_bias_ptr, t_out_ptr, rows, exists, CN, part, PARTS)
    store_projection(pool_acc, pool_bias_ptr, t_pool_ptr, pool_rows, pool_exists, CP, part, PARTS)


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
    tl.static_assert(CO % BN == 0)
    dtype: tl.constexpr = t_desc.dtype
    row, n, h, w, inside = inside_grid(batch, height, width, BM)
    acc = conv3x3_box(t_desc, conv_weight_desc, row, 0, width, C, BM, BK, C, STAGES)
    hidden = tl.maximum(acc + tl.load(conv_bias_ptr + tl.arange(0, C))[None, :], 0.0).to(dtype)
    next_acc = start_projection(t_out_desc, BM, CN)
    for j in tl.range(0, CO // BN, num_stages=CHUNK_STAGES):
        columns = j * BN + tl.arange(0, BN)
        y = dot(hidden, expand_weight_desc.load([0, j * BN])) + tl.load(expand_bias_ptr + columns)[None, :]
        y += x_desc.load([row, j * BN])
        if low_ptr is not None:
            low_rows = grid_rows(n, h // 2, w // 2, height // 2, width // 2)
            y += tl.load(low_ptr + low_rows[:, None] * CO + columns[None, :], mask=inside[:, None], other=0.0)
        y = tl.where(inside[:, None], y, 0.0).to(x_out_desc.dtype)
        x_out_desc.store([row, j * BN], y)
        if next_affine_ptr is not None:
            z = activate(y, next_affine_ptr, columns, CO)
            next_acc = dot(z, next_weight_desc.load([j * BN, 0]), next_acc)
    if t_out_desc is not None:
        u = tl.maximum(next_acc + tl.load(next_bias_ptr + tl.arange(0, CN))[None, :], 0.0)
        t_out_desc.store([row, 0], tl.where(inside[:, None], u, 0.0).to(dtype))


def bottleneck(
    t: Tensor,
    conv: Conv | None,
    expand: Conv,
    residual: Residual,
    out: Results,
    grid: Grid,
    config: Config | None = None,
) -> None:
    """The operators' parts; `config` overrides the table.

    TMA moves whole boxes of rows, so what pools (2x2 windows), projects the skip, stores no x' or has no 3x3 goes by
    pointers.
    """
    feats, channels = expand.weight.shape
    kind = "expand" if conv is None else "bottleneck"
    kind += "_skip" if residual.weight is not None else "_pool" if out.pooled is not None else ""
    config = config or lookup(kind, feats, grid.batch, grid.height * grid.width, t.device)
    if conv is not None and config.parts > 1:
        t, conv = _convolved(t, conv, grid, config), None
    elif config.tma and kind == "bottleneck" and conv is not None and out.x is not None:
        _by_tma(t, conv, expand, residual, out, grid, config)
        return
    written = [channels, *(reader.conv.channels for reader in (out.next, out.pool) if reader is not None)]
    parts = min(config.parts, min(written) // 16)
    own = parts > 1 and len(written) == 1
    columns = channels // parts if own else channels
    launch(
        bottleneck_pointers, (tiles(grid.pixel_count, config.block_m), parts), config,
        t_ptr=t, x_ptr=residual.x, **conv_pointers("conv_", conv), **conv_pointers("expand_", expand),
        skip_weight_ptr=residual.weight, low_ptr=residual.low, **result_pointers(out),
        batch=grid.batch, height=grid.height, width=grid.width, C=feats, CI=residual.x.shape[1], CO=channels,
        BM=config.block_m, BK=min(config.block_k, feats), BN=min(config.block_n, columns),
        SK=min(config.block_k, residual.x.shape[1]), STAGES=config.num_stages, CHUNK_STAGES=config.chunk_stages,
        PARTS=parts, OWN=own,
    )  # fmt: skip


def _convolved(t: Tensor, conv: Conv, grid: Grid, config: Config) -> Tensor:
    """The 3x3 of t, in memory of its own, whose borders nobody reads."""
    hidden = torch.empty_like(t)
    shared_out = replace(config, block_n=max(16, conv.channels // config.parts))
    conv3x3(t, conv, hidden, grid, KERNELS["conv3x3"].only(shared_out))
    return hidden


def _by_tma(t: Tensor, conv: Conv, expand: Conv, residual: Residual, out: Results, grid: Grid, config: Config) -> None:
    (feats, channels), reader = expand.weight.shape, reader_pointers("next", out.next)
    t_out = None if out.next is None else out.next.t
    bm, bk, bn, feats_next = config.block_m, min(config.block_k, feats), min(config.block_n, channels), width_of(t_out)
    launch(
        bottleneck_tma, (tiles(grid.used_rows, bm),), config,
        t_desc=tensor_map(t, bm, bk), x_desc=tensor_map(residual.x, bm, bn),
        conv_weight_desc=tensor_map(conv.weight, bk, feats), conv_bias_ptr=conv.bias,
        expand_weight_desc=tensor_map(expand.weight, feats, bn), expand_bias_ptr=expand.bias, low_ptr=residual.low,
        next_affine_ptr=reader["next_affine_ptr"], next_bias_ptr=reader["next_bias_ptr"],
        next_weight_desc=tensor_map(reader["next_weight_ptr"], bn, feats_next),
        x_out_desc=tensor_map(out.x, bm, bn), t_out_desc=tensor_map(t_out, bm, feats_next),
        batch=grid.batch, height=grid.height, width=grid.width, C=feats, CO=channels, CN=feats_next,
        BM=bm, BK=bk, BN=bn, STAGES=config.num_stages, CHUNK_STAGES=config.chunk_stages,
    )  # fmt: skip
