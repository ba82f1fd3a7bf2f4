"""The fused network's operators `torch.ops.fasthg.*`: a stacked hourglass in evaluation is a chain of these.

Buffers. Activations are matrices [rows, C] in the shared-zero-border grid of `fasthg.kernels.layout`; `batch, height,
width` are those of the operator's input x (or t). Outputs are arguments, so that a network plans its buffers once and
one CUDA graph replays them: allocate with `Grid.empty`, whose borders are zero; every operator leaves them zero. No
output may share memory with an input. An output that is None is not computed.

Weights are packed by `fasthg.kernels.layout` (`pack_conv1x1`, `pack_conv3x3`, `pack_stem`, `pack_bias`,
`pack_affine`) and have the activations' dtype; biases, affines and partial statistics are float32 (float64 with
float64 activations). Channels are powers of two from 16; the packers pad with zeros, which stay zero through every
operator but the group-norm ones.

A pre-activation bottleneck is BN1-ReLU-1x1, BN2-ReLU-3x3, BN3-ReLU-1x1, plus the input x. BN2 and BN3 fold into the
convolution before them (weights and bias); BN1 does not, because x also feeds the skip: it stays an affine [2, C] of
scale gamma / sqrt(var + eps) and shift beta - mean * scale. The cut between kernels is moved: the kernel that
produces x also produces, for each block that consumes x, that block's t = ReLU(1x1(ReLU(affine x))), given as the
three arguments (affine, weight, bias). `next_*` is the consumer at the same resolution, `pool_*` the one behind a 2x2
max-pool:

    images -stem-> x, t -bottleneck(pool_*)-> x_pool, t_pool -bottleneck-> ..
        -bottleneck(next_* = up1, pool_* = low1)-> ..
    hourglass(x, t, x_pool, t_pool):
        low1: bottlenecks from (t_pool, x_pool); its last has next_* = the inner up1 (or low2), pool_* = the inner low1
        low2: the inner hourglass (or bottlenecks), its last with next_* = low3
        low3: bottlenecks; its last needs x_out only
        up1:  bottlenecks from (t, x); its last has low = low3's x_out and next_* = whatever follows the hourglass
    then the stack's bottlenecks, the last with x_out only, and `head`: features, score -> heatmaps, and the way back
    into the trunk, merge(y) + x -> x_out with next_* = the next up1 and pool_* = the next low1.

`head`'s merge holds both of the network's: merge_features(y) + merge_score(score(y)) is one 1x1, Wf + Ws_score
Ws_merge with bias bf + bs_merge + bs_score Ws_merge. A fourth convolution is one `conv3x3` before `bottleneck`.
`whole_bottleneck` takes x alone and computes t itself; then `max_pool` gives the pooled x.

GroupNorm with one group cannot fold: its statistics span the image. The producer of a tensor also writes partial
statistics (`Grid.empty_partials`), the consumer combines them and normalises as it reads; affine is [gamma, beta]:

    bottleneck: norm_conv1x1(x, partials) -> norm_conv3x3 -> norm_conv1x1(skip = x, low = ..) -> x', partials'
    stem:       stem(relu=False, partials_out) -> normalise -> x, partials;   pooling: max_pool(partials_out)
    head:       norm_conv1x1(partials=None: features) -> norm_conv1x1(score), norm_conv1x1(merge, skip = trunk)

Every operator raises ValueError or TypeError, before launch, that names the argument. On CUDA the implementations are
Triton kernels for float16 and bfloat16 (fp32 accumulation); elsewhere they are `fasthg.kernels.reference`.
"""

from __future__ import annotations

from torch import Tensor
from torch.library import triton_op
from torch.nn import functional as F

from fasthg.kernels import reference
from fasthg.kernels.layout import STEM_TAPS, Grid, padded_channels
from fasthg.kernels.ops.checks import Arguments


def wide(grid: Grid, buffer: Tensor) -> Tensor:
    """A buffer's images [N, C, H, W] in the dtype that the reference computes in: float32 or wider."""
    images = grid.images(buffer)
    return images.float() if images.dtype.itemsize < 4 else images


def emit(grid: Grid, x: Tensor, x_out: Tensor | None) -> None:
    """Store images in a buffer that is wanted."""
    if x_out is not None:
        grid.images(x_out).copy_(x)


def _emit_projected(
    grid: Grid, x: Tensor, affine: Tensor | None, weight: Tensor | None, bias: Tensor | None, t_out: Tensor | None
) -> None:
    if affine is not None and weight is not None and bias is not None:
        emit(grid, reference.project(x, affine, weight, bias), t_out)


def emit_partials(grid: Grid, x: Tensor, partials_out: Tensor | None) -> None:
    """Store partial statistics where they are wanted."""
    if partials_out is not None:
        partials_out.copy_(reference.statistics(x, grid.statistics_tiles))


@triton_op("fasthg::stem", mutates_args={"x_out", "t_out", "partials_out"})
def stem(
    images: Tensor,
    weight: Tensor,
    bias: Tensor,
    relu: bool,
    next_affine: Tensor | None,
    next_weight: Tensor | None,
    next_bias: Tensor | None,
    x_out: Tensor,
    t_out: Tensor | None,
    partials_out: Tensor | None,
) -> None:
    """The first convolution: images [N, 3, H, W] contiguous -> x at half the resolution, and t of the block after it.

    weight [7, 32, C] of x's dtype, bias [C]; the images may have any floating-point dtype. relu=False leaves x raw, for
    a group norm, whose partial statistics go to partials_out.
    """
    check = Arguments("stem", x_out)
    check.require(
        images.ndim == 4 and images.shape[1] == 3, f"images have shape {tuple(images.shape)}; give [N, 3, H, W]"
    )
    check.tensor("images", images, tuple(images.shape), images.dtype)
    batch, _, height, width = images.shape
    grid = Grid(batch, (height + 1) // 2, (width + 1) // 2)
    channels = check.buffer("x_out", x_out, grid)
    check.tensor("weight", weight, (7, STEM_TAPS, channels))
    check.vector("bias", bias, channels)
    check.projection("next", channels, grid, next_affine, next_weight, next_bias, t_out)
    check.partials("partials_out", partials_out, grid)
    if x_out.is_cuda:
        from fasthg.kernels.triton.stem import stem as launch

        launch(images, weight, bias, relu, next_affine, next_weight, next_bias, x_out, t_out, partials_out)
        return
    x = reference.conv_stem(images.to(bias.dtype), weight, bias)
    x = F.relu(x) if relu else x
    emit(grid, x, x_out)
    _emit_projected(grid, x, next_affine, next_weight, next_bias, t_out)
    emit_partials(grid, x, partials_out)


@triton_op("fasthg::conv3x3", mutates_args={"t_out"})
def conv3x3(t: Tensor, weight: Tensor, bias: Tensor, t_out: Tensor, batch: int, height: int, width: int) -> None:
    """t_out = ReLU(3x3(t)): the second of a bottleneck's four convolutions. weight [9, C, C'], bias [C']."""
    grid, check = Grid(batch, height, width), Arguments("conv3x3", t)
    feats_in, feats = check.buffer("t", t, grid), check.buffer("t_out", t_out, grid)
    check.tensor("weight", weight, (9, feats_in, feats))
    check.vector("bias", bias, feats)
    if t.is_cuda:
        from fasthg.kernels.triton.conv3x3 import conv3x3 as launch

        launch(t, weight, bias, t_out, batch, height, width)
        return
    emit(grid, F.relu(reference.conv3x3(wide(grid, t), weight, bias)), t_out)


@triton_op("fasthg::bottleneck", mutates_args={"x_out", "t_out", "x_pool", "t_pool"})
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
) -> None:
    """A bottleneck from its 3x3 on, and the first third of each block that reads its result.

    x' = 1x1(ReLU(3x3(t))) + x [@ skip_weight] [+ low, upsampled 2x]; t_out = project(x', next_*);
    x_pool = max_pool(x', 2); t_pool = project(x_pool, pool_*).

    t [.., C], x [.., CI], conv_weight [9, C, C], expand_weight [C, CO], skip_weight [CI, CO] (None needs CI = CO),
    low [.., CO] in the half grid, *_affine [2, CO], *_weight [CO, C'], x_out [.., CO], t_out [.., C'], x_pool and
    t_pool in the half grid. Sides are even where low or x_pool is given.
    """
    grid, check = Grid(batch, height, width), Arguments("bottleneck", t)
    feats, channels_in, channels = check.buffer("t", t, grid), check.buffer("x", x, grid), expand_weight.shape[-1]
    check.tensor("conv_weight", conv_weight, (9, feats, feats))
    check.vector("conv_bias", conv_bias, feats)
    check.tensor("expand_weight", expand_weight, (feats, channels))
    check.vector("expand_bias", expand_bias, channels)
    check_residual(check, grid, channels_in, channels, skip_weight, low)
    check_consumers(
        check, grid, channels, next_affine, next_weight, next_bias, pool_affine, pool_weight, pool_bias,
        x_out, t_out, x_pool, t_pool,
    )  # fmt: skip
    if t.is_cuda:
        from fasthg.kernels.triton.bottleneck import bottleneck as launch

        launch(
            t, x, conv_weight, conv_bias, expand_weight, expand_bias, skip_weight, low, next_affine, next_weight,
            next_bias, pool_affine, pool_weight, pool_bias, x_out, t_out, x_pool, t_pool, batch, height, width,
        )  # fmt: skip
        return
    y = reference.bottleneck(
        wide(grid, t), wide(grid, x), conv_weight, conv_bias, expand_weight, expand_bias, skip_weight,
        None if low is None else wide(grid.half(), low),
    )  # fmt: skip
    _emit_consumers(
        grid, y, next_affine, next_weight, next_bias, pool_affine, pool_weight, pool_bias, x_out, t_out, x_pool, t_pool
    )


@triton_op("fasthg::whole_bottleneck", mutates_args={"x_out"})
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
) -> None:
    """A bottleneck in one kernel that computes its t with a halo instead of reading it: for narrow bottlenecks.

    As `bottleneck` with t = project(x, affine, reduce_weight [CI, C], reduce_bias [C]).
    """
    grid, check = Grid(batch, height, width), Arguments("whole_bottleneck", x)
    feats, channels_in, channels = (
        reduce_weight.shape[-1],
        check.buffer("x", x, grid),
        check.buffer("x_out", x_out, grid),
    )
    check.vector("affine", affine, 2, channels_in)
    check.tensor("reduce_weight", reduce_weight, (channels_in, feats))
    check.vector("reduce_bias", reduce_bias, feats)
    check.tensor("conv_weight", conv_weight, (9, feats, feats))
    check.vector("conv_bias", conv_bias, feats)
    check.tensor("expand_weight", expand_weight, (feats, channels))
    check.vector("expand_bias", expand_bias, channels)
    check_residual(check, grid, channels_in, channels, skip_weight, low)
    if x.is_cuda:
        from fasthg.kernels.triton.whole_bottleneck import whole_bottleneck as launch

        launch(
            x, affine, reduce_weight, reduce_bias, conv_weight, conv_bias, expand_weight, expand_bias, skip_weight, low,
            x_out, batch, height, width,
        )  # fmt: skip
        return
    images = wide(grid, x)
    t = reference.project(images, affine, reduce_weight, reduce_bias)
    y = reference.bottleneck(
        t, images, conv_weight, conv_bias, expand_weight, expand_bias, skip_weight,
        None if low is None else wide(grid.half(), low),
    )  # fmt: skip
    emit(grid, y, x_out)


@triton_op("fasthg::head", mutates_args={"heatmaps", "x_out", "t_out", "x_pool", "t_pool"})
def head(
    y: Tensor,
    features_weight: Tensor,
    features_bias: Tensor,
    score_weight: Tensor | None,
    score_bias: Tensor | None,
    x: Tensor | None,
    merge_weight: Tensor | None,
    merge_bias: Tensor | None,
    next_affine: Tensor | None,
    next_weight: Tensor | None,
    next_bias: Tensor | None,
    pool_affine: Tensor | None,
    pool_weight: Tensor | None,
    pool_bias: Tensor | None,
    heatmaps: Tensor | None,
    x_out: Tensor | None,
    t_out: Tensor | None,
    x_pool: Tensor | None,
    t_pool: Tensor | None,
    batch: int,
    height: int,
    width: int,
) -> None:
    """Between two stacks: features, heatmaps where wanted, and the way back into the trunk.

    f = ReLU(y @ features_weight + features_bias); heatmaps = f @ score_weight + score_bias;
    x' = x + f @ merge_weight + merge_bias, and for its consumers t_out, x_pool, t_pool as in `bottleneck`.

    y [.., C], features_weight [C, C], score_weight [C, J padded], heatmaps [N, J, height, width] of any floating-point
    dtype, x [.., C], merge_weight [C, C].
    """
    grid, check = Grid(batch, height, width), Arguments("head", y)
    channels = check.buffer("y", y, grid)
    check.tensor("features_weight", features_weight, (channels, channels))
    check.vector("features_bias", features_bias, channels)
    if check.together("score_weight, score_bias and heatmaps", score_weight, score_bias, heatmaps):
        assert score_weight is not None
        assert heatmaps is not None
        joints, padded = heatmaps.shape[1], score_weight.shape[-1]
        check.tensor("score_weight", score_weight, (channels, padded_channels(joints)))
        check.vector("score_bias", score_bias, padded)
        check.tensor("heatmaps", heatmaps, (batch, joints, height, width), heatmaps.dtype)
    if check.together("x, merge_weight and merge_bias", x, merge_weight, merge_bias):
        check.require(check.buffer("x", x, grid) == channels, f"x and y differ in channels; both need {channels}")
        check.tensor("merge_weight", merge_weight, (channels, channels))
        check.vector("merge_bias", merge_bias, channels)
        check_consumers(
            check, grid, channels, next_affine, next_weight, next_bias, pool_affine, pool_weight, pool_bias,
            x_out, t_out, x_pool, t_pool,
        )  # fmt: skip
    else:
        wanted = any(out is not None for out in (x_out, t_out, x_pool, t_pool))
        check.require(not wanted, "x_out, t_out, x_pool and t_pool need x, merge_weight and merge_bias")
        check.require(heatmaps is not None, "nothing to compute; give heatmaps, or x and x_out")
    if y.is_cuda:
        from fasthg.kernels.triton.head import head as launch

        launch(
            y, features_weight, features_bias, score_weight, score_bias, x, merge_weight, merge_bias, next_affine,
            next_weight, next_bias, pool_affine, pool_weight, pool_bias, heatmaps, x_out, t_out, x_pool, t_pool,
            batch, height, width,
        )  # fmt: skip
        return
    features = F.relu(reference.conv1x1(wide(grid, y), features_weight, features_bias))
    if heatmaps is not None and score_weight is not None:
        heatmaps.copy_(reference.conv1x1(features, score_weight, score_bias)[:, : heatmaps.shape[1]])
    if x is not None and merge_weight is not None:
        merged = wide(grid, x) + reference.conv1x1(features, merge_weight, merge_bias)
        _emit_consumers(
            grid, merged, next_affine, next_weight, next_bias, pool_affine, pool_weight, pool_bias,
            x_out, t_out, x_pool, t_pool,
        )  # fmt: skip


@triton_op("fasthg::max_pool", mutates_args={"x_out", "partials_out"})
def max_pool(x: Tensor, x_out: Tensor, partials_out: Tensor | None, batch: int, height: int, width: int) -> None:
    """2x2 max-pool of x into the half grid, and the result's partial statistics where they are wanted."""
    grid, check = Grid(batch, height, width), Arguments("max_pool", x)
    channels, half = check.buffer("x", x, grid), grid.half()
    check.require(check.buffer("x_out", x_out, half) == channels, f"x and x_out differ in channels; x has {channels}")
    check.partials("partials_out", partials_out, half)
    if x.is_cuda:
        from fasthg.kernels.triton.pointwise import max_pool as launch

        launch(x, x_out, partials_out, batch, height, width)
        return
    pooled = F.max_pool2d(wide(grid, x), 2)
    emit(half, pooled, x_out)
    emit_partials(half, pooled, partials_out)


def check_residual(
    check: Arguments, grid: Grid, channels_in: int, channels: int, skip_weight: Tensor | None, low: Tensor | None
) -> None:
    """What is added to a block's result: its input, projected where channels differ, and the upsampled low branch."""
    if skip_weight is None:
        check.require(
            channels_in == channels, f"x has {channels_in} channels and the result {channels}; give skip_weight"
        )
    check.tensor("skip_weight", skip_weight, (channels_in, channels))
    if low is not None:
        check.require(
            check.buffer("low", low, grid.half()) == channels, f"low has {low.shape[1]} channels; give {channels}"
        )


def check_consumers(
    check: Arguments,
    grid: Grid,
    channels: int,
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
) -> None:
    """The outputs of a block and the projections that they need."""
    check.require(any(out is not None for out in (x_out, t_out, x_pool)), "nothing to compute; give x_out")
    check.require(check.buffer("x_out", x_out, grid) in (0, channels), f"x_out needs {channels} channels")
    check.projection("next", channels, grid, next_affine, next_weight, next_bias, t_out)
    check.require(t_pool is None or x_pool is not None, "t_pool needs x_pool")
    if x_pool is not None:
        check.require(check.buffer("x_pool", x_pool, grid.half()) == channels, f"x_pool needs {channels} channels")
        check.projection("pool", channels, grid.half(), pool_affine, pool_weight, pool_bias, t_pool)


def _emit_consumers(
    grid: Grid,
    x: Tensor,
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
) -> None:
    emit(grid, x, x_out)
    _emit_projected(grid, x, next_affine, next_weight, next_bias, t_out)
    if x_pool is not None:
        pooled = F.max_pool2d(x, 2)
        emit(grid.half(), pooled, x_pool)
        _emit_projected(grid.half(), pooled, pool_affine, pool_weight, pool_bias, t_pool)
