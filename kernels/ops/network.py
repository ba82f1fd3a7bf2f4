"""The fused network's operators `torch.ops.fasthg.*`: a stacked hourglass in evaluation is a chain of these.

Buffers. Activations are matrices [rows, C] in the shared-zero-border grid of `fasthg.kernels.layout`; `batch, height,
width` are those of the operator's input x (or t). Outputs are arguments, so that a network plans its buffers once and
one CUDA graph replays them: allocate with `Grid.empty`, whose borders are zero; every operator leaves them zero. No
output may share memory with an input. An output that is None is not computed.

Weights are packed by `fasthg.kernels.layout` (`pack_conv1x1`, `pack_conv3x3`, `pack_stem`, `pack_bias`,
`pack_affine`); biases, affines and partial statistics are float32 (float64 with float64 activations). Channels are
powers of two from 16; the packers pad with zeros, which stay zero through every operator but the group-norm ones.

A product's operands have the dtype of its weight, and t has it too. The trunk (x, low, x_out, x_pool) has it or is
float32 beside halves; `head` and `norm_conv1x1` with float32 weights also read halves.

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
A bottleneck may also be computed in two calls, `conv3x3` and `expand`: where the first runs beside other work.

GroupNorm with one group cannot fold: its statistics span the image. The producer of a tensor also writes partial
statistics (`Grid.empty_partials`), the consumer combines them and normalises as it reads; affine is [gamma, beta]:

    bottleneck: norm_conv1x1(x, partials) -> norm_conv3x3 -> norm_conv1x1(skip = x, low = ..) -> x', partials'
    stem:       stem(relu=False, partials_out) -> normalise -> x, partials;   pooling: max_pool(partials_out)
    head:       norm_conv1x1(partials=None: features) -> norm_conv1x1(score), norm_conv1x1(merge, skip = trunk)

Every operator raises ValueError or TypeError, before launch, that names the argument. On CUDA the implementations are
Triton kernels for float16 and bfloat16 (fp32 accumulation), elsewhere `fasthg.kernels.ops.plain`.
"""

from __future__ import annotations

from torch import Tensor

from fasthg.kernels.layout import STEM_TAPS, Grid, padded_channels
from fasthg.kernels.ops.checks import Arguments
from fasthg.kernels.ops.dispatch import implementation, operator
from fasthg.kernels.parts import Results


@operator("stem", {"x_out", "t_out", "partials_out"})
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
    conv = check.conv("", weight, bias, 7, STEM_TAPS, channels)
    out = check.results(grid, channels, x_out, (next_affine, next_weight, next_bias, t_out))
    check.partials("partials_out", partials_out, grid)
    implementation(x_out).stem(images, conv, relu, out, partials_out, grid)


@operator("conv3x3", {"t_out"})
def conv3x3(t: Tensor, weight: Tensor, bias: Tensor, t_out: Tensor, batch: int, height: int, width: int) -> None:
    """t_out = ReLU(3x3(t)): the second of a bottleneck's four convolutions. weight [9, C, C'], bias [C']."""
    grid, check = Grid(batch, height, width), Arguments("conv3x3", t)
    conv = check.conv("", weight, bias, 9, check.buffer("t", t, grid), check.buffer("t_out", t_out, grid))
    implementation(t).conv3x3(t, conv, t_out, grid)


@operator("bottleneck", {"x_out", "t_out", "x_pool", "t_pool"})
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
    feats, channels = check.buffer("t", t, grid), expand_weight.shape[-1]
    residual = check.residual("x", grid, channels, x, skip_weight, low)
    conv = check.conv("conv_", conv_weight, conv_bias, 9, feats, feats)
    expand = check.conv("expand_", expand_weight, expand_bias, feats, channels)
    next_reader, pool_reader = (
        (next_affine, next_weight, next_bias, t_out),
        (pool_affine, pool_weight, pool_bias, t_pool),
    )
    out = check.results(grid, channels, x_out, next_reader, x_pool, pool_reader)
    implementation(t).bottleneck(t, conv, expand, residual, out, grid)


@operator("expand", {"x_out", "t_out", "x_pool", "t_pool"})
def expand(
    t: Tensor,
    x: Tensor,
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
    """`bottleneck` from its last 1x1 on: t is what the 3x3 and its ReLU gave."""
    grid, check = Grid(batch, height, width), Arguments("expand", t)
    feats, channels = check.buffer("t", t, grid), expand_weight.shape[-1]
    residual = check.residual("x", grid, channels, x, skip_weight, low)
    weights = check.conv("expand_", expand_weight, expand_bias, feats, channels)
    next_reader, pool_reader = (
        (next_affine, next_weight, next_bias, t_out),
        (pool_affine, pool_weight, pool_bias, t_pool),
    )
    out = check.results(grid, channels, x_out, next_reader, x_pool, pool_reader)
    implementation(t).bottleneck(t, None, weights, residual, out, grid)


@operator("head", {"heatmaps", "x_out", "t_out", "x_pool", "t_pool"})
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
    dtype, x [.., C], merge_weight [C, C]. With float32 weights the features stay float32 whatever y is.
    """
    grid, check = Grid(batch, height, width), Arguments("head", features_weight)
    channels, score, merge, out = check.source("y", y, grid), None, None, Results()
    features = check.conv("features_", features_weight, features_bias, channels, channels)
    if check.together("score_weight, score_bias and heatmaps", score_weight, score_bias, heatmaps):
        assert score_weight is not None
        assert score_bias is not None
        assert heatmaps is not None
        joints = heatmaps.shape[1]
        score = check.conv("score_", score_weight, score_bias, channels, padded_channels(joints))
        check.tensor("heatmaps", heatmaps, (batch, joints, height, width), heatmaps.dtype)
    if check.together("x, merge_weight and merge_bias", x, merge_weight, merge_bias):
        assert merge_weight is not None
        assert merge_bias is not None
        check.trunk("x", x, grid, channels)
        merge = check.conv("merge_", merge_weight, merge_bias, channels, channels)
        following, behind = (next_affine, next_weight, next_bias, t_out), (pool_affine, pool_weight, pool_bias, t_pool)
        out = check.results(grid, channels, x_out, following, x_pool, behind)
    else:
        wanted = any(out is not None for out in (x_out, t_out, x_pool, t_pool))
        check.require(not wanted, "x_out, t_out, x_pool and t_pool need x, merge_weight and merge_bias")
        check.require(heatmaps is not None, "nothing to compute; give heatmaps, or x and x_out")
    implementation(features_weight).head(y, features, score, heatmaps, x, merge, out, grid)


@operator("max_pool", {"x_out", "partials_out"})
def max_pool(x: Tensor, x_out: Tensor, partials_out: Tensor | None, batch: int, height: int, width: int) -> None:
    """2x2 max-pool of x into the half grid, and the result's partial statistics where they are wanted."""
    grid, check = Grid(batch, height, width), Arguments("max_pool", x)
    channels, half = check.buffer("x", x, grid), grid.half()
    check.require(check.buffer("x_out", x_out, half) == channels, f"x and x_out differ in channels; x has {channels}")
    check.partials("partials_out", partials_out, half)
    implementation(x).max_pool(x, x_out, partials_out, grid)
