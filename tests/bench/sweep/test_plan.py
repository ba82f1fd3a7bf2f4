"""Every cell that was asked for is in the plan or has its reason, and what may be missed comes last."""

import pytest
import torch

from bench.measure.record import Cell
from bench.sweep.__main__ import _first
from bench.sweep.plan import default_paths, grouped, plan, too_costly, why_not, with_precision
from bench.sweep.settings import Settings
from fasthg.errors import FasthgError
from fasthg.network.variants import VARIANTS
from fasthg.runtimes import pytorch
from fasthg.runtimes.paths import PATHS

INFER = Cell("small", "eager", "fp32", "infer", 1)


def cells_of(mode, **changes):
    asked = {"variants": tuple(VARIANTS), "paths": default_paths(False), "modes": (mode,), "batch_sizes": ()}
    return plan(**asked | changes, device="cpu")


def test_every_variant_meets_every_path():
    cells = [cell for cell in cells_of("infer") if cell.batch_size == 1]
    assert {(cell.variant, cell.path) for cell in cells} == {(variant, path) for variant in VARIANTS for path in PATHS}
    assert len(set(cells)) == len(cells)


def test_a_path_stands_in_the_precision_that_it_takes_by_itself():
    assert with_precision("amp", "cpu") == ("amp", "bf16")
    assert with_precision("amp", "cuda:0") == ("amp", "fp16")
    assert with_precision("openvino:bf16", "cpu") == ("openvino", "bf16")


def test_every_network_has_a_time_of_plain_paths_before_any_is_converted_and_of_those_before_any_is_refined():
    cells = plan(tuple(VARIANTS), default_paths(False), ("train", "infer", "loader"), (), "cpu")
    groups = grouped(cells, "cpu")
    assert [cell for group in groups for cell in group] == cells
    kinds = list(dict.fromkeys((g[0].mode, g[0].batch_size, tuple((c.path, c.precision) for c in g)) for g in groups))
    plain, steps, own, further = kinds[:4]
    assert plain == ("infer", 1, (("eager", "fp32"), ("channels_last", "fp32"), ("amp", "bf16")))
    assert steps == ("train", *plain[1:])
    assert {"fused", "onnxruntime", "openvino"} <= {path for path, precision in own[2] if precision == "fp32"}
    assert ("openvino", "bf16") in further[2]
    assert [cell.path for cell in cells if cell.mode == "train"][-1] == "compile"


def test_the_cheapest_networks_come_first():
    """5.0 GFLOP are those of `small`, 56.19 and 88.77 of the study's costliest."""
    cells = cells_of("infer", paths=("eager",), batch_sizes=(1,))
    assert [cells[0].variant, *(cell.variant for cell in cells[-2:])] == ["small", "original", "convs4"]


def test_batch_sizes_that_are_asked_for_replace_the_usual_ones():
    assert {cell.batch_size for cell in cells_of("infer", batch_sizes=(2, 8))} == {2, 8}


def test_only_paths_that_train_have_training_cells():
    assert {cell.path for cell in cells_of("train")} == {"eager", "channels_last", "amp", "compile"}


def test_what_cannot_run_here_says_so():
    assert "cuda only" in why_not(Cell("small", "tensorrt", "fp16", "infer", 1), "cpu")
    assert why_not(INFER, "cpu") == ""


@pytest.mark.parametrize(
    ("cell", "named"),
    [
        (Cell("small", "fused", "fp32", "infer", 1), ""),
        (Cell("small", "compile", "fp32", "train", 1), "--full"),
        (Cell("original", "compile", "fp32", "infer", 1), "--full"),
        (Cell("small", "compile", "fp32", "infer", 1), ""),
        (INFER, ""),
    ],
)
def test_what_is_left_out_says_how_to_get_it(cell, named):
    reason = too_costly(cell)
    assert named in reason
    assert bool(named) == bool(reason)


@pytest.mark.parametrize("changes", [{"variants": ("vast",)}, {"paths": ("warp",)}, {"batch_sizes": (0,)}])
def test_what_cannot_be_is_refused(changes):
    with pytest.raises(FasthgError):
        cells_of("infer", **changes)


def test_first_stacks_are_variants_of_a_sweep_with_the_weights_of_the_whole(tmp_path):
    assert [_first(name, 3) for name in ("original", "small", "stacks6")] == ["original@3", "small", "stacks6@3"]
    cells = plan(["small@1", "small"], ["eager"], ["infer"], [1], "cpu")
    assert [cell.variant for cell in cells] == ["small@1", "small"]  # the cheaper one first
    settings = Settings(cache=tmp_path, data=tmp_path)
    assert settings.trained("small@1") == settings.trained("small") is not None


@pytest.mark.parametrize("able", [True, False])
@pytest.mark.parametrize("cell", [Cell("small", path, "bf16", "infer", 1) for path in ("amp", "compile")])
def test_bf16_by_pytorch_is_measured_where_the_cpu_has_it(cell, able, monkeypatch):
    monkeypatch.setattr(pytorch, "has_bf16", lambda: able)
    assert why_not(cell, "cpu") == ("" if able else f"{cell.path}: {pytorch.unavailable(torch.device('cpu'), 'bf16')}")
