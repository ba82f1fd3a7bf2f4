"""What the cells of a variant share, made once before anything is timed: weights, reference, converted networks.

Nothing here is timed, so it runs with one thread, several at once; each function is called in a process of its own.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.sweep.settings import Settings
from bench.sweep.views import vary
from fasthg.data.crops import apart_from
from fasthg.data.dataset import Dataset, load_dataset
from fasthg.files import atomic_path, write_json
from fasthg.metrics.evaluate import evaluate
from fasthg.network import checkpoint
from fasthg.network.load import create_model
from fasthg.network.model import HourglassNet
from fasthg.pixels.image import normalise, read_crop

CONVERTED = ("onnxruntime", "openvino", "tensorrt")  # paths that read one ONNX file
CONVERTED_DIR = "converted"
CONVERSION_FILE = "conversion.json"
REFERENCE_FILE = "reference.safetensors"
REFERENCE_IMAGES = 2  # crops that heatmaps are compared on; larger batches repeat them
CALIBRATION_IMAGES = 32  # crops that int8 is calibrated on


def make_reference(settings: Settings, variant: str) -> None:
    """Write the variant's weights, and what eager fp32 answers with them: heatmaps, and PCKh where they are trained.

    Weights that are not trained are PyTorch's own initialisation under `settings.seed`: with its small gain a deep
    network neither blows up nor dies out, so that heatmaps at full size compare well.
    """
    folder = settings.shared(variant)
    if (folder / REFERENCE_FILE).exists():
        return
    torch.set_num_threads(1)
    trained = settings.trained(variant)
    torch.manual_seed(settings.seed)
    model = create_model(variant, weights=trained).eval()
    checkpoint.save(model, folder / "weights.safetensors")
    dataset = load_dataset(settings.data, "val", check_files=False)
    mean = model.config.mean
    images = read_crops(dataset, np.arange(REFERENCE_IMAGES) % len(dataset), settings.size, mean)
    with torch.inference_mode():
        heatmaps = model.final(images)
    if trained:
        scored = scored_people(settings)
        scores = evaluate(torch.inference_mode()(model.final), scored, None, settings.size, batch_size=1, mean=mean)
        basis = f"{'given' if settings.weights else 'shipped'} weights, {settings.size} px, {len(scored):,} crops"
        basis += f" with {scores.num_joints:,} joints, {scores.protocol}"
        write_json(folder / "pckh.json", {"pckh": scores.weighted14, "basis": basis})
    with atomic_path(folder / REFERENCE_FILE) as aside:
        save_file({"images": images, "heatmaps": heatmaps.contiguous()}, str(aside))


def load_network(settings: Settings, variant: str) -> HourglassNet:
    """The variant's network with the weights of `make_reference`."""
    return checkpoint.load_model(settings.shared(variant) / "weights.safetensors")


@cache
def checked_weights(settings: Settings, variant: str) -> str:
    """Digest of the weights that the variant's paths are compared on."""
    return checkpoint.weights_digest(load_network(settings, variant))


def load_reference(settings: Settings, variant: str, batch_size: int) -> tuple[Tensor, Tensor]:
    """Images [batch_size, 3, S, S] and eager's heatmaps [batch_size, J, S/4, S/4] of them."""
    tensors = load_file(settings.shared(variant) / REFERENCE_FILE)
    repeat = torch.arange(batch_size) % len(tensors["images"])
    return tensors["images"][repeat], tensors["heatmaps"][repeat]


def load_reference_pckh(settings: Settings, variant: str) -> tuple[float, str] | None:
    """Eager's PCKh at full size and what it was measured on; None for weights that are not trained."""
    path = settings.shared(variant) / "pckh.json"
    if not path.exists():
        return None
    found = json.loads(path.read_text())
    return found["pckh"], found["basis"]


def network_mean(settings: Settings, variant: str) -> tuple[float, float, float]:
    """What the variant's network takes off RGB in 0..1."""
    return checkpoint.load_config(settings.shared(variant) / "weights.safetensors").mean


def read_crops(dataset: Dataset, rows: np.ndarray, size: int, mean: tuple[float, float, float]) -> Tensor:
    """Network input [N, 3, size, size] of some people."""
    people = dataset.people
    crops = [read_crop(dataset.image_path(row), people.center[row], people.scale[row], size)[0] for row in rows]
    return normalise(np.stack(crops), mean)


def scored_people(settings: Settings) -> Dataset:
    """The people that PCKh at full size is measured on; where they are few, several views of each."""
    dataset = load_dataset(settings.data, "val", check_files=False)
    rows = scored_rows(dataset, settings.people)
    each = -(-settings.views // len(rows))
    return replace(dataset, people=vary(dataset.people, rows, each, settings.seed))


def scored_rows(dataset: Dataset, people: int) -> np.ndarray:
    """At most `people` rows that can be scored, with a known head size on MPII, spread over the dataset."""
    usable = np.flatnonzero(np.isfinite(dataset.lengths))
    return usable[np.linspace(0, len(usable) - 1, min(people, len(usable))).astype(int)]


def calibration_crops(settings: Settings, variant: str, precision: str) -> Tensor | None:
    """Crops of training people who are not scored, where int8 has to be calibrated; None for other precisions."""
    if precision != "int8":
        return None
    dataset = apart_from(load_dataset(settings.data, "train", check_files=False), scored_people(settings))
    rows = np.arange(min(CALIBRATION_IMAGES, len(dataset)))
    return read_crops(dataset, rows, settings.size, network_mean(settings, variant))


def convert(settings: Settings, variant: str) -> None:
    """Convert the variant to ONNX into the shared cache, and write down the seconds that it took."""
    from fasthg.runtimes.onnx.graph import cached_graph

    note = settings.shared(variant) / CONVERSION_FILE
    if note.exists():
        return
    torch.set_num_threads(1)
    model, images = load_network(settings, variant), load_reference(settings, variant, 1)[0]
    start = time.perf_counter()
    cached_graph(model, images, settings.cache / CONVERTED_DIR)
    write_json(note, time.perf_counter() - start)


def conversion_seconds(settings: Settings, variant: str, path: str) -> float:
    """Seconds that converting the variant took beforehand, where the path reads the ONNX file."""
    note = settings.shared(variant) / CONVERSION_FILE
    return json.loads(note.read_text()) if path in CONVERTED and note.exists() else 0.0
