"""How many stacks run: as many as asked for, as a budget allows, or until two of them agree."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

import fasthg
from fasthg.errors import FasthgError
from fasthg.network.model import HourglassNet
from fasthg.network.variants import HourglassConfig
from fasthg.pixels.heatmap import decode
from fasthg.predict import depth
from fasthg.predict.depth import Depth, cut, leave_early, parse_budget
from fasthg.predict.load import load_runner
from fasthg.runtimes.paths import PATHS

CONFIG = HourglassConfig(num_stacks=4, num_feats=8, depths=1, stem_feats=(8, 8))


@pytest.fixture(scope="module")
def net() -> HourglassNet:
    torch.manual_seed(3)
    return HourglassNet(CONFIG).eval()


@pytest.mark.parametrize("path", ["eager", "channels_last", "fused", "onnxruntime"])
@torch.inference_mode()
def test_every_path_runs_the_first_stacks(net: HourglassNet, path: str) -> None:
    if reason := PATHS[path].why_not("cpu"):
        pytest.skip(reason)
    images = torch.rand(2, 3, 64, 64)
    served = load_runner(net, runtime=path, device="cpu", batch_size=2, size=64, depth=Depth(stacks=2))
    expected = net.all_heatmaps(images)
    error = [((served.runner(images) - other).norm() / other.norm()).item() for other in expected]
    assert error[1] < 1e-5 < min(error[0], error[2], error[3])
    assert "the first 2 of 4 stacks" in served.why


@pytest.mark.parametrize(("budget", "count"), [(10, 1), (29.9, 2), (30, 3), (1000, 4)])
def test_a_budget_takes_the_deepest_that_fits(net, budget: float, count: int, monkeypatch) -> None:
    monkeypatch.setattr(depth, "remembered_ms", lambda model, *_: 10.0 * model.config.num_stacks)
    model, chosen = cut(net, Depth(budget_ms=budget), "eager", torch.zeros(1, 3, 64, 64))
    assert model.config.num_stacks == count
    assert chosen == f"{count} of 4 stacks take {10 * count} ms a person here, budget {budget:g} ms"


def test_a_budget_for_not_even_one_stack_is_refused(net, monkeypatch) -> None:
    monkeypatch.setattr(depth, "remembered_ms", lambda model, *_: 10.0 * model.config.num_stacks)
    with pytest.raises(FasthgError, match=r"budget 9 ms: the first stack alone takes 10 ms a person by eager here"):
        cut(net, Depth(budget_ms=9), "eager", torch.zeros(1, 3, 64, 64))


def test_a_time_is_measured_once_for_each_network_and_condition(net, monkeypatch, tmp_path) -> None:
    measured = []
    monkeypatch.setattr(depth, "default_cache_dir", lambda: tmp_path)
    monkeypatch.setattr(depth, "measured_ms", lambda *_: measured.append(1) or 7.0)
    for batch in (1, 1, 2, 1):
        assert depth.remembered_ms(net, "eager", torch.zeros(batch, 3, 64, 64), "cpu", 1, "latency") == 7.0
    assert len(measured) == 2
    (tmp_path / "depth.json").write_text("{damaged")
    assert depth.remembered_ms(net, "eager", torch.zeros(1, 3, 64, 64), "cpu", 1, "latency") == 7.0
    assert len(measured) == 3


@pytest.mark.parametrize(("text", "ms"), [("40ms", 40), ("0.04s", 40), ("40", 40), (" 1.5 ms ", 1.5)])
def test_a_budget_is_a_time(text: str, ms: float) -> None:
    assert parse_budget(text) == pytest.approx(ms)


@pytest.mark.parametrize("text", ["", "0ms", "-4ms", "fast", "4 min", "nanms"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(FasthgError, match="is no time; give milliseconds a person, such as 40ms"):
        parse_budget(text)


@torch.inference_mode()
def test_each_person_leaves_after_the_stack_that_agrees_with_the_one_before(net: HourglassNet) -> None:
    """Against all stacks run in full: the first whose joints all lie near those of the stack before."""
    images = torch.rand(6, 3, 64, 64)
    stacks = net.all_heatmaps(images)
    points = [decode(heatmaps)[0] for heatmaps in stacks]
    moved = torch.stack([(b - a).norm(dim=-1).amax(-1) for a, b in pairwise(points)])  # [3, 6]
    tolerance = moved[:2].median().item()
    runner = leave_early(net, tolerance, "eager", images, "cpu")
    answer, left = runner(images), runner.run.exits
    places = [next((i for i in range(3) if moved[i, row] <= tolerance), 2) + 2 for row in range(6)]
    assert len(set(places)) > 1
    for row, place in enumerate(places):
        torch.testing.assert_close(answer[row], stacks[place - 1][row])
    assert left == {place: places.count(place) for place in set(places)}


@torch.inference_mode()
def test_a_tolerance_of_everything_leaves_after_the_second_stack(net: HourglassNet) -> None:
    images = torch.rand(3, 3, 64, 64)
    runner = leave_early(net, 1e9, "channels_last", images, "cpu")
    torch.testing.assert_close(runner(images), net.all_heatmaps(images)[1])
    assert runner.run.exits == {2: 3}
    runner(torch.cat([images[:1], images[-1:], images[-1:]]))  # a batch that is filled up
    assert runner.run.exits == {2: 5}


def test_a_path_that_runs_in_one_go_does_not_leave_early(net: HourglassNet) -> None:
    with pytest.raises(FasthgError, match="early exit stops between stacks, which fused cannot"):
        load_runner(net, runtime="fused", device="cpu", size=64, depth=Depth(early_exit=1.0))


def test_only_one_way_to_choose() -> None:
    with pytest.raises(FasthgError, match="stacks and budget_ms both given"):
        Depth(stacks=1, budget_ms=3)
    with pytest.raises(FasthgError, match="budget is nan"):
        Depth(budget_ms=float("nan"))


def test_a_predictor_says_what_it_chose(net: HourglassNet) -> None:
    predictor = fasthg.Predictor(net, runtime="eager", device="cpu", size=64, depth=Depth(budget_ms=1e6))
    assert "4 of 4 stacks take" in predictor.choice
    (pose,) = predictor(np.zeros((64, 64, 3), np.uint8))
    assert pose.joints.shape == (16, 2)
