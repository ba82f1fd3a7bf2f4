"""Every cell that was asked for is in the plan or has its reason, and what may be missed comes last."""

import pytest

from bench.measure.record import Cell
from bench.sweep.plan import default_paths, plan, why_not, with_precision
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


def test_training_of_the_largest_networks_comes_last():
    cells = plan(tuple(VARIANTS), default_paths(False), ("train", "infer", "loader"), (), "cpu")
    modes = [cell.mode for cell in cells]
    assert modes == sorted(modes, key=("loader", "infer", "train").index)
    trained = list(dict.fromkeys(cell.variant for cell in cells if cell.mode == "train"))
    # 5.0 GFLOP; 43.45, 56.19 and 88.77 of the study's three costliest.
    assert trained[0] == "small"
    assert trained[-3:] == ["stacks6", "original", "convs4"]


def test_batch_sizes_that_are_asked_for_replace_the_usual_ones():
    assert {cell.batch_size for cell in cells_of("infer", batch_sizes=(2, 8))} == {2, 8}


def test_only_paths_that_train_have_training_cells():
    assert {cell.path for cell in cells_of("train")} == {"eager", "channels_last", "amp", "compile"}


@pytest.mark.parametrize(
    ("cell", "asked_for", "named"),
    [
        (Cell("small", "tensorrt", "fp16", "infer", 1), True, "cuda only"),
        (Cell("small", "fused", "fp32", "infer", 1), False, "--paths fused"),
        (Cell("small", "fused", "fp32", "infer", 1), True, ""),
        (Cell("small", "compile", "fp32", "train", 1), False, "--full"),
        (Cell("small", "compile", "fp32", "train", 1), True, ""),
        (INFER, False, ""),
    ],
)
def test_what_is_left_out_says_how_to_get_it(cell, asked_for, named):
    reason = why_not(cell, "cpu", full=False, asked_for=asked_for)
    assert named in reason
    assert bool(named) == bool(reason)


@pytest.mark.parametrize("changes", [{"variants": ("vast",)}, {"paths": ("warp",)}, {"batch_sizes": (0,)}])
def test_what_cannot_be_is_refused(changes):
    with pytest.raises(FasthgError):
        cells_of("infer", **changes)
