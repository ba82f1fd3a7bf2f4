"""Features, heatmaps and the way back into the trunk, between two stacks: `torch.ops.fasthg.head` on CUDA."""

from __future__ import annotations

from torch import Tensor

import triton
import triton.language as tl
from fasthg.kernels.layout import Grid
from fasthg.kernels.parts import Conv, Results
from fasthg.kernels.triton.launch import conv_pointers, launch, result_pointers, tiles
from fasthg.kernels.triton.tiles import (
    dot,
    dot_in_parts,
    grid_rows,
    load_tile,
    pooled_rows,
    start_projection,
    store_chunk,
    store_projection,
    tile_pixels,
)
from fasthg.kernels.tuning import Config, lookup


@triton.jit(do_not_specialize=["batch", "height", "width", "joints"])
def head_kernel(
    y_ptr,  # [rows, C]
    features_weight_ptr,  # [C, C]
    features_bias_ptr,  # [C] fp32
    score_weight_ptr,  # [C, J] or None
    score_bias_ptr,  # [J] fp32 or None
    x_ptr,  # [rows, C] or None
    merge_weight_ptr,  # [C, C] or None
    merge_bias_ptr,  # [C] fp32 or None
    next_affine_ptr,  # [2, C] fp32 or None
    next_weight_ptr,  # [C, CN] or None
    next_bias_ptr,  # [CN] fp32 or None
    pool_affine_ptr,  # [2, C] fp32 or None
    pool_weight_ptr,  # [C, CP] or None
    pool_bias_ptr,  # [CP] fp32 or None
    heatmaps_ptr,  # [batch, joints, height, width] or None
    x_out_ptr,  # [rows, C] or None
    t_out_ptr,  # [rows, CN] or None
    x_pool_ptr,  # [half rows, C] or None
    t_pool_ptr,  # [half rows, CP] or None
    batch,
    height,
    width,
    joints,
    C: tl.constexpr,
    J: tl.constexpr,
    CN: tl.constexpr,
    CP: tl.constexpr,
    BM: tl.constexpr,
    BK: tl.constexpr,
    BN: tl.constexpr,
    STAGES: tl.constexpr,
    CHUNK_STAGES: tl.constexpr,
):
    tl.static_assert(C % BK == 0 and C % BN == 0)
    dtype: tl.constexpr = features_weight_ptr.dtype.element_ty
    n, h, w, exists = tile_pixels(batch, height, width, BM, x_pool_ptr is not None)
    rows = grid_rows(n, h, w, height, width)
    c = tl.arange(0, C)
    acc = tl.zeros((BM, C), tl.float32)
    for k in tl.range(0, C // BK, num_stages=STAGES):
        channels = k * BK + tl.arange(0, BK)
        acc = dot(load_tile(y_ptr, rows, channels, C), load_tile(features_weight_ptr, channels, c, C), acc)
    features = tl.maximum(acc + tl.load(features_bias_ptr + c)[None, :], 0.0).to(dtype)
    if heatmaps_ptr is not None:
        j = tl.arange(0, J)
        scores = dot(features, load_tile(score_weight_ptr, c, j, J)) + tl.load(score_bias_ptr + j)[None, :]
        pixel = (n * joints * height + h) * width + w
        target = heatmaps_ptr + pixel[:, None] + j[None, :] * (height * width)
        tl.store(target, scores, mask=exists[:, None] & (j < joints)[None, :])
    if x_ptr is not None:
        pool_rows, pool_exists = pooled_rows(x_pool_ptr, batch, height, width, BM)
        next_acc = start_projection(t_out_ptr, BM, CN)
        pool_acc = start_projection(t_pool_ptr, BM // 4, CP)
        for i in tl.range(0, C // BN, num_stages=CHUNK_STAGES):
            columns = i * BN + tl.arange(0, BN)
            x = dot(features, load_tile(merge_weight_ptr, c, columns, C)) + load_tile(x_ptr, rows, columns, C)
            x += tl.load(merge_bias_ptr + columns)[None, :]
            next_acc, pool_acc = store_chunk(
                x, columns, rows, exists, pool_rows, pool_exists, next_acc, pool_acc,
                next_affine_ptr, next_weight_ptr, pool_affine_ptr, pool_weight_ptr, x_out_ptr, x_pool_ptr,
                C, CN, CP, BM, BN,
            )  # fmt: skip
        store_projection(next_acc, next_bias_ptr, t_out_ptr, rows, exists, CN)
        store_projection(pool_acc, pool_bias_ptr, t_pool_ptr, pool_rows, pool_exists, CP)


@triton.jit(do_not_specialize=["batch", "height", "width", "joints"])
def score_kernel(
    y_ptr,  # [rows, C]
    features_weight_ptr,  # [C, C]
    features_bias_ptr,  # [C] fp32
    score_weight_ptr,  # [C, J]
    score_bias_ptr,  # [J] fp32
    heatmaps_ptr,  # [batch, joints, height, width]
    batch,
    height,
    width,
    joints,
    C: tl.constexpr,
    J: tl.constexpr,
    BM: tl.constexpr,
    BK: tl.constexpr,
    BN: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Heatmaps alone, some features at a time: all of a tile's in fp32 would not fit the registers."""
    tl.static_assert(C % BK == 0 and C % BN == 0)
    n, h, w, exists = tile_pixels(batch, height, width, BM, False)
    rows = grid_rows(n, h, w, height, width)
    j = tl.arange(0, J)
    scores = tl.zeros((BM, J), tl.float32)
    for i in tl.range(0, C // BN, num_stages=1):
        c = i * BN + tl.arange(0, BN)
        acc = tl.zeros((BM, BN), tl.float32)
        for k in tl.range(0, C // BK, num_stages=STAGES):
            channels = k * BK + tl.arange(0, BK)
            y = load_tile(y_ptr, rows, channels, C)
            acc = dot_in_parts(y, load_tile(features_weight_ptr, channels, c, C), acc)
        features = tl.maximum(acc + tl.load(features_bias_ptr + c)[None, :], 0.0)
        scores = dot(features, load_tile(score_weight_ptr, c, j, J), scores)
    scores += tl.load(score_bias_ptr + j)[None, :]
    pixel = (n * joints * height + h) * width + w
    target = heatmaps_ptr + pixel[:, None] + j[None, :] * (height * width)
    tl.store(target, scores, mask=exists[:, None] & (j < joints)[None, :])


def head(
    y: Tensor,
    features: Conv,
    score: Conv | None,
    heatmaps: Tensor | None,
    trunk: Tensor | None,
    merge: Conv | None,
    out: Results,
    grid: Grid,
    config: Config | None = None,
) -> None:
    """The operator's parts; `config` overrides the table."""
    channels, kind = y.shape[1], "score" if merge is None else "head"
    config = config or lookup(kind, channels, grid.batch, grid.height * grid.width, y.device)
    common = {
        "y_ptr": y, **conv_pointers("features_", features), **conv_pointers("score_", score), "heatmaps_ptr": heatmaps,
        "batch": grid.batch, "height": grid.height, "width": grid.width,
        "joints": 0 if heatmaps is None else heatmaps.shape[1],
        "C": channels, "J": 16 if score is None else score.channels,
        "BM": config.block_m, "BK": min(config.block_k, channels), "BN": min(config.block_n, channels),
        "STAGES": config.num_stages,
    }  # fmt: skip
    programs = (tiles(grid.pixel_count, config.block_m),)
    if merge is None:
        launch(score_kernel, programs, config, **common)
        return
    launch(
        head_kernel, programs, config, x_ptr=trunk, **conv_pointers("merge_", merge), **result_pointers(out),
        CHUNK_STAGES=config.chunk_stages, **common,
    )  # fmt: skip
