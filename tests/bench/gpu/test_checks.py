"""The checks of a GPU run see what is wrong: faults are put into plain PyTorch, beside the operators that are right."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.gpu.calls import Call, Oracle, distinct_calls
from bench.gpu.checks import check_calls, expected_heatmaps, lively, relative_error, run_poisoned
from fasthg.fused.net import FusedNet
from fasthg.fused.streams import InOrder
from fasthg.kernels.layout import STATISTICS_PIXELS, Grid
from fasthg.kernels.ops import plain
from fasthg.network.model import HourglassNet
from fasthg.network.variants import HourglassConfig

FOLDED = HourglassConfig(num_stacks=1, num_feats=16, depths=1, num_convs=4, stem_feats=(16, 16))
LAYER = HourglassConfig(num_stacks=1, num_feats=16, depths=1, norm="layer", stem_feats=(16, 16))


def network(config: HourglassConfig) -> tuple[HourglassNet, FusedNet, Tensor]:
    model, images = lively(config), torch.rand(1, 3, 32, 32) - 0.4 + torch.linspace(-2, 2, 32)[:, None]
    return model, FusedNet(model, images, torch.float32, InOrder(beside=True)), images


def after(monkeypatch: pytest.MonkeyPatch, name: str, fault: Callable[..., None]) -> None:
    """Have an operator end with `fault`, in float64 excepted, which is what others are held to."""
    right = getattr(plain, name)

    def wrong(*arguments: Any) -> None:
        right(*arguments)
        if arguments[0].dtype != torch.float64:
            fault(*arguments)

    monkeypatch.setattr(plain, name, wrong)


def errors(config: HourglassConfig) -> dict[str, float]:
    """The largest error of each operator's calls."""
    _, fused, images = network(config)
    found: dict[str, float] = {}
    for call, error in check_calls(fused, images):
        found[call.operator] = max(error, found.get(call.operator, 0.0))
    return found


@pytest.mark.parametrize("config", [FOLDED, LAYER], ids=["folded", "layer"])
def test_right_operators_pass(config: HourglassConfig) -> None:
    found = errors(config)
    assert len(found) >= 5
    assert max(found.values()) < 1e-5


def scale(_t: Tensor, _conv: Any, t_out: Tensor, _grid: Grid) -> None:
    t_out.mul_(1.001)


def write_a_border(_t: Tensor, _conv: Any, t_out: Tensor, grid: Grid) -> None:
    t_out[grid.lead - 1] = 1.0


def leave_a_pixel(_t: Tensor, _conv: Any, t_out: Tensor, grid: Grid) -> None:
    grid.pixels(t_out)[0, 0, 0] = math.nan


def test_a_convolution_that_is_a_little_off_is_seen_in_its_own_calls_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    after(monkeypatch, "conv3x3", scale)
    found = errors(FOLDED)
    assert found.pop("conv3x3") == pytest.approx(1e-3, rel=0.01)
    assert max(found.values()) < 1e-5


@pytest.mark.parametrize("fault", [write_a_border, leave_a_pixel])
def test_a_written_border_and_a_pixel_left_out_are_seen(
    fault: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    after(monkeypatch, "conv3x3", fault)
    assert errors(FOLDED)["conv3x3"] == math.inf


def pooled_call() -> tuple[Call, Grid]:
    _, fused, images = network(LAYER)
    fused(images)
    call = next(call for call in distinct_calls(fused, tuple(images.shape)) if call.operator == "max_pool")
    return call, Grid(*call.step.arguments[-3:]).half()


def merge(partials: Tensor) -> None:
    """Statistics as a longer tile leaves them: all of its entries in the first."""
    count, mean, squares = partials.double().unbind(2)
    total = count.sum(1)
    centre = (count * mean).sum(1) / total
    partials.zero_()
    partials[:, 0, 0], partials[:, 0, 1] = total, centre
    partials[:, 0, 2] = (squares + count * (mean - centre[:, None]).square()).sum(1)


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        (merge, False),
        (lambda partials: partials[:, 1].copy_(partials[:, 0]), True),
        (lambda partials: partials[..., 1].add_(0.1), True),
        (lambda partials: partials[..., 2].mul_(1.1), True),
        (lambda partials: partials[:, 0].fill_(math.nan), True),
    ],
    ids=["in longer tiles", "an entry twice", "means", "deviations", "an entry not written"],
)
def test_partial_statistics_are_judged_by_what_they_mean(
    fault: Callable[[Tensor], None], seen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, grid = pooled_call()
    assert grid.height * grid.width > STATISTICS_PIXELS, "several entries"
    after(monkeypatch, "max_pool", lambda _x, _out, partials, _grid: fault(partials))
    assert (Oracle(call).relative_error() > call.tolerance) == seen


def test_a_network_over_poisoned_memory_shows_what_was_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    model, fused, images = network(FOLDED)
    expected = expected_heatmaps(model, images)
    assert relative_error(run_poisoned(fused, images), expected) < 1e-5
    after(monkeypatch, "conv3x3", leave_a_pixel)
    assert relative_error(run_poisoned(fused, images), expected) == math.inf
    monkeypatch.undo()
    after(monkeypatch, "conv3x3", write_a_border)
    with pytest.raises(ValueError, match=r"a border of .* is not zero"):
        run_poisoned(fused, images)
