"""Every Triton kernel in Triton's interpreter, against the operator's meaning in float64.

Run by test_triton_interpreter.py in a process of its own: kernels must be interpreted from their import on.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fasthg.kernels import reference
from fasthg.kernels.layout import STATISTICS_PIXELS, Grid, padded_channels
from fasthg.kernels.ops import heatmaps as ops
from fasthg.kernels.ops.dispatch import by_triton
from fasthg.kernels.triton import heatmaps
from fasthg.kernels.tuning import KERNELS, Config, trial

OPS = torch.ops.fasthg

SMALL = Config(block_m=64, block_k=16, block_n=32)
TMA = Config(block_m=64, block_k=16, block_n=32, tma=True)
DEEP = Config(block_m=32, block_k=64, block_n=64)  # longer than the channels: cut to them
PARTS = Config(block_m=16, block_k=16, block_n=32, parts=2)  # programs share out output channels
TOLERANCE = {torch.float16: 1e-3, torch.float32: 1e-6}
DTYPES = list(TOLERANCE)
SIZES = [(2, 8, 8), (3, 6, 10), (1, 2, 34)]  # batch, height, width; the last has rows longer than a tile is wide
ODD_SIZES = [(3, 5, 3), (1, 1, 1), (1, 17, 9)]


class Case:
    """Random arguments of a kernel, and outputs that start as NaN within zero borders."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def images(self, grid: Grid, channels: int) -> Tensor:
        return grid.pack(torch.randn(grid.batch, channels, grid.height, grid.width), self.dtype)

    def weight(self, *shape: int) -> Tensor:
        return (torch.randn(shape) / math.prod(shape[:-1]) ** 0.5).to(self.dtype)

    def bias(self, channels: int) -> Tensor:
        return 0.1 * torch.randn(channels)

    def projection(self, channels: int, feats: int) -> tuple[Tensor, Tensor, Tensor]:
        return 1 + 0.1 * torch.randn(2, channels), self.weight(channels, feats), self.bias(feats)

    def out(self, grid: Grid, channels: int) -> Tensor:
        buffer = grid.empty(channels, self.dtype)
        grid.pixels(buffer).fill_(math.nan)
        return buffer


def as_double(arguments: list) -> list:
    return [x.double() if isinstance(x, Tensor) else x for x in arguments]


def run(operator: Any, arguments: list, config: Config) -> None:
    """The operator by its Triton kernel, with this configuration."""
    with by_triton(), trial(lambda question: KERNELS[question.operator].only(config)) as asked:
        operator(*arguments)
    assert asked, "no kernel ran"


def check(operator: Any, inputs: list, outputs: list, shape: tuple, config: Config) -> None:
    """The kernel's outputs, borders included, equal the operator's in float64."""
    expected = [x if x is None else torch.full_like(x, math.nan, dtype=torch.float64) for x in outputs]
    operator(*as_double(inputs), *expected, *shape)
    run(operator, [*inputs, *outputs, *shape], config)
    for out, meant in zip(outputs, expected):
        if out is not None:
            inside = ~meant.isnan()  # the operator left the borders alone
            error = (out.double() - meant)[inside].norm() / meant[inside].norm()
            assert error < TOLERANCE.get(out.dtype, 1e-6), (out.shape, float(error))
            assert not out[~inside].any(), "the kernel wrote where nothing belongs"


NOTHING = [None, None, None]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("size", "channels_in", "low", "following", "pool", "store", "config"),
    [
        *[(size, 32, True, True, False, True, config) for size in SIZES for config in (SMALL, TMA)],
        *[(size, 32, False, True, False, True, config) for size in ODD_SIZES for config in (SMALL, TMA)],
        *[(size, 32, False, True, True, True, SMALL) for size in SIZES],
        (SIZES[0], 32, False, False, False, True, SMALL),
        (SIZES[0], 32, False, False, False, True, TMA),
        (SIZES[0], 64, False, False, True, False, SMALL),  # the stem: projected skip, only the pooled result is stored
        (SIZES[1], 16, True, True, True, True, SMALL),
        (SIZES[0], 16, True, True, True, True, DEEP),  # a projected skip narrower than one product
        (SIZES[1], 64, False, True, False, True, DEEP),
        (SIZES[1], 16, True, True, False, True, TMA),  # a projected skip goes by pointers whatever the table says
        *[(size, 32, True, True, True, True, PARTS) for size in SIZES],
        (ODD_SIZES[0], 32, False, True, False, True, replace(PARTS, parts=8)),  # more than there are channels for
        (ODD_SIZES[2], 32, False, False, False, True, PARTS),
        (SIZES[1], 32, True, True, False, True, replace(TMA, parts=2)),
    ],
)  # fmt: skip
def test_bottleneck(
    dtype: torch.dtype,
    size: tuple[int, int, int],
    channels_in: int,
    low: bool,
    following: bool,
    pool: bool,
    store: bool,
    config: Config,
) -> None:
    case, grid, feats, channels = Case(dtype), Grid(*size), 16, 32
    half = grid.half() if low or pool else grid
    inputs = [
        reference.F.relu(case.images(grid, feats)),
        case.images(grid, channels_in),
        case.weight(9, feats, feats),
        case.bias(feats),
        case.weight(feats, channels),
        case.bias(channels),
        case.weight(channels_in, channels) if channels_in != channels else None,
        case.images(half, channels) if low else None,
        *(case.projection(channels, 64) if following else NOTHING),
        *(case.projection(channels, 32) if pool else NOTHING),
    ]
    outputs = [
        case.out(grid, channels) if store else None,
        case.out(grid, 64) if following else None,
        case.out(half, channels) if pool else None,
        case.out(half, 32) if pool else None,
    ]
    check(OPS.bottleneck, inputs, outputs, size, config)


@pytest.mark.parametrize("following", [False, True])
def test_eight_programs_share_out_a_bottleneck_of_128_feats(following: bool) -> None:
    case, grid = Case(torch.float16), Grid(1, 4, 4)
    t, x, below = (case.images(*args) for args in ((grid, 128), (grid, 256), (grid.half(), 256)))
    weights = [case.weight(9, 128, 128), case.bias(128), case.weight(128, 256), case.bias(256), None]
    inputs = [t, x, *weights, below, *(case.projection(256, 128) if following else NOTHING), *NOTHING]
    outputs = [case.out(grid, 256), case.out(grid, 128) if following else None, None, None]
    check(OPS.bottleneck, inputs, outputs, (1, 4, 4), Config(16, 128, 64, parts=8))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("config", [SMALL, TMA, Config(64, 16, 16), Config(64, 16, 16, tma=True)])
@pytest.mark.parametrize("size", [SIZES[0], ODD_SIZES[0]])
def test_conv3x3(dtype: torch.dtype, config: Config, size: tuple[int, int, int]) -> None:
    case, grid = Case(dtype), Grid(*size)
    inputs = [case.images(grid, 16), case.weight(9, 16, 32), case.bias(32)]
    check(OPS.conv3x3, inputs, [case.out(grid, 32)], size, config)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("size", "joints", "merge", "following", "pool"),
    [
        (SIZES[0], 16, True, True, True),
        (SIZES[1], None, True, True, True),
        (ODD_SIZES[0], 17, True, True, False),
        (ODD_SIZES[1], 5, False, False, False),
    ],
)
def test_head(
    dtype: torch.dtype,
    size: tuple[int, int, int],
    joints: int | None,
    merge: bool,
    following: bool,
    pool: bool,
) -> None:
    case, grid, channels = Case(dtype), Grid(*size), 32
    half, padded = grid.half() if pool else grid, padded_channels(joints or 1)
    inputs = [
        case.images(grid, channels),
        case.weight(channels, channels),
        case.bias(channels),
        *((case.weight(channels, padded), case.bias(padded)) if joints else NOTHING[:2]),
        *((case.images(grid, channels), case.weight(channels, channels), case.bias(channels)) if merge else NOTHING),
        *(case.projection(channels, 16) if following else NOTHING),
        *(case.projection(channels, 32) if pool else NOTHING),
    ]
    outputs = [
        torch.full((size[0], joints, *size[1:]), math.nan, dtype=dtype) if joints else None,
        case.out(grid, channels) if merge else None,
        case.out(grid, 16) if following else None,
        case.out(half, channels) if pool else None,
        case.out(half, 32) if pool else None,
    ]
    check(OPS.head, inputs, outputs, size, SMALL)


def test_the_last_head_keeps_float32_after_halves() -> None:
    """What is stored in fp16 alone is y: features of fp16 would be off by 3e-4."""
    case, grid, joints = Case(torch.float16), Grid(*SIZES[0]), 5
    y, exact = case.images(grid, 64), Case(torch.float32)
    weights = [exact.weight(64, 64), exact.bias(64), exact.weight(64, 16), exact.bias(16)]
    heatmaps = torch.full((grid.batch, joints, grid.height, grid.width), math.nan)
    check(OPS.head, [y, *weights, *[None] * 9], [heatmaps, None, None, None, None], SIZES[0], DEEP)


@pytest.mark.parametrize("config", [SMALL, TMA, PARTS])
@pytest.mark.parametrize("pool", [False, True])
def test_a_float32_trunk_beside_halves_is_added_to_without_rounding(config: Config, pool: bool) -> None:
    case, grid, exact = Case(torch.float16), Grid(*SIZES[0]), Case(torch.float32)
    half = grid.half()
    inputs = [
        torch.zeros_like(case.images(grid, 16)),
        exact.images(grid, 32),
        case.weight(9, 16, 16),
        torch.zeros(16),
        case.weight(16, 32),
        case.bias(32),
        None,
        exact.images(half, 32),
        *case.projection(32, 32),
        *(case.projection(32, 32) if pool else NOTHING),
    ]
    outputs = [exact.out(grid, 32), case.out(grid, 32), exact.out(half, 32) if pool else None]
    outputs.append(case.out(half, 32) if pool else None)
    check(OPS.bottleneck, inputs, outputs, SIZES[0], config)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("low", [False, True])
@pytest.mark.parametrize("config", [SMALL, PARTS])
def test_expand(dtype: torch.dtype, low: bool, config: Config) -> None:
    case, grid = Case(dtype), Grid(*SIZES[1])
    weights = [case.weight(16, 32), case.bias(32), None]
    below = case.images(grid.half(), 32) if low else None
    inputs = [case.images(grid, 16), case.images(grid, 32), *weights, below, *case.projection(32, 32), *NOTHING]
    check(OPS.expand, inputs, [case.out(grid, 32), case.out(grid, 32), None, None], SIZES[1], config)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 3, 16, 20), (1, 3, 7, 9)])
def test_stem(dtype: torch.dtype, shape: tuple[int, int, int, int]) -> None:
    case, grid = Case(dtype), Grid(shape[0], (shape[2] + 1) // 2, (shape[3] + 1) // 2)
    inputs = [torch.randn(shape), case.weight(7, 32, 32), case.bias(32), True, *case.projection(32, 16)]
    outputs = [case.out(grid, 32), case.out(grid, 16), None]
    check(OPS.stem, inputs, outputs, (), SMALL)


def combined(partials: Tensor) -> Tensor:
    """Count, mean and variance of each image, from its partial statistics, by the textbook."""
    count, mean, squares = partials.double().unbind(2)
    total = count.sum(1)
    centre = (count * mean).sum(1) / total
    second = (squares + count * mean.square()).sum(1) / total
    return torch.stack([total, centre, second - centre.square()], dim=1)


def check_with_statistics(
    operator: Any, inputs: list, out: Tensor, grid: Grid, shape: tuple, config: Config = SMALL
) -> None:
    """As `check`, for a kernel that also writes the statistics of what it stores, over what another one left."""
    partials, expected, expected_partials = (
        torch.full_like(grid.empty_partials(), 1e3),
        out.double(),
        grid.empty_partials().double(),
    )
    operator(*as_double(inputs), expected, expected_partials, *shape)
    run(operator, [*inputs, out, partials, *shape], config)
    assert (out.double() - expected).norm() / expected.norm() < TOLERANCE[out.dtype]
    torch.testing.assert_close(combined(partials), combined(expected_partials), rtol=1e-3, atol=1e-4)
    stored = grid.images(out).double().flatten(1)
    exact = torch.stack(
        [stored.new_tensor([stored.shape[1]]).expand(len(stored)), stored.mean(1), stored.var(1, False)], 1
    )
    torch.testing.assert_close(combined(partials), exact, rtol=1e-5, atol=1e-6)


def normed_input(case: Case, grid: Grid, channels: int) -> tuple[Tensor, Tensor, Tensor, float]:
    """Images far from zero mean, their statistics in uneven tiles, gamma and beta, eps."""
    x = case.images(grid, channels)
    grid.pixels(x).add_(3)
    partials = grid.empty_partials()
    for n, image in enumerate(grid.images(x).double().flatten(2)):
        for i, part in enumerate(image.split(STATISTICS_PIXELS, dim=1)):
            mean = part.mean()
            partials[n, i] = torch.stack([mean.new_tensor(part.numel()), mean, (part - mean).square().sum()])
    return x, partials, 1 + 0.1 * torch.randn(2, channels), 1e-5


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("size", "config"), [((2, 12, 10), SMALL), ((1, 2, 2), SMALL), ((2, 12, 10), DEEP)], ids=str)
def test_group_norm_kernels(dtype: torch.dtype, size: tuple[int, int, int], config: Config) -> None:
    case, grid = Case(dtype), Grid(*size)
    half, feats, channels = grid.half(), 32, 64
    normed = normed_input(case, grid, feats)
    conv = [case.weight(feats, channels), case.bias(channels)]
    residual = [case.images(grid, 16), case.weight(16, channels), case.images(half, channels)]
    ops_, out = torch.ops.fasthg, case.out(grid, channels)
    wide = torch.randn(64, channels).to(dtype) / 8
    skips = (residual, [case.images(grid, 64), wide, None])  # narrower and wider than what is convolved
    plain = [normed[0], None, None, 1e-5, *conv, None, None, None]
    for inputs in (*([*normed, *conv, *skip] for skip in skips), plain):
        check_with_statistics(ops_.norm_conv1x1, inputs, out, grid, size, config)
    inputs = [*normed, case.weight(9, feats, channels), case.bias(channels)]
    check_with_statistics(ops_.norm_conv3x3, inputs, case.out(grid, channels), grid, size, config)
    check_with_statistics(ops_.normalise, [*normed], case.out(grid, feats), grid, size, config)
    check_with_statistics(ops_.max_pool, [normed[0]], case.out(half, feats), half, size, config)


def test_stem_leaves_statistics_for_a_group_norm() -> None:
    case, grid = Case(torch.float16), Grid(2, 12, 10)
    inputs = [torch.randn(2, 3, 24, 20), case.weight(7, 32, 32), case.bias(32), False, *NOTHING]

    def without_t(*arguments: Any) -> None:
        OPS.stem(*arguments[:-1], None, arguments[-1])

    check_with_statistics(without_t, inputs, case.out(grid, 32), grid, ())


@pytest.mark.parametrize("shape", [(2, 3, 64, 64), (1, 2, 5, 7), (1, 1, 96, 80)])
def test_decode_heatmaps(shape: tuple[int, int, int, int]) -> None:
    maps = torch.randn(shape).mul(8).round().div(8)  # many equal values
    maps[0, 0, 2, 3] = math.nan
    points, scores = heatmaps.decode_heatmaps(maps)
    expected_points, expected_scores = reference.decode_heatmaps(maps)
    torch.testing.assert_close(scores, expected_scores, rtol=0, atol=0, equal_nan=True)
    finite = ~expected_scores.isnan()
    assert torch.equal(points[finite], expected_points[finite])


@pytest.mark.parametrize("size", [(64, 64), (17, 70)])
def test_render_targets(size: tuple[int, int]) -> None:
    points, weights = torch.rand(2, 5, 2) * 80 - 8, (torch.rand(2, 5) > 0.2).float()
    points[0, 0] = math.nan
    expected = ops.render_targets(points, weights, *size, 1.5)
    torch.testing.assert_close(heatmaps.render_targets(points, weights, *size, 1.5), expected, rtol=0, atol=1e-6)
