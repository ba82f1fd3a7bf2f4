"""Heatmap decoding and target rendering: `torch.ops.fasthg.decode_heatmaps` and `render_targets` on CUDA."""

from __future__ import annotations

import torch
from torch import Tensor

import triton
import triton.language as tl
from fasthg.kernels.triton.launch import launch, tiles
from fasthg.kernels.tuning import Config

BLOCK = 4096  # pixels that one program holds at once: a whole map of 64x64


@triton.jit
def quarter_step(map_ptr, index, step, position, length):
    """0.25 toward the larger of the neighbours `step` away, 0 between equals and at the border."""
    inside = (position > 0) & (position < length - 1)
    after = tl.load(map_ptr + index + step, mask=inside, other=0.0).to(tl.float32)
    before = tl.load(map_ptr + index - step, mask=inside, other=0.0).to(tl.float32)
    return tl.where(after > before, 0.25, tl.where(after < before, -0.25, 0.0))


@triton.jit(do_not_specialize=["height", "width"])
def decode_kernel(
    heatmaps_ptr,  # [maps, height, width]
    points_ptr,  # [maps, 2] fp32
    scores_ptr,  # [maps] fp32
    height,
    width,
    BLOCK: tl.constexpr,
):
    i = tl.program_id(0)
    map_ptr = heatmaps_ptr + i.to(tl.int64) * (height * width)
    best = float("-inf")
    index = 0
    first_nan = height * width
    for start in tl.range(0, height * width, BLOCK):
        pixel = start + tl.arange(0, BLOCK)
        values = tl.load(map_ptr + pixel, mask=pixel < height * width, other=float("-inf")).to(tl.float32)
        largest, where = tl.max(values, axis=0, return_indices=True)
        index = tl.where(largest > best, start + where, index)
        best = tl.maximum(largest, best)
        first_nan = tl.minimum(first_nan, tl.min(tl.where(values != values, pixel, height * width), axis=0))
    if first_nan < height * width:  # NaN counts as the largest value, as in torch.argmax
        index = first_nan
        best = float("nan")
    x = index % width
    y = index // width
    tl.store(points_ptr + 2 * i, x + 0.5 + quarter_step(map_ptr, index, 1, x, width))
    tl.store(points_ptr + 2 * i + 1, y + 0.5 + quarter_step(map_ptr, index, width, y, height))
    tl.store(scores_ptr + i, best)


def decode_heatmaps(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    """As `fasthg.kernels.reference.decode_heatmaps`, one program a map."""
    heatmaps = heatmaps.contiguous()
    n, joints, height, width = heatmaps.shape
    points = torch.empty(n, joints, 2, device=heatmaps.device)
    scores = torch.empty(n, joints, device=heatmaps.device)
    if n * joints:
        launch(
            decode_kernel, (n * joints,), Config(BLOCK), heatmaps_ptr=heatmaps, points_ptr=points, scores_ptr=scores,
            height=height, width=width, BLOCK=BLOCK,
        )  # fmt: skip
    return points, scores


@triton.jit(do_not_specialize=["height", "width"])
def render_kernel(
    points_ptr,  # [maps, 2] fp32
    weights_ptr,  # [maps] fp32
    targets_ptr,  # [maps, height, width] fp32
    height,
    width,
    sigma,
    BLOCK: tl.constexpr,
):
    i = tl.program_id(0)
    pixel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(points_ptr + 2 * i)
    y = tl.load(points_ptr + 2 * i + 1)
    drawn = (tl.load(weights_ptr + i) > 0) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    dx = pixel % width + 0.5 - x
    dy = pixel // width + 0.5 - y
    near = (tl.abs(dx) <= 3 * sigma) & (tl.abs(dy) <= 3 * sigma)
    value = tl.where(near, tl.exp(-(dx * dx + dy * dy) / (2 * sigma * sigma)), 0.0)
    value = tl.where(drawn, value, 0.0)
    tl.store(targets_ptr + i.to(tl.int64) * (height * width) + pixel, value, mask=pixel < height * width)


def render_targets(points: Tensor, weights: Tensor, height: int, width: int, sigma: float) -> Tensor:
    """As `fasthg.kernels.reference.render_targets`."""
    points, weights = points.float().contiguous(), weights.float().contiguous()
    targets = torch.empty(*weights.shape, height, width, device=points.device)
    if targets.numel():
        launch(
            render_kernel, (weights.numel(), tiles(height * width, BLOCK)), Config(BLOCK),
            points_ptr=points, weights_ptr=weights, targets_ptr=targets, height=height, width=width,
            sigma=float(sigma), BLOCK=BLOCK,
        )  # fmt: skip
    return targets
