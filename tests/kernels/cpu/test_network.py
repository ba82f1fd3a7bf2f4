"""The CPU core computes what the operators' references mean, on every instruction set that this machine has."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from fasthg.kernels.layout import Grid, pack_stem

_native = pytest.importorskip("fasthg.kernels.cpu._native")

from fasthg.fused.net import fuse  # noqa: E402
from fasthg.kernels.cpu import network  # noqa: E402
from fasthg.network.model import HourglassNet  # noqa: E402
from fasthg.network.variants import HourglassConfig  # noqa: E402

OPS = torch.ops.fasthg
SETS = _native.instruction_sets()
GRIDS = [Grid(1, 8, 8), Grid(2, 16, 20), Grid(1, 6, 10), Grid(3, 2, 2), Grid(1, 4, 4), Grid(1, 2, 4), Grid(1, 64, 64)]


@pytest.fixture(params=SETS)
def instruction_set(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("FASTHG_CPU_ISA", request.param)
    return request.param


def call_of(name: str, grid: Grid, skip: bool, feats: int, channels: int) -> tuple[Any, ...]:
    """Arguments of one operator, float64; outputs hold what must be overwritten."""
    half = grid.half()

    def r(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64) / (shape[-2] if len(shape) > 1 else 1) ** 0.5

    def x(channels: int, where: Grid = grid) -> Tensor:
        return where.pack(torch.randn(where.batch, channels, where.height, where.width, dtype=torch.float64))

    def statistics(where: Grid = grid) -> Tensor:
        partials = where.empty_partials(dtype=torch.float64)
        partials[:, 0] = torch.tensor([100.0, 0.1, 90.0])
        return partials

    conv, expand = (r(9, feats, feats) / 3, r(feats)), (r(feats, channels), r(channels))
    residual = (x(32 if skip else channels), r(32, channels) if skip else None)
    reader = (r(2, channels), r(channels, feats), r(feats))
    outs = (x(channels), x(feats), x(channels, half), x(feats, half))
    square = (r(channels, channels), r(channels))
    images = torch.randn(grid.batch, 3, 2 * grid.height, 2 * grid.width - 1, dtype=torch.float64)
    heatmaps = torch.randn(grid.batch, 13, grid.height, grid.width, dtype=torch.float64)
    norm = (statistics(), r(2, feats), 1e-5)
    calls: dict[str, tuple[Any, ...]] = {
        "stem": (images, r(7, 32, channels), r(channels), True, *reader, outs[0], outs[1], statistics()),
        "conv3x3": (x(feats), *conv, x(feats), *grid.size),
        "bottleneck": (x(feats), residual[0], *conv, *expand, residual[1], x(channels, half), *reader, *reader, *outs,
                       *grid.size),
        "head": (x(channels), *square, r(channels, 16), r(16), x(channels), *square, *reader, *reader, heatmaps, *outs,
                 *grid.size),
        "max_pool": (x(channels), x(channels, half), statistics(half), *grid.size),
        "normalise": (x(feats), *norm, x(feats), statistics(), *grid.size),
        "norm_conv1x1": (x(feats), *norm, *expand, *residual, x(channels, half), outs[0], statistics(), *grid.size),
        "norm_conv3x3": (x(feats), *norm, *conv, x(feats), statistics(), *grid.size),
    }  # fmt: skip
    return calls[name]


def written(name: str) -> list[int]:
    arguments = getattr(OPS, name).default._schema.arguments
    return [i for i, argument in enumerate(arguments) if argument.alias_info is not None]


def combined(tensor: Tensor) -> Tensor:
    """What partial statistics add up to; how they are parted is the implementation's."""
    count, mean, squares = tensor.double().unbind(2)
    total = count.sum(1)
    centre = (count * mean).sum(1) / total
    return torch.stack([total, centre, (squares + count * (mean - centre[:, None]) ** 2).sum(1)], 1)


@pytest.mark.parametrize("name", [n for n in network.operators() if n != "expand"])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize(("skip", "feats", "channels"), [(False, 16, 64), (True, 64, 128)])
def test_operators_equal_their_reference_in_float64(
    instruction_set: str, name: str, grid: Grid, skip: bool, feats: int, channels: int
) -> None:
    call = call_of(name, grid, skip, feats, channels)
    narrow = tuple(a.float() if isinstance(a, Tensor) else a for a in call)
    kept = {i: a.clone() for i, a in enumerate(narrow) if isinstance(a, Tensor)}
    network.Program([(name, narrow)])()
    getattr(OPS, name)(*call)
    for i, before in kept.items():
        if i not in written(name):
            assert torch.equal(narrow[i], before), f"argument {i} was changed"
            continue
        found, expected = narrow[i].double(), call[i]
        if expected.shape[-1] == 3 and expected.ndim == 3:
            found, expected = combined(found), combined(expected)
        assert (found - expected).norm() < 3e-6 * expected.norm(), f"argument {i}"


def test_one_network_on_every_instruction_set_and_several_threads(instruction_set: str) -> None:
    config = HourglassConfig(num_stacks=2, num_feats=32, depths=3, num_convs=4)
    model, images = HourglassNet(config).eval(), torch.rand(2, 3, 96, 64)
    with torch.inference_mode():
        expected = model.double().final(images.double())
    fused, threads = fuse(model.float(), images, torch.float32), torch.get_num_threads()
    try:
        answers = []
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            answers += [fused(images) for _ in range(10)]
    finally:
        torch.set_num_threads(threads)
    assert (answers[0].double() - expected).norm() < 1e-5 * expected.norm()
    assert all(torch.equal(answer, answers[0]) for answer in answers), "how work is shared out changes no number"


def test_a_weight_that_changes_is_packed_again() -> None:
    grid = Grid(1, 8, 8)
    t, out = grid.pack(torch.randn(1, 16, 8, 8)), grid.empty(16, torch.float32)
    weight, bias = torch.randn(9, 16, 16), torch.zeros(16)
    network.Program([("conv3x3", (t, weight, bias, out, *grid.size))])()
    first = out.clone()
    weight *= 2
    network.Program([("conv3x3", (t, weight, bias, out, *grid.size))])()
    torch.testing.assert_close(out, 2 * first)


def test_nan_is_not_hidden_by_a_relu(instruction_set: str) -> None:
    grid = Grid(1, 8, 8)
    t, out = grid.pack(torch.full((1, 16, 8, 8), torch.nan)), grid.empty(16, torch.float32)
    network.Program([("conv3x3", (t, torch.randn(9, 16, 16), torch.zeros(16), out, *grid.size))])()
    assert grid.images(out).isnan().all()


def test_an_instruction_set_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTHG_CPU_ISA", "avx1024")
    with pytest.raises(ValueError, match=r"FASTHG_CPU_ISA is 'avx1024'; this machine has .*portable"):
        network.Program([])
    assert "FASTHG_CPU_ISA is 'avx1024'; this machine has" in (network.unavailable("fp32") or "")


def test_arrays_that_do_not_fit_are_refused_before_anything_runs() -> None:
    grid = Grid(1, 8, 8)
    t = grid.pack(torch.randn(1, 16, 8, 8))
    step = _native.Step(*grid.size)
    with pytest.raises(ValueError, match="too short for its grid"):
        step.rows(t[200:])
    with pytest.raises(TypeError):
        step.rows(t.half())
    with pytest.raises(TypeError):
        step.rows(t.t())
    step.rows(t)
    with pytest.raises(ValueError, match="a weight has 32 inputs where 16 fit"):
        step.expand(_native.Packed(torch.randn(32, 16)), torch.zeros(16), False)
    for inputs, arithmetic, pair in ((7, "fp32", 2), (6, "int12", 4), (12, "int8", 8)):
        if arithmetic in _native.arithmetics():
            with pytest.raises(ValueError, match=f"a weight in {arithmetic} needs a multiple of {pair} inputs"):
                _native.Packed(torch.randn(inputs, 16), arithmetic)


@pytest.fixture
def needs_halves() -> None:
    if reason := network.unavailable("bf16"):
        pytest.skip(reason)


@pytest.fixture
def needs_integers(instruction_set: str) -> None:
    if reason := network.unavailable("int12"):
        pytest.skip(f"{instruction_set}: {reason}")


def fixed_point_and_exact(images: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """A 3x3 convolution and its ReLU in int12 and in fp32, [N, C, H, W]."""
    batch, feats, height, width = images.shape
    grid, bias = Grid(batch, height, width), torch.zeros(feats)
    outs = []
    for precision in ("int12", "fp32"):
        outs.append(grid.empty(feats, torch.float32))
        network.Program([("conv3x3", (grid.pack(images), weight, bias, outs[-1], *grid.size))], precision)()
    return grid.images(outs[0]), grid.images(outs[1])


@pytest.mark.usefixtures("needs_integers")
@pytest.mark.parametrize("weights", ["random", "all alike"])
@pytest.mark.parametrize("feats", [16, 64, 128])
def test_fixed_point_convolution_is_as_near_as_bf16_and_no_input_overflows_it(feats: int, weights: str) -> None:
    """With weights and pixels all alike, every product of a sum is as large as it can be."""
    weight = torch.randn(9, feats, feats) / feats**0.5 if weights == "random" else torch.full((9, feats, feats), 0.1)
    for images in (
        torch.randn(2, feats, 16, 20).relu(),
        1e6 * torch.ones(2, feats, 16, 20),
        torch.zeros(1, feats, 8, 8),
    ):
        found, exact = fixed_point_and_exact(images, weight)
        assert (found - exact).norm() <= 4e-3 * exact.norm()


@pytest.mark.usefixtures("needs_integers")
def test_a_bright_image_costs_a_dark_one_no_bits_nor_a_bright_place_a_dark_one_further_away() -> None:
    """Each tile of 4x4 pixels has its own scales, and sees one more pixel on each side."""
    images = torch.randn(2, 64, 16, 20).relu()
    images[0] *= 1e4
    images[1, :, :, 12:] *= 1e4
    found, exact = fixed_point_and_exact(images, torch.randn(9, 64, 64) / 8)
    for place in ((0, slice(None)), (1, slice(0, 8)), (1, slice(12, None))):
        part = (place[0], slice(None), slice(None), place[1])
        assert (found[part] - exact[part]).norm() <= 4e-3 * exact[part].norm()


@pytest.mark.usefixtures("needs_halves")
@pytest.mark.parametrize("side", [(32, 48), (13, 15), (5, 5)])
def test_a_rounded_stem_is_that_of_rounded_images_and_weights(side: tuple[int, int]) -> None:
    images, weight, bias = torch.rand(2, 3, *side) - 0.4, torch.randn(32, 3, 7, 7) / 12, torch.randn(32)
    grid = Grid(2, -(-side[0] // 2), -(-side[1] // 2))
    out, nothing = grid.empty(32, torch.float32), (None, None, None)
    call = (images, pack_stem(weight), bias, False, *nothing, out, None, None)
    network.Program([("stem", call)], "bf16")()
    exact = conv2d(images.bfloat16().double(), weight.bfloat16().double(), bias.double(), stride=2, padding=3)
    assert (grid.images(out) - exact).abs().max() < 1e-5


@pytest.mark.usefixtures("needs_integers")
@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
def test_fixed_point_convolution_says_nan_where_its_input_is_not_finite(bad: float) -> None:
    grid = Grid(1, 8, 8)
    images = torch.randn(1, 16, 8, 8)
    images[0, 3, 4, 4] = bad
    out = grid.empty(16, torch.float32)
    call = ("conv3x3", (grid.pack(images), torch.randn(9, 16, 16), torch.zeros(16), out, *grid.size))
    network.Program([call], "int12")()
    assert grid.images(out)[:, :, 3:6, 3:6].isnan().all()


def product(images: Tensor, weight: Tensor, precision: str) -> Tensor:
    """A 1x1 convolution, [N, C, H, W]."""
    grid, outputs = Grid(images.shape[0], *images.shape[2:]), weight.shape[1]
    out = grid.empty(outputs, torch.float32)
    nothing = (None, None, 0.0)
    call = (grid.pack(images), *nothing, weight, torch.zeros(outputs), None, None, None, out, None, *grid.size)
    network.Program([("norm_conv1x1", call)], precision)()
    return grid.images(out)


@pytest.mark.parametrize("inputs", [16, 256, 1024])
@pytest.mark.parametrize(("precision", "most"), [("int8+int12", 1.5e-2), ("int12", 1.5e-3)])
def test_integers_are_near_whatever_the_range_of_a_pixel_and_no_sum_overflows(
    instruction_set: str, inputs: int, precision: str, most: float
) -> None:
    if reason := network.unavailable(precision):
        pytest.skip(f"{instruction_set}: {reason}")
    signed = torch.randn(1, inputs, 8, 12)
    pixels = 10.0 ** torch.arange(-4.0, 4.0, 8 / 96).view(1, 1, 8, 12)
    for images in (signed, signed.relu(), -signed.relu(), signed * pixels, signed + 5, 1e6 * torch.ones_like(signed)):
        for weight in (torch.randn(inputs, 64) / inputs**0.5, torch.full((inputs, 64), 0.1)):
            found, exact = product(images, weight, precision), product(images, weight, "fp32")
            bound = images.norm(dim=1, keepdim=True) * weight.norm(dim=0).view(1, -1, 1, 1)
            assert ((found - exact).norm(dim=1) <= most * bound.norm(dim=1)).all()
    assert not product(torch.zeros(1, inputs, 8, 12), torch.randn(inputs, 64), precision).any()


@pytest.mark.parametrize("bad", [torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("precision", ["int8+int12", "int12"])
def test_a_pixel_that_is_not_finite_is_nan_in_integers_and_no_other_is(
    instruction_set: str, precision: str, bad: float
) -> None:
    if reason := network.unavailable(precision):
        pytest.skip(f"{instruction_set}: {reason}")
    images = torch.randn(1, 16, 8, 8)
    images[0, 3, 4, 5] = bad
    found = product(images, torch.randn(16, 32), precision).isnan().all(1)[0]
    assert found[4, 5]
    assert found.sum() == 1


@pytest.mark.parametrize("precision", ["int8+int12", "int12"])
@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
def test_a_weight_that_is_not_finite_is_not_hidden_by_integers(
    instruction_set: str, precision: str, bad: float
) -> None:
    if reason := network.unavailable(precision):
        pytest.skip(f"{instruction_set}: {reason}")
    weight, kernel = torch.randn(16, 32), torch.randn(9, 16, 16)
    weight[3, 5] = kernel[4, 3, 5] = bad
    found = product(torch.randn(1, 16, 8, 8), weight, precision).isfinite().all(3).all(2)[0]
    assert found.tolist() == [output != 5 for output in range(32)]
    grid, out = Grid(1, 8, 8), Grid(1, 8, 8).empty(16, torch.float32)
    call = (grid.pack(torch.randn(1, 16, 8, 8)), kernel, torch.zeros(16), out, *grid.size)
    network.Program([("conv3x3", call)], precision)()
    assert not grid.images(out)[:, 5].isfinite().any()
    assert grid.images(out)[:, :5].isfinite().all()


@pytest.mark.parametrize(
    ("precision", "least", "most"),
    [("int12", 2e-5, 2e-3), ("bf16", 1e-4, 1.5e-2), ("bf16+int12", 1e-4, 1.5e-2), ("int8+int12", 2e-3, 5e-2)],
)
@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_a_rounded_network_is_near_and_really_rounded(
    instruction_set: str, precision: str, least: float, most: float, norm: Any
) -> None:
    if reason := network.unavailable(precision):
        pytest.skip(f"{instruction_set}: {reason}")
    config = HourglassConfig(num_stacks=2, num_feats=32, depths=3, norm=norm)
    model, images = HourglassNet(config).eval(), torch.rand(2, 3, 96, 64)
    with torch.inference_mode():
        expected = model.final(images)
    error = (fuse(model, images, torch.float32, host_precision=precision)(images) - expected).norm() / expected.norm()
    assert least < error < most


def test_halves_are_refused_where_the_instruction_set_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTHG_CPU_ISA", "portable")
    assert "no AVX2 (or FASTHG_CPU_ISA hides it); use fp32" in (network.unavailable("int12") or "")
    assert "no AVX-512 BF16 and VNNI (or FASTHG_CPU_ISA hides it); use fp32" in (network.unavailable("bf16") or "")
    for name in ("bf16", "int8", "int12"):
        with pytest.raises(ValueError, match=f"portable has no {name}"):
            _native.Packed(torch.randn(16, 16), name)
    with pytest.raises(ValueError, match=r"packed in fp32, bf16, int12 or int8, a .* in fp32 or int12"):
        _native.Packed(torch.randn(9, 16, 16), "int8")
