"""A network's own mean goes with it: into predictions, evaluation, training, artefacts and end-to-end graphs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fasthg import Predictor, create_model
from fasthg.cli.app import main
from fasthg.data.dataset import load_dataset
from fasthg.errors import FasthgError
from fasthg.export.end_to_end import EndToEnd
from fasthg.metrics.evaluate import EvalOptions, predict_dataset
from fasthg.network.checkpoint import load_into, load_model, save
from fasthg.network.model import HourglassNet
from fasthg.network.variants import HourglassConfig
from fasthg.pixels import geometry
from fasthg.pixels.heatmap import decode
from fasthg.pixels.image import normalise
from training.loading.loader import make_loader
from training.loading.packed import make_packed_loader
from training.pack import PackSettings, pack

BLACK = (0.0, 0.0, 0.0)
SIZE = 64


@pytest.fixture
def net(tiny_config: HourglassConfig) -> HourglassNet:
    """A network that takes RGB in 0..1 as it is; the same weights answer otherwise for images less MPII's mean."""
    return HourglassNet(replace(tiny_config, mean=BLACK)).eval()


@pytest.fixture
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (90, 80, 3), dtype=np.uint8)


def crop_of(photo: np.ndarray) -> torch.Tensor:
    box = (0.0, 0.0, float(photo.shape[1]), float(photo.shape[0]))
    matrix = geometry.crop_matrix(*geometry.box_to_center_scale(*box), size=SIZE)
    return torch.from_numpy(geometry.warp(photo, matrix, SIZE))[None]


def expected(net: HourglassNet, crops: torch.Tensor) -> torch.Tensor:
    """Heatmaps of what the network was trained on, the arithmetic written out."""
    return net.final(crops.permute(0, 3, 1, 2).double().div(255).float())


def test_it_is_kept_in_checkpoints_and_comes_with_them(net: HourglassNet, tmp_path: Path) -> None:
    save(net, tmp_path / "a.safetensors")
    assert load_model(tmp_path / "a.safetensors").config.mean == BLACK
    named = replace(net.config, mean=geometry.MEAN)
    assert create_model(named, weights=tmp_path / "a.safetensors").config.mean == BLACK
    with pytest.raises(FasthgError, match=r"trained on images less the mean 0\.0, the network takes them less 0\.4404"):
        load_into(HourglassNet(named), tmp_path / "a.safetensors")


@pytest.mark.parametrize("mean", [(0.0, 0.0), (0.1, float("nan"), 0.1), "abc"])
def test_what_is_no_mean_is_refused(mean: Any) -> None:
    with pytest.raises(FasthgError, match="give three numbers, for R, G and B"):
        HourglassConfig(mean=mean)


def test_predictions_are_made_of_images_less_it(net: HourglassNet, photo: np.ndarray) -> None:
    predictor = Predictor(net, runtime="eager", size=SIZE, device="cpu", batch_size=1)
    (pose,) = predictor(photo)
    peaks = expected(net, crop_of(photo)).amax(dim=(-2, -1))[0]
    np.testing.assert_allclose(pose.scores, peaks.detach().numpy(), atol=1e-6)


def test_datasets_are_evaluated_on_images_less_it(net: HourglassNet, tiny_dataset: Path) -> None:
    dataset = load_dataset(tiny_dataset, "val")
    seen: list[torch.Tensor] = []

    def runner(images: torch.Tensor) -> torch.Tensor:
        seen.append(images)
        return net.final(images)

    predict_dataset(runner, dataset, [0, 1], EvalOptions(SIZE, mean=BLACK))
    assert (seen[0].min(), seen[0].max()) >= (0.0, 0.5)


@pytest.mark.parametrize("packed", [False, True])
def test_training_sees_images_less_it(tiny_dataset: Path, tmp_path: Path, packed: bool) -> None:
    options: dict[str, Any] = {"size": SIZE, "batch_size": 2}
    if packed:
        pack(tiny_dataset, tmp_path / "crops.h5", settings=PackSettings(density=64), progress=False, threads=1)
    images = []
    for mean in (geometry.MEAN, BLACK):
        if packed:
            loader = make_packed_loader(tmp_path / "crops.h5", mean=mean, **options)
        else:
            loader = make_loader(load_dataset(tiny_dataset, "train"), mean=mean, **options)
        images.append(next(iter(loader)).images.permute(0, 2, 3, 1).numpy())
    offset = np.broadcast_to(np.float32(geometry.MEAN), images[0].shape)
    np.testing.assert_allclose(images[1] - images[0], offset, atol=1e-6)


def test_end_to_end_graphs_take_it_off(net: HourglassNet, photo: np.ndarray) -> None:
    crop = crop_of(photo)
    keypoints, scores = EndToEnd(net, flip=False)(crop)
    points, peaks = decode(expected(net, crop))
    torch.testing.assert_close(scores, peaks, rtol=0, atol=1e-6)
    torch.testing.assert_close(keypoints, points * 4)


def test_exports_say_it_and_predict_with_it(net: HourglassNet, photo: np.ndarray, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    save(net, tmp_path / "a.safetensors")
    assert (
        main(["export", "--weights", str(tmp_path / "a.safetensors"), "--size", "64", "-o", str(tmp_path / "a")]) == 0
    )
    metadata = json.loads((tmp_path / "a" / "metadata.json").read_text())
    assert metadata["input"]["mean"] == [0.0, 0.0, 0.0]
    assert metadata["config"]["mean"] == [0.0, 0.0, 0.0]
    (pose,) = Predictor(tmp_path / "a", device="cpu")(photo)
    peaks = expected(net, crop_of(photo)).amax(dim=(-2, -1))[0]
    np.testing.assert_allclose(pose.scores, peaks.detach().numpy(), atol=1e-5)


def test_without_it_the_answers_would_be_others(net: HourglassNet, photo: np.ndarray) -> None:
    crop = crop_of(photo)
    difference = net.final(normalise(crop)) - expected(net, crop)
    assert difference.abs().max() > 1e-3, "the checks above would see a mean that is not the network's"
