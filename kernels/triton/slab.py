"""The bottleneck in bands of four image rows, which read less: chosen for `torch.ops.fasthg.bottleneck` by its table.

A tile of the 3x3 reads its input nine times and all weights once, through L2. Four rows of 64 pixels that advance
together share both: for each column tap, six rows of the input serve the twelve products of four output rows, and the
weights serve 256 pixels. Against tiles of 128 pixels that halves what the 3x3 moves from L2 into a multiprocessor.
"""

from __future__ import annotations

from torch import Tensor
from torch.library import custom_op

import triton
import triton.language as tl
from fasthg.kernels.triton.launch import from_ints, launch, tensor_map, width_of
from fasthg.kernels.triton.tiles import activate, grid_rows, load_tile, start_projection

BAND = 4  # image rows of a program, as the kernel spells out
SEGMENT = 64  # pixels of each


@triton.jit
def finish_row(
    hidden,  # [W, C]
    row,  # of the grid
    low_row,  # of the half grid
    x_desc,
    expand_weight_desc,
    expand_bias_ptr,
    low_ptr,
    next_affine_ptr,
    next_weight_desc,
    next_bias_ptr,
    x_out_desc,
    t_out_desc,
    CO: tl.constexpr,
    CN: tl.constexpr,
    BN: tl.constexpr,
    W: tl.constexpr,
    STAGES: tl.constexpr,
):
    """What follows the 3x3, for W pixels from a row of the grid on."""
    next_acc = start_projection(t_out_desc, W, CN)
    for j in tl.range(0, CO // BN, num_stages=STAGES):
        columns = j * BN + tl.arange(0, BN)
        y = tl.dot(hidden, expand_weight_desc.load([0, j * BN])) + tl.load(expand_bias_ptr + columns)[None, :]
        y += x_desc.load([row, j * BN])
        if low_ptr is not None:
            y += load_tile(low_ptr, low_row + tl.arange(0, W) // 2, columns, CO)
        y = y.to(hidden.dtype)
        x_out_desc.store([row, j * BN], y)
        if next_affine_ptr is not None:
            z = activate(y, next_affine_ptr, columns, CO)
            next_acc = tl.dot(z, next_weight_desc.load([j * BN, 0]), next_acc)
    if t_out_desc is not None:
        t = tl.maximum(next_acc + tl.load(next_bias_ptr + tl.arange(0, CN))[None, :], 0.0)
        t_out_desc.store([row, 0], t.to(hidden.dtype))


@triton.jit
def rectify(acc, bias, dtype: tl.constexpr):
    """ReLU(acc + bias) as the next product takes it."""
    return tl.maximum(acc + bias, 0.0).to(dtype)


@triton.jit(do_not_specialize=["height", "width"])
def bottleneck_slab(
    t_desc,  # [rows, C] in tiles [W, BK]
    x_desc,  # [rows, CO] in tiles [W, BN]
    conv_weight_desc,  # [9 * C, C] in tiles [BK, C]
    conv_bias_ptr,  # [C] fp32
    expand_weight_desc,  # [C, CO] in tiles [C, BN]
    expand_bias_ptr,  # [CO] fp32
    low_ptr,  # [half rows, CO] or None
    next_affine_ptr,  # [2, CO] fp32 or None
    next_weight_desc,  # [CO, CN] in tiles [BN, CN] or None
    next_bias_ptr,  # [CN] fp32 or None
    x_out_desc,  # [rows, CO] in tiles [W, BN]
    t_out_desc,  # [rows, CN] in tiles [W, CN] or None
    height,
    width,
    C: tl.constexpr,
    CO: tl.constexpr,
    CN: tl.constexpr,
    W: tl.constexpr,
    BK: tl.constexpr,
    BN: tl.constexpr,
    STAGES: tl.constexpr,
    CHUNK_STAGES: tl.constexpr,
):
    """Programs are bands: 4 rows by W pixels. Only pixels are written, so that the zero borders stay."""
    dtype: tl.constexpr = t_desc.dtype
    w = tl.program_id(0) % (width // W) * W
    above = tl.program_id(0) // (width // W)
    h = above % (height // 4) * 4
    n = above // (height // 4)
    pitch = width + 1
    row = grid_rows(n, h, w, height, width)
    acc0 = tl.zeros((W, C), tl.float32)
    acc1 = tl.zeros((W, C), tl.float32)
    acc2 = tl.zeros((W, C), tl.float32)
    acc3 = tl.zeros((W, C), tl.float32)
    for step in tl.range(0, 3 * (C // BK), num_stages=STAGES):
        chunk = step // 3
        right = step - chunk * 3
        k = chunk * BK
        corner = row - pitch + right - 1
        above_weight = conv_weight_desc.load([right * C + k, 0])
        level_weight = conv_weight_desc.load([(3 + right) * C + k, 0])
        below_weight = conv_weight_desc.load([(6 + right) * C + k, 0])
        a0 = t_desc.load([corner, k])
        a1 = t_desc.load([corner + pitch, k])
        a2 = t_desc.load([corner + 2 * pitch, k])
        a3 = t_desc.load([corner + 3 * pitch, k])
        a4 = t_desc.load([corner + 4 * pitch, k])
        a5 = t_desc.load([corner + 5 * pitch, k])
        # One accumulator after the other: interleaved, they are copied between products and spill.
        acc0 = tl.dot(a2, below_weight, tl.dot(a1, level_weight, tl.dot(a0, above_weight, acc0)))
        acc1 = tl.dot(a3, below_weight, tl.dot(a2, level_weight, tl.dot(a1, above_weight, acc1)))
        acc2 = tl.dot(a4, below_weight, tl.dot(a3, level_weight, tl.dot(a2, above_weight, acc2)))
        acc3 = tl.dot(a5, below_weight, tl.dot(a4, level_weight, tl.dot(a3, above_weight, acc3)))
    bias = tl.load(conv_bias_ptr + tl.arange(0, C))[None, :]
    hidden0 = rectify(acc0, bias, dtype)
    hidden1 = rectify(acc1, bias, dtype)
    hidden2 = rectify(acc2, bias, dtype)
    hidden3 = rectify(acc3, bias, dtype)
    low_row = grid_rows(n, h // 2, w // 2, height // 2, width // 2)
    for i in tl.static_range(4):
        hidden = hidden0 if i == 0 else hidden1 if i == 1 else hidden2 if i == 2 else hidden3
        finish_row(
            hidden, row + i * pitch, low_row + i // 2 * (width // 2 + 1), x_desc, expand_weight_desc, expand_bias_ptr,
            low_ptr, next_affine_ptr, next_weight_desc, next_bias_ptr, x_out_desc, t_out_desc,
            CO, CN, BN, W, CHUNK_STAGES,
        )  # fmt: skip


@custom_op("fasthg::bottleneck_slab", mutates_args={"x_out", "t_out"})
def bottleneck_by_slab(
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
    """Launch `bottleneck_slab`: an opaque operator of its own, since tracing cannot follow tensor maps."""
    chosen, (feats, channels), feats_next = from_ints(config), expand_weight.shape, width_of(t_out)
    bk, bn = min(chosen.block_k, feats), min(chosen.block_n, channels)
    launch(
        bottleneck_slab, (batch * (height // BAND) * (width // SEGMENT),), chosen,
        tensor_map(t, SEGMENT, bk), tensor_map(x, SEGMENT, bn), tensor_map(conv_weight, bk, feats), conv_bias,
        tensor_map(expand_weight, feats, bn), expand_bias, low, next_affine, tensor_map(next_weight, bn, feats_next),
        next_bias, tensor_map(x_out, SEGMENT, bn), tensor_map(t_out, SEGMENT, feats_next), height, width,
        C=feats, CO=channels, CN=feats_next, W=SEGMENT, BK=bk, BN=bn,
        STAGES=chosen.num_stages, CHUNK_STAGES=chosen.chunk_stages,
    )  # fmt: skip
