"""What is measured in a cell: inference or a training step of one variant by one path, or a loader.

Each function runs in a process of its own and returns the fields of a `Row` that it found out. The answer is checked
before it is timed: a wrong cell has a reason and no time. What it calls as `turn` returns when the machine is
quiet, with the seconds that its timed repeats may take.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from typing import Any

import torch
from torch import Tensor

from bench.measure import parity
from bench.measure.first_step import FirstStep, take_first_step
from bench.measure.record import Cell
from bench.measure.timing import OtherLoad, PeakMemory, Timing, measure
from bench.study.published import epoch_minutes, validation_minutes
from bench.sweep.loaders import LOADERS, PACKED_FILE
from bench.sweep.materials import (
    CONVERTED_DIR,
    calibration_crops,
    conversion_seconds,
    load_network,
    load_reference,
    load_reference_pckh,
    network_mean,
    scored_people,
)
from bench.sweep.settings import Settings
from fasthg.data.dataset import load_dataset
from fasthg.metrics.agreement import relative_error
from fasthg.metrics.evaluate import evaluate
from fasthg.network.flops import count_flops
from fasthg.network.variants import get_config
from fasthg.runtimes.paths import Prepared, prepare
from training.distributed import join_world
from training.learner import Learner
from training.loading.augment import Augmentation
from training.loading.batches import Batch
from training.loading.loader import Loader, make_loader
from training.recipes import Recipe

Fields = dict[str, Any]
Turn = Callable[[], float]  # returns the seconds that the timed repeats may take
BACKWARD = 3  # a training step costs the forward pass, and twice that for the gradients of weights and of activations
WORKERS = 2  # of each loader


def infer(cell: Cell, settings: Settings, turn: Turn) -> Fields:
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
        calibration=calibration_crops(settings, cell.variant, cell.precision),
        cache_dir=settings.cache / CONVERTED_DIR,
    )
    startup_s = prepared.startup_s + conversion_seconds(settings, cell.variant, cell.path)
    found: Fields = {"startup_s": startup_s, "device": prepared.device, "details": prepared.details}
    found["error"] = error = relative_error(prepared(images).cpu(), expected)
    if reason := parity.verdict(error, cell.precision):
        return wrong(found, reason)
    found |= pckh(cell, settings, prepared)
    budget = turn()
    images = images.to(settings.device)
    memory.restart()
    load = OtherLoad()
    timing = measure(lambda: prepared(images), device=settings.device, budget=budget, warmup=1)
    found["load"], found["peak_memory_mb"] = load.cores(), memory.megabytes()
    found |= speed(cell, timing, timing.median, gflop(cell, settings))
    found["validation_minutes"] = validation_minutes(found["images_s"])
    return found


def pckh(cell: Cell, settings: Settings, prepared: Prepared) -> Fields:
    """PCKh of the path at full size, where the variant has weights that have learnt something."""
    reference = load_reference_pckh(settings, cell.variant)
    if reference is None:
        return {}
    mean = network_mean(settings, cell.variant)
    score = evaluate(prepared, scored_people(settings), None, settings.size, cell.batch_size, mean=mean).weighted14
    return {"pckh": score, "pckh_change": score - reference[0], "pckh_basis": reference[1]}


def train(cell: Cell, settings: Settings, turn: Turn) -> Fields:
    """A training step as training takes it: forward, loss over all stacks, backward, RMSProp; fed by a loader."""
    torch.set_num_threads(settings.threads)
    memory = PeakMemory(settings.device)
    dataset = load_dataset(settings.data, "train", check_files=False)
    batches = endless(make_loader(dataset, **loader_options(cell, settings)))
    batch = next(batches)
    start = time.perf_counter()
    learner = make_learner(cell, settings)
    first_step = take_first_step(learner, batch)
    found: Fields = {"startup_s": time.perf_counter() - start, "device": str(learner.world.device)}
    found |= check_first_step(cell, settings, first_step, batch)
    del first_step
    if found["reason"]:
        return wrong(found, found["reason"])
    budget = turn()
    memory.restart()
    load = OtherLoad()
    losses: list[Tensor] = []
    timing, waits = measure_fed(lambda fed: losses.append(learner.learn(fed, 1)), batches, settings.device, budget)
    found["load"], found["peak_memory_mb"] = load.cores(), memory.megabytes()
    if not torch.stack(losses).isfinite().all():
        return wrong(found, "the loss is not finite after some steps")
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
    return Learner(recipe, 1, join_world(torch.device(settings.device)))


def check_first_step(cell: Cell, settings: Settings, found: FirstStep, batch: Batch) -> Fields:
    """The first step against eager fp32's on the same batch from the same weights: how far off, and why it is wrong.

    Eager's is written down by the first cell of a variant that needs it; that is eager itself where it is measured.
    """
    path = settings.shared(cell.variant) / f"first-step-b{cell.batch_size}.safetensors"
    if not path.exists():
        expected = found
        if cell.path != "eager":
            eager = make_learner(replace(cell, path="eager", precision="fp32"), settings)
            expected = take_first_step(eager, batch)
        expected.save(path)
    expected = FirstStep.load(path)
    loss = abs(found.loss - expected.loss) / expected.loss if math.isfinite(found.loss) else math.inf
    gradient = parity.gradient_error(found.gradients, expected.gradients)
    reasons = [
        parity.verdict(loss, cell.precision, "loss"),
        parity.verdict(gradient, cell.precision, "gradients"),
    ]
    if reasons[1] and cell.precision == "fp32":
        exact = exact_first_step(cell, settings, batch)
        beside = parity.rounding_verdict(found.gradients, expected.gradients, exact.gradients)
        reasons[1] = f"{reasons[1]}; {beside}" if beside else ""
    return {"error": loss, "gradient_error": gradient, "reason": "; ".join(filter(None, reasons))}


def exact_first_step(cell: Cell, settings: Settings, batch: Batch) -> FirstStep:
    """The first step in float64."""
    learner = make_learner(replace(cell, path="eager", precision="fp32"), settings)
    learner.model.double()
    return take_first_step(learner, batch._replace(images=batch.images.double()))


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


def measure_fed(
    step: Callable[[Batch], object], batches: Iterator[Batch], device: str, budget: float
) -> tuple[Timing, Timing]:
    """Seconds of steps with a batch at hand, and seconds of waiting for the loader before each.

    A step includes what training does on the device for a batch (the copy, rendering its targets).
    """
    fed: list[Batch] = []
    waits: list[float] = []

    def fetch() -> None:
        start = time.perf_counter()
        fed[:] = [next(batches)]
        waits.append(time.perf_counter() - start)

    timing = measure(lambda: step(fed[0]), device=device, budget=budget, warmup=0, between=fetch)
    return timing, Timing(tuple(waits[-timing.repeats :]))


def load(cell: Cell, settings: Settings, turn: Turn) -> Fields:
    """A loader by itself, nothing else running; images/s over the whole measurement, since batches come in bursts."""
    torch.set_num_threads(1)
    memory = PeakMemory("cpu")
    start = time.perf_counter()
    loader = LOADERS[cell.path](settings.data, settings.cache / PACKED_FILE, **loader_options(cell, settings))
    batches = endless(loader)
    next(batches)
    found: Fields = {"startup_s": time.perf_counter() - start, "device": "cpu"}
    budget = turn()
    memory.restart()
    load = OtherLoad()
    timing = measure(lambda: next(batches), budget=budget, warmup=2 * WORKERS, max_repeats=10_000)
    found["load"], found["peak_memory_mb"] = load.cores(), memory.megabytes()
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
    errors = {name: found[name] for name in ("error", "gradient_error") if name in found}
    finite = {name: error if math.isfinite(error) else None for name, error in errors.items()}
    return found | finite | {"status": "WRONG", "reason": reason}


MEASURE = {"infer": infer, "train": train, "loader": load}


def measure_cell(cell: Cell, settings: Settings, turn: Turn) -> Fields:
    """The fields of the cell's row; raises FasthgError where it cannot run. `turn` returns when it may take times."""
    return {"status": "ok"} | MEASURE[cell.mode](cell, settings, turn)
