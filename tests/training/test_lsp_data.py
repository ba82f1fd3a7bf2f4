"""Training, packing, rendering and exporting take LSP's folder as they take MPII's, and never call its score PCKh."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io

from fasthg.data import lsp
from fasthg.data.crops import load_crops
from fasthg.data.dataset import load_dataset
from fasthg.network.variants import HourglassConfig
from training.loading.packed import PackedSource
from training.options import TrainOptions
from training.pack import PackSettings, pack
from training.recipes import Recipe
from training.synthesize import synthesize
from training.trainer import train


@pytest.fixture
def athletes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six people that stand upright in photographs of 120 x 160: four to train on, two to validate on."""
    monkeypatch.setitem(lsp.SPLITS, 6, (4, 6))
    x = np.array([40, 42, 44, 60, 62, 64, 25, 28, 38, 66, 76, 79, 52, 52], float)
    y = np.array([140, 110, 82, 82, 110, 140, 88, 64, 40, 40, 64, 88, 34, 14], float)
    joints = np.stack([np.stack([x + i, y, np.ones(14)], axis=1) for i in range(6)], axis=2)
    folder = tmp_path / "athletes"
    (folder / "images").mkdir(parents=True)
    scipy.io.savemat(folder / "joints.mat", {"joints": joints})
    rng = np.random.default_rng(0)
    for number in range(1, 7):
        image = cv2.resize(rng.integers(0, 256, (20, 15, 3), dtype=np.uint8), (120, 160))
        cv2.imwrite(str(folder / "images" / f"im{number:05d}.jpg"), image)
    return folder


def test_a_training_is_scored_by_the_torso_and_keeps_the_best_by_it(athletes: Path, tmp_path: Path) -> None:
    config = HourglassConfig(num_stacks=1, num_feats=8, depths=2)
    recipe = Recipe(variant=config, size=64, batch_size=2, epochs=1, path="eager")
    out = tmp_path / "run"
    result = train(TrainOptions(recipe=recipe, data=athletes, out=out, num_workers=0, progress=False, device="cpu"))
    assert result.scores is not None
    assert str(result.scores.protocol) == "PCK@0.2"
    assert {"weighted14_pck@0.2", "weighted14_pck@0.1", "mean14_auc"} <= result.history[-1].keys()
    assert not [name for name in result.history[-1] if "pckh" in name]
    assert (out / "best.safetensors").is_file()
    assert (out / "curves.png").is_file()


def test_crops_are_packed(athletes: Path, tmp_path: Path) -> None:
    pack(athletes, tmp_path / "crops.h5", settings=PackSettings(density=64), progress=False, threads=1)
    packed = PackedSource(tmp_path / "crops.h5", "train").people
    people = load_dataset(athletes, "train").people
    assert packed.images == people.images
    np.testing.assert_array_equal(packed.joints, people.joints)


def test_exports_are_compared_by_the_torso(athletes: Path) -> None:
    crops = load_crops(athletes, 128)
    assert str(crops.protocol) == "PCK@0.2"
    # hip (44, 82) to shoulder (66, 40) is 47.4 pixels, and the crop's side is 1.3 x 126 pixels
    np.testing.assert_allclose(crops.lengths, np.hypot(22, 42) * 128 / (1.3 * 126))


def test_athletes_are_rendered_in_their_poses(athletes: Path, tmp_path: Path) -> None:
    folder = synthesize(tmp_path / "posed", None, None, 1, poses=athletes, size=None, progress=False, workers=1)
    posed, real = load_dataset(folder, "train"), load_dataset(athletes, "train")
    assert posed.people.images == real.people.images
    assert cv2.imread(str(posed.image_path(0))).shape == (160, 120, 3)
    known = real.people.labelled[0]
    distance = np.linalg.norm(posed.people.joints[0, known] - real.people.joints[0, known], axis=-1)
    assert np.median(distance) < 3.0
