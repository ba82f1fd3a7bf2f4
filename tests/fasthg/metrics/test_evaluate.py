"""Predicting a dataset: every joint in its own photograph's pixels, whatever the batches."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fasthg.data.dataset import Dataset, load_dataset
from fasthg.errors import FasthgError
from fasthg.metrics.evaluate import EvalOptions, evaluate, predict_dataset
from fasthg.network.load import create_model
from fasthg.network.variants import HourglassConfig
from fasthg.pixels import geometry
from fasthg.pixels.skeleton import MPII

PEOPLE = 7


@pytest.fixture(scope="module")
def dots(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Photographs with one white dot each, at which all joints are annotated."""
    folder = tmp_path_factory.mktemp("dots")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    records = []
    for i in range(PEOPLE):
        x, y = rng.uniform(60, 140, 2).round(1)
        image = np.zeros((180, 200, 3), np.uint8)
        cv2.circle(image, (round((x - 0.5) * 16), round((y - 0.5) * 16)), 5 * 16, (255, 255, 255), -1, cv2.LINE_AA, 4)
        cv2.imwrite(str(folder / "images" / f"{i}.png"), image)
        records.append(
            {
                "isValidation": 1.0,
                "img_paths": f"{i}.png",
                "objpos": [100.0 + i, 85.0],
                "scale_provided": 0.7 + 0.05 * i,
                "joint_self": [[x + 0.5, y + 0.5, 1.0]] * 16,
                "head_box": [10, 10, 40, 50],
            }
        )
    (folder / "annotations.json").write_text(json.dumps(records))
    return load_dataset(folder, "val")


class Brightness:
    """A stand-in network that answers every joint with the crop's smoothed brightness, and notes its batches."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, images: Tensor) -> Tensor:
        self.shapes.append(tuple(images.shape))
        heatmaps = F.avg_pool2d(images.mean(dim=1, keepdim=True), 4)
        for _ in range(2):
            heatmaps = F.avg_pool2d(heatmaps, 3, stride=1, padding=1, count_include_pad=False)
        return heatmaps.expand(-1, 16, -1, -1)


@pytest.mark.parametrize("flip", [False, True])
def test_joints_are_found_in_the_pixels_of_each_photograph(dots: Dataset, flip: bool) -> None:
    predictions = predict_dataset(Brightness(), dots, None, EvalOptions(128, 3, flip)).joints
    heatmap_pixel = 250 * dots.people.scale[:, None, None] / 32
    assert np.abs((predictions - dots.people.joints) / heatmap_pixel).max() < 0.5


def test_rows_are_predicted_in_their_order(dots: Dataset) -> None:
    everyone = predict_dataset(Brightness(), dots, None, EvalOptions(128)).joints
    chosen = predict_dataset(Brightness(), dots, [5, 0, 3], EvalOptions(128, 2)).joints
    np.testing.assert_allclose(chosen, everyone[[5, 0, 3]])


def test_every_batch_has_one_shape_and_progress_adds_up(dots: Dataset) -> None:
    runner = Brightness()
    finished: list[int] = []
    predict_dataset(runner, dots, None, EvalOptions(64, 3, progress=finished.append))
    assert runner.shapes == [(3, 3, 64, 64)] * 3
    assert finished == [3, 3, 1]
    few = Brightness()
    predict_dataset(few, dots, [0, 1], EvalOptions(64, 8))
    assert few.shapes == [(2, 3, 64, 64)], "a single small batch is not padded"


def test_scores_are_those_of_the_chosen_people(dots: Dataset) -> None:
    scores = evaluate(Brightness(), dots, [1, 2], EvalOptions(128))
    assert (scores.num_people, scores.at.means["pooled16"]) == (2, 100.0)


def test_a_photograph_that_cannot_be_read_is_named(dots: Dataset, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for path in dots.image_dir.iterdir():
        (tmp_path / "images" / path.name).write_bytes(path.read_bytes()[: -20 if path.name == "4.png" else None])
    broken = Dataset(dots.people, tmp_path / "images")
    with pytest.raises(FasthgError, match=r"4\.png: the file is cut short"):
        predict_dataset(Brightness(), broken, None, EvalOptions(64, 2))


def test_mirrored_photographs_are_predicted_mirrored(
    dots: Dataset, tmp_path: Path, tiny_config: HourglassConfig
) -> None:
    """With flip, a real network must answer a mirrored person by the mirrored pose, left and right exchanged."""
    model = create_model(tiny_config).eval()
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(1)
    image = cv2.GaussianBlur(rng.integers(0, 256, (180, 200, 3), dtype=np.uint8), (0, 0), 6)
    cv2.imwrite(str(tmp_path / "images" / "plain.png"), image)
    cv2.imwrite(str(tmp_path / "images" / "mirrored.png"), image[:, ::-1])
    people = dots.people.select([0, 0])
    centers = np.array([people.center[0], [200 - people.center[0, 0], people.center[0, 1]]])
    pair = Dataset(replace(people, images=("plain.png", "mirrored.png"), center=centers), tmp_path / "images")
    plain, mirrored = predict_dataset(model.final, pair, None, EvalOptions(64, flip=True)).joints
    expected = np.array([200.0, 0.0]) + plain[list(MPII.flip_order)] * (-1, 1)
    heatmap_pixel = 250 * people.scale[0] / 16
    close = np.abs(mirrored - expected).max(axis=-1) / heatmap_pixel < 0.5
    assert close.mean() > 0.8, "a tie of two peaks may be settled otherwise by rounding, no more"


def test_heatmaps_are_averaged_before_they_are_decoded(dots: Dataset) -> None:
    calls = []

    def runner(images: Tensor) -> Tensor:
        calls.append(images)
        heatmaps = torch.zeros(len(images), 16, 16, 16)
        if len(calls) == 1:
            heatmaps[:, 0, 4, 8], heatmaps[:, 0, 4, 3] = 0.7, 0.6  # right ankle, unsure between two places
        else:
            heatmaps[:, 5, 4, 12] = 0.6  # the mirrored crop's left ankle speaks for the second
        return heatmaps

    predictions = predict_dataset(runner, dots, [0], EvalOptions(64, flip=True)).joints
    assert torch.equal(calls[1], calls[0].flip(-1))
    matrix = geometry.crop_matrix(dots.people.center[0], dots.people.scale[0], 64)
    np.testing.assert_allclose(geometry.apply(matrix, predictions[0, 0]) / 4, [3.5, 4.5])
