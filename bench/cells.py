"""What is measured in a cell: inference or a training step of one variant by one path, or a loader.

Each function runs in a process of its own and returns the fields of a `Row` that it found out. The answer is checked
before it is timed: a wrong cell has a reason and no time.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from typing import Any

import torch

from bench import parity
from bench.loaders import LOADERS, PACKED_FILE
from bench.materials import (
    CONVERTED_DIR,
    calibration_crops,
    load_network,
    load_reference,
    load_reference_pckh,
    scored_rows,
)
from bench.record import Cell
from bench.settings import Settings
from bench.study import epoch_minutes, validation_minutes
from bench.timing import PeakMemory, Timing, measure
from fasthg.evaluate import evaluate
from fasthg.files import write_json
from fasthg.model import count_flops
from fasthg.mpii import load_dataset
from fasthg.paths import Prepared, prepare
from fasthg.variants import get_config
from training.augment import Augmentation
from training.batches import Batch
from training.distributed import join_world
from training.learner import Learner
from training.loader import Loader, make_loader
from training.recipes import Recipe

Fields = dict[str, Any]
BACKWARD = 3  # a training step costs the forward pass, and twice that for the gradients of weights and of activations
COMPARED_STEPS = 2  # the first loss is compared; a second that is not finite shows an update that went wrong
WORKERS = 2  # of each loader


def infer(cell: Cell, settings: Settings) -> Fields:
    """Inference: batch after batch of crops that already lie on the device."""
    torch.set_num_threads(settings.threads)
    memory = PeakMemory(settings.device)
    images, expected = load_reference(settings, cell.variant, cell.batch_size)
    prepared = prepare(
        load_network(settings, cell.variant),
        cell.path,
        images,
        device=settings.device,
        precision=cell.precision,
        threads=settings.threads,
        calibration=calibration_crops(settings, cell.precision),
        cache_dir=settings.cache / CONVERTED_DIR,
    )
    found: Fields = {"startup_s": prepared.startup_s, "device": prepared.device, "details": prepared.details}
    found["error"] = error = parity.relative_error(prepared(images).cpu(), expected)
    if reason := parity.verdict(error, cell.precision):
        return wrong(found, reason)
    images = images.to(settings.device)
    memory.restart()
    timing = measure(lambda: prepared(images), device=settings.device, budget=settings.infer_budget)
    found["peak_memory_mb"] = memory.megabytes()
    found |= speed(cell, timing, timing.median, gflop(cell, settings))
    found["validation_minutes"] = validation_minutes(found["images_s"])
    return found | pckh(cell, settings, prepared)


def pckh(cell: Cell, settings: Settings, prepared: Prepared) -> Fields:
    """PCKh of the path at full size, where the variant has weights that have learnt something."""
    reference = load_reference_pckh(settings, cell.variant)
    if reference is None:
        return {}
    dataset = load_dataset(settings.data, "val", check_files=False)
    rows = scored_rows(dataset, settings.people)
    score = evaluate(prepared, dataset, rows, settings.size, cell.batch_size).weighted14
    return {"pckh": score, "pckh_change": score - reference[0], "pckh_basis": reference[1]}


def train(cell: Cell, settings: Settings) -> Fields:
    """A training step as training takes it: forward, loss over all stacks, backward, RMSProp; fed by a loader."""
    torch.set_num_threads(settings.threads)
    memory = PeakMemory(settings.device)
    dataset = load_dataset(settings.data, "train", check_files=False)
    batches = endless(make_loader(dataset, **loader_options(cell, settings)))
    batch = next(batches)
    start = time.perf_counter()
    learner = make_learner(cell, settings)
    losses = [float(learner.learn(batch, step)) for step in range(COMPARED_STEPS)]
    found: Fields = {"startup_s": time.perf_counter() - start, "device": str(learner.world.device)}
    found["error"] = error = training_error(cell, settings, batch, losses)
    if reason := parity.verdict(error, cell.precision, parity.TRAINING_TOLERANCE):
        return wrong(found, reason)
    memory.restart()
    timing, waits = measure_fed(lambda fed: learner.learn(fed, COMPARED_STEPS), batches, settings)
    found["peak_memory_mb"] = memory.megabytes()
    found |= speed(cell, timing, timing.median, BACKWARD * gflop(cell, settings))
    found["data_wait_ms"] = 1e3 * waits.median
    found["epoch_minutes"] = epoch_minutes(found["images_s"])
    return found


def make_learner(cell: Cell, settings: Settings) -> Learner:
    """The variant in training by the cell's path; every path starts from the same weights."""
    recipe = Recipe(
        variant=cell.variant,
        size=settings.size,
        batch_size=cell.batch_size,
        schedule="constant",
        path=f"{cell.path}:{cell.precision}",
        seed=settings.seed,
    )
    return Learner(recipe, COMPARED_STEPS, join_world(torch.device(settings.device)))


def training_error(cell: Cell, settings: Settings, batch: Batch, losses: list[float]) -> float:
    """Relative difference of the first loss from eager fp32's, on the same batch from the same weights.

    Only the first: batch statistics over a few images make gradients, and so all later losses, chaotic. Eager's is
    written down by the first cell of a variant that needs it; that is eager itself where it is measured.
    """
    if not all(map(math.isfinite, losses)):
        return math.inf
    path = settings.shared(cell.variant) / f"training-b{cell.batch_size}.json"
    if not path.exists():
        expected = losses[0]
        if cell.path != "eager":
            eager = make_learner(replace(cell, path="eager", precision="fp32"), settings)
            expected = float(eager.learn(batch, 0))
        write_json(path, {"loss": expected})
    expected = json.loads(path.read_text())["loss"]
    return abs(losses[0] - expected) / expected


def loader_options(cell: Cell, settings: Settings) -> dict[str, Any]:
    """What training asks a loader for: everything augmented, shuffled, two workers."""
    return {
        "size": settings.size,
        "batch_size": cell.batch_size,
        "augmentation": Augmentation(),
        "shuffle": True,
        "drop_last": True,
        "num_workers": WORKERS,
        "seed": settings.seed,
        "pin_memory": settings.device.startswith("cuda"),
    }


def measure_fed(step: Callable[[Batch], object], batches: Iterator[Batch], settings: Settings) -> tuple[Timing, Timing]:
    """Seconds of steps with a batch at hand, and seconds of waiting for the loader before each.

    A step includes what training does on the device for a batch (the copy, rendering its targets).
    """
    fed: list[Batch] = []
    waits: list[float] = []

    def fetch() -> None:
        start = time.perf_counter()
        fed[:] = [next(batches)]
        waits.append(time.perf_counter() - start)

    timing = measure(
        lambda: step(fed[0]), device=settings.device, budget=settings.train_budget, warmup=1, between=fetch
    )
    return timing, Timing(tuple(waits[-timing.repeats :]))


def load(cell: Cell, settings: Settings) -> Fields:
    """A loader by itself, nothing else running; images/s over the whole measurement, since batches come in bursts."""
    torch.set_num_threads(1)
    memory = PeakMemory("cpu")
    start = time.perf_counter()
    loader = LOADERS[cell.path](settings.data, settings.cache / PACKED_FILE, **loader_options(cell, settings))
    batches = endless(loader)
    next(batches)
    found: Fields = {"startup_s": time.perf_counter() - start, "device": "cpu"}
    memory.restart()
    timing = measure(lambda: next(batches), budget=settings.loader_budget, warmup=2 * WORKERS, max_repeats=10_000)
    found["peak_memory_mb"] = memory.megabytes()
    return found | speed(cell, timing, sum(timing.seconds) / timing.repeats)


def endless(loader: Loader) -> Iterator[Batch]:
    """The loader's epochs, one after the other without end."""
    for epoch in count():
        loader.set_epoch(epoch)
        yield from loader


def gflop(cell: Cell, settings: Settings) -> float:
    """10^9 FLOPs of the forward pass of one image."""
    return count_flops(get_config(cell.variant), settings.size) / 1e9


def speed(cell: Cell, timing: Timing, seconds: float, gflop_image: float | None = None) -> Fields:
    """The fields that follow from a timing; `seconds` a batch is what images/s are computed from."""
    images_s = cell.batch_size / seconds
    return {
        "median_ms": 1e3 * timing.median,
        "p10_ms": 1e3 * timing.percentile(10),
        "p90_ms": 1e3 * timing.percentile(90),
        "repeats": timing.repeats,
        "images_s": images_s,
        "gflop": gflop_image,
        "tflops": gflop_image and images_s * gflop_image / 1e3,
    }


def wrong(found: Fields, reason: str) -> Fields:
    """A cell whose answer is wrong: what was found out, the reason, and no time."""
    error = found["error"] if math.isfinite(found["error"]) else None
    return found | {"status": "WRONG", "reason": reason, "error": error}


MEASURE = {"infer": infer, "train": train, "loader": load}


def measure_cell(cell: Cell, settings: Settings) -> Fields:
    """The fields of the cell's row; raises FasthgError where it cannot run."""
    return {"status": "ok"} | MEASURE[cell.mode](cell, settings)
