"""Every cell that was asked for is in the plan or has its reason, and what may be missed comes last."""

import pytest

from bench.measure.record import Cell
from bench.sweep.__main__ import _first
from bench.sweep.plan import default_paths, plan, too_costly, why_not, with_precision
from bench.sweep.settings import Settings
from fasthg.errors import FasthgError
from fasthg.network.variants import VARIANTS
from fasthg.runtimes.paths import PATHS

INFER = Cell("small", "eager", "fp32", "infer", 1)


def cells_of(mode, **changes):
    asked = {"variants": tuple(VARIANTS), "paths": default_paths(False), "modes": (mode,), "batch_sizes": ()}
    return plan(**asked | changes, device="cpu")


def test_every_variant_meets_every_path():
    cells = cells_of("infer")
    assert {(cell.variant, cell.path) for cell in cells} == {(variant, path) for variant in VARIANTS for path in PATHS}
    assert len(set(cells)) == len(cells)


def test_a_path_stands_in_the_precision_that_it_takes_by_itself():
    assert with_precision("amp", "cpu") == ("amp", "bf16")
    assert with_precision("amp", "cuda:0") == ("amp", "fp16")
    assert with_precision("openvino:bf16", "cpu") == ("openvino", "bf16")


def test_what_is_cheap_comes_first_and_training_of_the_largest_networks_last():
    """5.0 GFLOP are those of `small`, 43.45, 56.19 and 88.77 of the study's costliest; a step is three times that."""
    cells = plan(tuple(VARIANTS), default_paths(False), ("train", "infer", "loader"), (), "cpu")
    groups = list(dict.fromkeys((cell.mode, cell.variant) for cell in cells))
    assert groups[:2] == [("loader", "-"), ("infer", "small")]
    assert groups.index(("train", "small")) < groups.index(("infer", "stacks6"))
    assert groups[-3:] == [("train", variant) for variant in ("stacks6", "original", "convs4")]
    assert groups.index(("infer", "convs4")) < groups.index(("train", "stacks6"))


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
        (Cell("small", "fused", "fp32", "infer", 1), "--paths fused"),
        (Cell("small", "compile", "fp32", "train", 1), "--full"),
        (Cell("original", "compile", "fp32", "infer", 1), "--full"),
        (Cell("small", "compile", "fp32", "infer", 1), ""),
        (INFER, ""),
    ],
)
def test_what_is_left_out_says_how_to_get_it(cell, named):
    reason = too_costly(cell, "cpu")
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
