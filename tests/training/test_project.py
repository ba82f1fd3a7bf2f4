"""A labelled project goes in as its tool wrote it, trains from weights that ship, and comes out as its own network."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fasthg.cli.app import main
from fasthg.data.dataset import load_dataset
from fasthg.errors import FasthgError
from fasthg.network.checkpoint import load_config, save
from fasthg.network.load import load_matching
from fasthg.network.model import HourglassNet
from fasthg.network.variants import HourglassConfig
from fasthg.pixels.skeleton import COCO, Skeleton
from fasthg.predict.predictor import Predictor
from training import train as command
from training.options import TrainOptions
from training.recipes import PROJECT, Recipe
from training.trainer import Trainer

TINY = HourglassConfig(num_stacks=1, num_feats=8, depths=1, stem_feats=(8, 8))
QUICK = {"num_workers": 0, "tensorboard": False, "progress": False, "device": "cpu"}


def recipe(**changes: object) -> Recipe:
    quick = Recipe(variant=TINY, size=64, batch_size=1, epochs=3, lr=1e-3, optimizer="adam", path="eager", ema=0.0)
    return replace(quick, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["ap10k", "horse10"])
def test_animals_train_three_steps_and_come_back_out(keypoints: Path, name: str, tmp_path: Path) -> None:
    data = keypoints / name
    options = TrainOptions(data=data, recipe=recipe(), out=tmp_path / "run", max_steps=3, **QUICK)  # type: ignore[arg-type]
    result = Trainer(options).run()
    assert (result.steps, np.isfinite(result.losses).all()) == (3, True)
    weights = tmp_path / "run" / "last.safetensors"
    skeleton = load_dataset(data, "all").people.skeleton
    assert load_config(weights).skeleton == skeleton
    picture = next(path for path in sorted(data.iterdir()) if path.suffix in (".jpg", ".png"))
    arguments = ["predict", str(picture), "--weights", str(weights), "--format", "coco,dlc", "--no-overlays"]
    boxes = ["--boxes", str(data / f"test_{name}.json"), *(["--category", "jaguar"] if name == "ap10k" else [])]
    assert main([*arguments, *boxes, "--path", "eager", "-o", str(tmp_path / "out")]) in (0, 2)
    assert main([*arguments, "--path", "eager", "-o", str(tmp_path / "whole")]) == 0
    category = json.loads((tmp_path / "whole" / "keypoints.json").read_text())["categories"][0]
    assert category["keypoints"] == list(skeleton.names)
    score = ["eval", "--data", str(data), "--weights", str(weights), "--path", "eager", "--size", "64"]
    assert main(score) == 0


def test_openfields_own_measure_gates_its_export(openfield: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    skeleton = load_dataset(openfield, "val").people.skeleton
    save(HourglassNet(replace(TINY, skeleton=skeleton)), tmp_path / "mouse.safetensors")
    arguments = ["export", "--onnx", "--end-to-end", "--size", "64", "--weights", str(tmp_path / "mouse.safetensors")]
    assert main([*arguments, "--data", str(openfield), "-o", str(tmp_path / "onnx")]) == 0
    metadata = json.loads((tmp_path / "onnx" / "metadata.json").read_text())
    assert metadata["comparison"]["protocol"] == "PCK-image@0.02"
    assert (metadata["comparison"]["num_crops"], metadata["joint_names"]) == (20, list(skeleton.names))
    predictor = Predictor(tmp_path / "onnx")
    assert predictor.skeleton == skeleton
    assert predictor(openfield / "labeled-data" / "m4s1" / "img0000.png")[0].joints.shape == (4, 2)


def test_a_project_has_defaults_of_its_own(openfield: Path, tiny_dataset: Path) -> None:
    options = command.build_options(None, {"data": openfield, "lr": 3e-4})
    assert options.recipe == replace(PROJECT, lr=3e-4)
    assert options.patience > 0
    people = command.build_options(None, {"data": tiny_dataset})
    assert (people.recipe, people.patience) == (Recipe(), 0)


def test_training_stops_once_nothing_gets_better(openfield: Path, tmp_path: Path) -> None:
    """A learning rate of next to nothing changes nothing, so the first validation stays the best."""
    still = recipe(lr=1e-12, batch_size=48, epochs=9, freeze_norm=True)
    options = TrainOptions(data=openfield, recipe=still, out=tmp_path / "run", patience=2, **QUICK)  # type: ignore[arg-type]
    trainer = Trainer(options)
    result = trainer.run()
    assert len(result.history) == 3
    assert result.steps == 6
    again = Trainer(replace(options, resume=True))
    assert again.since_best == 2


class TestMatchingLayers:
    @pytest.fixture
    def weights(self, tmp_path: Path) -> Path:
        save(HourglassNet(TINY), tmp_path / "people.safetensors")
        return tmp_path / "people.safetensors"

    def test_everything_but_the_heatmaps_is_taken(self, weights: Path) -> None:
        mouse = HourglassNet(replace(TINY, skeleton=Skeleton("mouse", ("snout", "tail"))))
        matched = load_matching(mouse, weights)
        assert {name.rpartition(".")[0] for name in matched.fresh} == {"stacks.0.score"}
        assert str(matched).endswith("match; fresh: stacks.0.score")
        theirs = HourglassNet(TINY)
        assert load_matching(theirs, weights).fresh == ()
        assert (mouse.stem.conv.weight == theirs.stem.conv.weight).all()

    def test_other_points_in_the_same_number_keep_fresh_heatmaps(self, weights: Path, tmp_path: Path) -> None:
        save(HourglassNet(replace(TINY, skeleton=COCO)), tmp_path / "coco.safetensors")
        animal = replace(COCO, name="animal", names=tuple(f"a{i}" for i in range(len(COCO))))
        net = HourglassNet(replace(TINY, skeleton=animal))
        before = net.stacks[0].score.weight.clone()
        assert any("score" in name for name in load_matching(net, tmp_path / "coco.safetensors").fresh)
        assert (net.stacks[0].score.weight == before).all()

    def test_a_network_that_has_nothing_of_it_is_named(self, weights: Path) -> None:
        other = HourglassNet(replace(TINY, mean=(0.0, 0.0, 0.0)))
        with pytest.raises(FasthgError, match="less another mean; start from other weights"):
            load_matching(other, weights)
