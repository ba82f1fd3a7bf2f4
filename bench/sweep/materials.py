"""What the cells of a variant share, made once before anything is timed: weights, reference, converted networks.

Nothing here is timed, so it runs with one thread, several at once; each function is called in a process of its own.
"""

from __future__ import annotations

import json
import time
from functools import cache

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.sweep.people import Found, find_in_photographs, load_people, scored_rows
from bench.sweep.settings import Settings
from fasthg.data.crops import apart_from
from fasthg.data.dataset import Dataset
from fasthg.files import atomic_path, write_json
from fasthg.network import checkpoint
from fasthg.network.load import create_model
from fasthg.network.model import HourglassNet
from fasthg.pixels.image import normalise, read_crop

CONVERTED = ("onnxruntime", "openvino", "tensorrt")  # paths that read one ONNX file
CONVERTED_DIR = "converted"
CONVERSION_FILE = "conversion.json"
REFERENCE_FILE = "reference.safetensors"
FOUND_FILE, BASIS_FILE = "found.npz", "basis.json"
REFERENCE_IMAGES = 2  # crops that heatmaps are compared on; larger batches repeat them
CALIBRATION_IMAGES = 32  # crops that int8 is calibrated on


def make_reference(settings: Settings, variant: str) -> None:
    """Write the variant's weights, and what eager fp32 answers with them: heatmaps, and joints where they are trained.

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
    dataset = load_people(settings.data, "val")
    mean = model.config.mean
    images = read_crops(dataset, np.arange(REFERENCE_IMAGES) % len(dataset), settings.size, mean)
    with torch.inference_mode():
        heatmaps = model.final(images)
    if trained:
        scored = scored_people(settings)
        found = find_in_photographs(model.final, scored, settings.size, 1, mean)
        basis = f"{'given' if settings.weights else 'shipped'} weights, {settings.size} px, {len(scored):,} people"
        basis += f" with {int(found.counted.sum()):,} joints, {scored.protocol}"
        found.save(folder / FOUND_FILE)
        write_json(folder / BASIS_FILE, basis)
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


def load_reference_found(settings: Settings, variant: str) -> tuple[Found, str] | None:
    """What eager finds at full size and on what that was measured; None for weights that are not trained."""
    folder = settings.shared(variant)
    if not (folder / BASIS_FILE).exists():
        return None
    return Found.load(folder / FOUND_FILE), json.loads((folder / BASIS_FILE).read_text())


def network_mean(settings: Settings, variant: str) -> tuple[float, float, float]:
    """What the variant's network takes off RGB in 0..1."""
    return checkpoint.load_config(settings.shared(variant) / "weights.safetensors").mean


def read_crops(dataset: Dataset, rows: np.ndarray, size: int, mean: tuple[float, float, float]) -> Tensor:
    """Network input [N, 3, size, size] of some people."""
    people = dataset.people
    crops = [read_crop(dataset.image_path(row), people.center[row], people.scale[row], size)[0] for row in rows]
    return normalise(np.stack(crops), mean)


def scored_people(settings: Settings) -> Dataset:
    """The people that PCKh at full size is measured on."""
    dataset = load_people(settings.data, "val")
    return dataset.select(scored_rows(dataset, settings.people))


def calibration_crops(settings: Settings, variant: str, precision: str) -> Tensor | None:
    """Crops of training people who are not scored, where int8 has to be calibrated; None for other precisions."""
    if precision != "int8":
        return None
    dataset = apart_from(load_people(settings.data, "train"), scored_people(settings))
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
