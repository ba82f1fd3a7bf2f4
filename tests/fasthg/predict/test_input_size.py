"""The side of the crops that a network was trained on goes with its weights and is what runs it where none is given."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fasthg import Predictor, create_model
from fasthg.cli.app import main
from fasthg.errors import FasthgError
from fasthg.network.checkpoint import load_config, load_model, save, variant_name
from fasthg.network.model import HourglassNet
from fasthg.network.variants import HourglassConfig, get_config
from training.recipes import Recipe

SIZE = 64


@pytest.fixture
def weights(tiny_config: HourglassConfig, tmp_path: Path) -> Path:
    file = tmp_path / "weights.safetensors"
    save(HourglassNet(replace(tiny_config, input_size=SIZE)).eval(), file)
    return file


@pytest.fixture
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (90, 80, 3), dtype=np.uint8)


def test_it_is_kept_in_checkpoints_and_comes_with_them(weights: Path, tiny_config: HourglassConfig) -> None:
    assert load_model(weights).config.input_size == SIZE
    assert create_model(tiny_config, weights=weights).config.input_size == SIZE


def test_files_from_before_are_of_256_pixels() -> None:
    assert HourglassConfig.from_dict({"num_stacks": 2}).input_size == 256


def test_it_makes_no_other_architecture() -> None:
    assert variant_name(replace(get_config("small"), input_size=128)) == "small"


@pytest.mark.parametrize("size", [0, -64, 64.0, "64"])
def test_sides_that_are_none_are_refused(size: object) -> None:
    with pytest.raises(FasthgError, match=f"input_size is {size!r}"):
        HourglassConfig(input_size=size)  # type: ignore[arg-type]


def test_predictions_take_it_where_none_is_given(weights: Path, photo: np.ndarray) -> None:
    usual, same, other = (Predictor(weights, device="cpu", size=size) for size in (None, SIZE, 2 * SIZE))
    assert (usual.size, other.size) == (SIZE, 2 * SIZE)
    joints = [predictor(photo)[0].joints for predictor in (usual, same, other)]
    np.testing.assert_array_equal(joints[0], joints[1])
    assert not np.array_equal(joints[0], joints[2])


def test_exports_are_of_it(weights: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    assert main(["export", "--weights", str(weights), "-o", str(tmp_path / "a")]) == 0
    assert json.loads((tmp_path / "a" / "metadata.json").read_text())["input"]["size"] == SIZE
    assert Predictor(tmp_path / "a", device="cpu").size == SIZE


def test_training_writes_its_own(tmp_path: Path) -> None:
    net = HourglassNet(Recipe(variant="small", size=128).config)
    save(net, tmp_path / "trained.safetensors")
    assert load_config(tmp_path / "trained.safetensors").input_size == 128
