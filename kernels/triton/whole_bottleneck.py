"""A bottleneck in one kernel: `torch.ops.fasthg.whole_bottleneck` on CUDA.

t is computed for a tile and its halo, and put aside in a scratch of the program's own. The programs are
persistent, as many as run at once, so the scratch stays in L2 and t never reaches DRAM.
"""

from __future__ import annotations

import torch
from torch import Tensor

import triton
import triton.language as tl
from fasthg.kernels.layout import Grid
from fasthg.kernels.triton.launch import launch, processors, resolve, tiles
from fasthg.kernels.triton.tiles import activate, add_residual, conv3x3_tile, grid_rows, load_tile
from fasthg.kernels.tuning import Config

PROGRAMS_PER_PROCESSOR = 2
STRIP = 64  # rows of t computed at once


@triton.jit(do_not_specialize=["batch", "height", "width", "buffer_rows", "tiles"])
def whole_bottleneck_kernel(
    x_ptr,  # [rows, CI]
    affine_ptr,  # [2, CI] fp32
    reduce_weight_ptr,  # [CI, C]
    reduce_bias_ptr,  # [C] fp32
    conv_weight_ptr,  # [9, C, C]
    conv_bias_ptr,  # [C] fp32
    expand_weight_ptr,  # [C, CO]
    expand_bias_ptr,  # [CO] fp32
    skip_weight_ptr,  # [CI, CO] or None
    low_ptr,  # [half rows, CO] or None
    x_out_ptr,  # [rows, CO]
    scratch_ptr,  # [programs, rows of a tile and its halo, C]
    batch,
    height,
    width,
    buffer_rows,
    tiles,
    C: tl.constexpr,
    CI: tl.constexpr,
    CO: tl.constexpr,
    BM: tl.constexpr,
    BK: tl.constexpr,
    BN: tl.constexpr,
    STRIP: tl.constexpr,
    STAGES: tl.constexpr,
    CHUNK_STAGES: tl.constexpr,
):
    dtype: tl.constexpr = x_ptr.dtype.element_ty
    pitch = width + 1
    lead = pitch + 1
    strips = tl.cdiv(BM + 2 * lead, STRIP)
    tile_ptr = scratch_ptr + tl.program_id(0) * (strips * STRIP * C)
    local = tl.arange(0, BM)
    strip_local = tl.arange(0, STRIP)
    c = tl.arange(0, C)
    for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0), num_stages=1):
        for strip in tl.range(0, strips, num_stages=1):
            rows = tile * BM + strip * STRIP + strip_local  # the halo begins `lead` rows before the tile
            position = rows - lead
            inside = (position >= 0) & (rows < buffer_rows) & (position % pitch < width)
            inside &= (position // pitch % (height + 1) < height) & (position // pitch // (height + 1) < batch)
            rows = tl.where(inside, rows, 0)
            acc = tl.zeros((STRIP, C), tl.float32)
            for k in tl.range(0, CI // BK, num_stages=CHUNK_STAGES):
                channels = k * BK + tl.arange(0, BK)
                z = activate(load_tile(x_ptr, rows, channels, CI), affine_ptr, channels, CI)
                acc = tl.dot(z, load_tile(reduce_weight_ptr, channels, c, C), acc)
            t = tl.where(inside[:, None], tl.maximum(acc + tl.load(reduce_bias_ptr + c)[None, :], 0.0), 0.0)
            tl.store(tile_ptr + (strip * STRIP + strip_local)[:, None] * C + c[None, :], t.to(dtype))
        tl.debug_barrier()  # t is read by other threads than wrote it

        acc = conv3x3_tile(tile_ptr, conv_weight_ptr, lead + local, width, C, C, BM, BK, STAGES)
        hidden = tl.maximum(acc + tl.load(conv_bias_ptr + c)[None, :], 0.0).to(dtype)
        position = tile * BM + local
        w = position % pitch
        h = position // pitch % (height + 1)
        n = position // pitch // (height + 1)
        inside = (w < width) & (h < height) & (n < batch)
        rows = tl.where(inside, lead + position, lead)
        low_rows = tl.where(inside, grid_rows(n, h // 2, w // 2, height // 2, width // 2), 0)
        for j in tl.range(0, CO // BN, num_stages=CHUNK_STAGES):
            columns = j * BN + tl.arange(0, BN)
            y = (
                tl.dot(hidden, load_tile(expand_weight_ptr, c, columns, CO))
                + tl.load(expand_bias_ptr + columns)[None, :]
            )
            y = add_residual(y, x_ptr, skip_weight_ptr, low_ptr, rows, low_rows, columns, CI, CO, BK, CHUNK_STAGES)
            tl.store(x_out_ptr + rows[:, None] * CO + columns[None, :], y.to(dtype), mask=inside[:, None])
        tl.debug_barrier()  # the next tile overwrites t


def whole_bottleneck(
    x: Tensor,
    affine: Tensor,
    reduce_weight: Tensor,
    reduce_bias: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor,
    expand_weight: Tensor,
    expand_bias: Tensor,
    skip_weight: Tensor | None,
    low: Tensor | None,
    x_out: Tensor,
    batch: int,
    height: int,
    width: int,
    config: Config | None = None,
) -> None:
    """The operator's arguments; `config` overrides the table."""
    grid, (channels_in, feats), channels = Grid(batch, height, width), reduce_weight.shape, x_out.shape[1]
    config = resolve(config, "whole_bottleneck", feats, batch * height * width, x.device)
    count = tiles(grid.used_rows, config.block_m)
    programs = min(count, PROGRAMS_PER_PROCESSOR * processors(x.device))
    halo_rows = tiles(config.block_m + 2 * grid.lead, STRIP) * STRIP
    scratch = torch.empty(programs * halo_rows, feats, dtype=x.dtype, device=x.device)
    launch(
        whole_bottleneck_kernel, (programs,), config,
        x, affine, reduce_weight, reduce_bias, conv_weight, conv_bias, expand_weight, expand_bias, skip_weight, low,
        x_out, scratch, batch, height, width, grid.rows, count,
        C=feats, CI=channels_in, CO=channels,
        BM=config.block_m, BK=min(config.block_k, feats), BN=min(config.block_n, channels), STRIP=STRIP,
        STAGES=config.num_stages, CHUNK_STAGES=config.chunk_stages,
    )  # fmt: skip
