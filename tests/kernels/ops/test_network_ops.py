"""The fused network's operators compose to the reference network, compile, export, and refuse bad input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.library import opcheck
from torch.nn import functional as F

import fasthg.kernels.ops  # noqa: F401  registers the operators
from fasthg.kernels.layout import Grid, pack_affine, pack_bias, pack_conv1x1, pack_conv3x3, pack_stem
from fasthg.kernels.ops.checks import Arguments
from fasthg.network.model import Bottleneck, Hourglass, Stack, Stem
from fasthg.network.variants import HourglassConfig

OPS = torch.ops.fasthg
DOUBLE = torch.float64
GRID = Grid(2, 8, 12)
SIZE = (GRID.batch, GRID.height, GRID.width)
TINY = HourglassConfig(num_stacks=2, num_feats=16, depths=1)


def randomised(module: nn.Module) -> nn.Module:
    """In evaluation, in float64, with norms that do something."""
    for name, tensor in module.named_buffers():
        if "var" in name:
            tensor.uniform_(0.5, 2)
        elif "mean" in name:
            tensor.normal_()
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d | nn.GroupNorm):
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.normal_(norm.bias)
    return module.double().eval().requires_grad_(False)


def affine(norm: nn.BatchNorm2d) -> Tensor:
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return pack_affine(scale, norm.bias - norm.running_mean * scale)


def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    return nn.utils.fusion.fuse_conv_bn_eval(conv, norm)


def projection(block: Bottleneck) -> list[Tensor]:
    reduce = folded(block.convs[0], block.norms[1])
    return [affine(block.norms[0]), pack_conv1x1(reduce.weight), pack_bias(reduce.bias)]


def body(block: Bottleneck) -> list[Tensor | None]:
    """From the 3x3 on; of four convolutions, from the second 3x3 on."""
    conv, expand = folded(block.convs[-2], block.norms[-1]), block.convs[-1]
    bias, skip = expand.bias, None
    if isinstance(block.skip, nn.Conv2d):
        bias, skip = bias + block.skip.bias, pack_conv1x1(block.skip.weight)
    return [pack_conv3x3(conv.weight), pack_bias(conv.bias), pack_conv1x1(expand.weight), pack_bias(bias), skip]


def assert_same(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


NOTHING = [None, None, None]


@pytest.mark.parametrize("num_convs", [3, 4])
def test_an_hourglass_of_fused_operators_equals_the_model(num_convs: int) -> None:
    config = HourglassConfig(num_stacks=1, num_feats=16, depths=1, num_convs=num_convs)
    model, images = randomised(Hourglass(config, 1)), torch.randn(2, 32, 8, 12, dtype=DOUBLE)
    half = GRID.half()

    def run(block: Bottleneck, grid: Grid, t: Tensor, x: Tensor, low: Tensor | None, following: Any) -> Any:
        size = (grid.batch, grid.height, grid.width)
        if num_convs == 4:
            second, t_in = folded(block.convs[1], block.norms[2]), t
            t = grid.empty(16, DOUBLE)
            OPS.conv3x3(t_in, pack_conv3x3(second.weight), pack_bias(second.bias), t, *size)
        x_out, t_out = grid.empty(32, DOUBLE), None if following is None else grid.empty(16, DOUBLE)
        consumer = NOTHING if following is None else projection(following)
        OPS.bottleneck(t, x, *body(block), low, *consumer, *NOTHING, x_out, t_out, None, None, *size)
        return x_out, t_out

    up1, low1, low2, low3 = (blocks[0] for blocks in (model.up1, model.low1, model.low2, model.low3))
    x, x_pool = GRID.pack(images), half.empty(32, DOUBLE)
    t, t_pool = GRID.empty(16, DOUBLE), half.empty(16, DOUBLE)
    identity = [torch.eye(32, dtype=DOUBLE), torch.zeros(32, dtype=DOUBLE)]
    zero = [torch.zeros(32, 32, dtype=DOUBLE), torch.zeros(32, dtype=DOUBLE)]
    OPS.head(
        x, *identity, None, None, x, *zero, *projection(up1), *projection(low1), None, GRID.empty(32, DOUBLE), t,
        x_pool, t_pool, *SIZE,
    )  # fmt: skip
    low, t_low = run(low1, half, t_pool, x_pool, None, low2)
    low, t_low = run(low2, half, t_low, low, None, low3)
    low, _ = run(low3, half, t_low, low, None, None)
    result, _ = run(up1, GRID, t, x, low, None)
    assert_same(GRID.images(result), model(images))


def test_expand_after_conv3x3_equals_a_bottleneck() -> None:
    """With a projected skip and a lower branch, against the model."""
    block, images = randomised(Bottleneck(TINY, 16, 16, 32)), torch.randn(2, 16, 8, 12, dtype=DOUBLE)
    low, out = torch.randn(2, 32, 4, 6, dtype=DOUBLE), GRID.empty(32, DOUBLE)
    reduce = folded(block.convs[0], block.norms[1])
    t = GRID.pack(F.relu(reduce(F.relu(block.norms[0](images)))))
    hidden, (weight, bias, *last) = GRID.empty(16, DOUBLE), body(block)
    OPS.conv3x3(t, weight, bias, hidden, *SIZE)
    OPS.expand(hidden, GRID.pack(images), *last, GRID.half().pack(low), *NOTHING, *NOTHING, out, *NOTHING, *SIZE)
    assert_same(GRID.images(out), block(images) + F.interpolate(low, scale_factor=2.0))


def test_head_merges_features_and_heatmaps_into_the_trunk_as_the_model_does() -> None:
    stack = randomised(Stack(TINY, 1, last=False))
    x, y = torch.randn(2, 2, 32, 8, 12, dtype=DOUBLE)
    stack.hourglass = stack.blocks = nn.Identity()
    expected_x, expected_heatmaps = stack(y)
    features = folded(stack.features, stack.norm)
    score, back = stack.score, stack.merge_score.weight.flatten(1)
    merge = stack.merge_features.weight.flatten(1) + back @ score.weight.flatten(1)
    bias = stack.merge_features.bias + stack.merge_score.bias + back @ score.bias
    heatmaps, x_out = torch.empty(2, 16, 8, 12, dtype=DOUBLE), GRID.empty(32, DOUBLE)
    OPS.head(
        GRID.pack(y), pack_conv1x1(features.weight), features.bias, pack_conv1x1(score.weight), score.bias,
        GRID.pack(x), pack_conv1x1(merge[:, :, None, None]), bias, *NOTHING, *NOTHING,
        heatmaps, x_out, None, None, None, *SIZE,
    )  # fmt: skip
    assert_same(heatmaps, expected_heatmaps)
    assert_same(GRID.images(x_out), expected_x - y + x)  # the stand-in hourglass hands its input on, the trunk too


def test_stem_equals_the_model_and_pools_what_its_first_block_gives() -> None:
    stem, images = randomised(Stem(TINY)), torch.randn(2, 3, 16, 24, dtype=DOUBLE)
    conv, first, second = folded(stem.conv, stem.norm), stem.block1, stem.block2
    x, t = GRID.empty(64, DOUBLE), GRID.empty(64, DOUBLE)
    OPS.stem(images, pack_stem(conv.weight), conv.bias, True, *projection(first), x, t, None)
    assert_same(GRID.images(x), F.relu(stem.norm(stem.conv(images))))
    half = GRID.half()
    x_pool, t_pool = half.empty(128, DOUBLE), half.empty(128, DOUBLE)
    OPS.bottleneck(
        t, x, *body(first), None, *NOTHING, *projection(second), None, None, x_pool, t_pool, *SIZE
    )  # fmt: skip
    pooled = F.max_pool2d(first(F.relu(stem.norm(stem.conv(images)))), 2)
    assert_same(half.images(x_pool), pooled)
    assert_same(half.images(t_pool), F.relu(second.norms[1](second.convs[0](F.relu(second.norms[0](pooled))))))


def test_group_norm_bottleneck_of_fused_operators_equals_the_model() -> None:
    config = HourglassConfig(num_stacks=1, num_feats=16, depths=1, norm="layer")
    block, raw = randomised(Bottleneck(config, 32, 16, 32)), 5 + torch.randn(2, 32, 16, 24, dtype=DOUBLE)
    low, outer = torch.randn(2, 32, 4, 6, dtype=DOUBLE), Grid(2, 16, 24)
    buffers = [GRID.empty(c, DOUBLE) for c in (32, 16, 16, 32)]
    partials = [GRID.empty_partials(dtype=DOUBLE) for _ in range(4)]
    norms = [torch.stack([norm.weight, norm.bias]) for norm in block.norms]
    reduce, conv, expand = block.convs
    eps = block.norms[0].eps
    OPS.max_pool(outer.pack(raw), buffers[0], partials[0], 2, 16, 24)
    OPS.norm_conv1x1(
        buffers[0], partials[0], norms[0], eps, pack_conv1x1(reduce.weight), reduce.bias, *NOTHING,
        buffers[1], partials[1], *SIZE,
    )  # fmt: skip
    OPS.norm_conv3x3(
        buffers[1], partials[1], norms[1], eps, pack_conv3x3(conv.weight), conv.bias, buffers[2], partials[2], *SIZE
    )
    OPS.norm_conv1x1(
        buffers[2], partials[2], norms[2], eps, pack_conv1x1(expand.weight), expand.bias, buffers[0], None,
        GRID.half().pack(low), buffers[3], partials[3], *SIZE,
    )  # fmt: skip
    expected = block(F.max_pool2d(raw, 2)) + F.interpolate(low, scale_factor=2.0)
    assert_same(GRID.images(buffers[3]), expected)
    out, norm = GRID.empty(32, DOUBLE), nn.GroupNorm(1, 32).double()
    OPS.normalise(buffers[3], partials[3], torch.stack([norm.weight, norm.bias]).detach(), norm.eps, out, None, *SIZE)
    assert_same(GRID.images(out), F.relu(norm(expected)))


def sample_calls() -> dict[str, tuple]:
    """One call of every operator of the fused network, in float32."""
    half, r = GRID.half(), torch.randn
    t, x, low = GRID.pack(r(2, 16, 8, 12)), GRID.pack(r(2, 32, 8, 12)), half.pack(r(2, 32, 4, 6))

    def new(grid: Grid, channels: int) -> Tensor:
        return grid.empty(channels, torch.float32)

    consumer, statistics = (r(2, 32), r(32, 16), r(16)), GRID.empty_partials() + 1
    blocks = (r(9, 16, 16), r(16), r(16, 32), r(32))
    consumers = (*consumer, *consumer)
    outs = (new(GRID, 32), new(GRID, 16), new(half, 32), new(half, 16))
    merge = (x, r(32, 32), r(32))
    return {
        "stem": (r(2, 3, 16, 24), r(7, 32, 32), r(32), True, *consumer, *outs[:2], GRID.empty_partials()),
        "conv3x3": (t, r(9, 16, 16), r(16), new(GRID, 16), *SIZE),
        "bottleneck": (t, x, *blocks, None, low, *consumers, *outs, *SIZE),
        "expand": (t, x, *blocks[2:], None, low, *consumers, *outs, *SIZE),
        "head": (x, r(32, 32), r(32), r(32, 16), r(16), *merge, *consumers, r(2, 16, 8, 12), *outs, *SIZE),
        "max_pool": (x, outs[2], half.empty_partials(), *SIZE),
        "normalise": (x, statistics, r(2, 32), 1e-5, outs[0], GRID.empty_partials(), *SIZE),
        "norm_conv1x1": (
            t, statistics, r(2, 16), 1e-5, r(16, 32), r(32), x, None, low, outs[0], GRID.empty_partials(), *SIZE
        ),
        "norm_conv3x3": (
            t, statistics, r(2, 16), 1e-5, r(9, 16, 32), r(32), outs[0], GRID.empty_partials(), *SIZE
        ),
    }  # fmt: skip


NAMES = list(sample_calls())


def test_every_operator_of_the_network_is_tested_here() -> None:
    heatmap_ops = {"decode_heatmaps", "render_targets"}
    defined = {name.split("::")[1] for name in torch._C._dispatch_get_all_op_names() if name.startswith("fasthg::")}
    assert defined - heatmap_ops == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_operators_are_sound_for_compile_and_export(name: str) -> None:
    opcheck(getattr(OPS, name).default, sample_calls()[name])


def test_a_chain_of_operators_compiles_to_one_graph_and_exports() -> None:
    calls = sample_calls()

    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for i, argument in enumerate(calls["bottleneck"]):
                if isinstance(argument, Tensor):
                    self.register_buffer(f"a{i}", argument)

        def forward(self, t: Tensor) -> Tensor:
            call = [getattr(self, f"a{i}", argument) for i, argument in enumerate(calls["bottleneck"])]
            OPS.bottleneck(t, *call[1:])
            OPS.conv3x3(call[15], *calls["conv3x3"][1:3], t, *SIZE)
            return GRID.images(t).clone()

    chain, t = Chain(), calls["bottleneck"][0]
    expected = chain(t.clone())
    assert_same(torch.compile(chain, fullgraph=True, backend="aot_eager")(t.clone()), expected)
    exported = torch.export.export(chain, (t.clone(),))
    assert "fasthg.bottleneck" in str(exported.graph)
    assert_same(exported.module()(t.clone()), expected)


def replaced(name: str, position: int, change: Callable[[Any], Any]) -> tuple[Any, ...]:
    call = list(sample_calls()[name])
    call[position] = change(call[position])
    return tuple(call)


@pytest.mark.parametrize(
    ("name", "position", "change", "error", "message"),
    [
        ("bottleneck", 0, lambda t: t[1:], ValueError, r"t has shape \(.*fits the other arguments"),
        ("bottleneck", 0, lambda t: t.int(), TypeError, "activations are torch.int32; give a floating-point dtype"),
        ("bottleneck", 1, lambda x: x.half(), TypeError, "x is torch.float16; give torch.float32"),
        ("bottleneck", 1, lambda x: x[:, :24].contiguous(), ValueError, "x has 24 channels; give a power of two"),
        ("bottleneck", 1, lambda x: x[:, :16].contiguous(), ValueError, "x has 16 channels and the result 32"),
        ("bottleneck", 1, lambda x: x.t().contiguous().t(), ValueError, "x has strides .*call .contiguous"),
        ("bottleneck", 1, lambda x: x.view(1, *x.shape), ValueError, r"x has shape .*give a buffer \[rows, C\]"),
        ("bottleneck", 3, lambda b: b.double(), TypeError, "conv_bias is torch.float64; give torch.float32"),
        ("bottleneck", 9, lambda w: None, ValueError, "give all of next_affine, next_weight, next_bias and its t"),
        ("bottleneck", 16, lambda x: None, ValueError, "t_pool needs x_pool"),
        ("bottleneck", -1, lambda width: 11, ValueError, "t has shape .*fits the other arguments"),
        ("head", 5, lambda x: None, ValueError, "give all of x, merge_weight and merge_bias"),
        ("head", 14, lambda h: h[:, :, :4], ValueError, "heatmaps has shape"),
        ("stem", 0, lambda images: images[:, :2], ValueError, r"images have shape .*give \[N, 3, H, W\]"),
        ("stem", 0, lambda images: images.mT.contiguous().mT, ValueError, "images has strides"),
        ("norm_conv1x1", 1, lambda p: None, ValueError, "give all of partials and affine"),
        ("max_pool", 1, lambda x: x[:, :16].contiguous(), ValueError, "x and x_out differ in channels"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named_before_anything_runs(
    name: str, position: int, change: Callable, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^{name}: {message}"):
        getattr(OPS, name)(*replaced(name, position, change))


def test_a_tensor_of_another_device_is_named() -> None:
    with pytest.raises(ValueError, match="bottleneck: conv_weight is on meta; move it to cpu"):
        Arguments("bottleneck", torch.zeros(1)).tensor("conv_weight", torch.zeros(1, device="meta"), (1,))


def test_half_precision_on_a_cpu_is_rounded_only_where_it_is_stored() -> None:
    t, weight, bias, out, *size = sample_calls()["conv3x3"]
    narrow = [t.half(), weight.half(), bias, out.half()]
    OPS.conv3x3(*narrow, *size)
    wide = [narrow[0].double(), narrow[1].double(), bias.double(), out.double()]
    OPS.conv3x3(*wide, *size)
    torch.testing.assert_close(narrow[3].double(), wide[3], rtol=2**-11, atol=2**-24)
