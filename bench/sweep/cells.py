"""What is measured in a cell: inference or a training step of one variant by one path, or a loader.

Each function runs in a process of its own and gives back fields of a `Row`. The answer is checked before it is timed: a
wrong cell has a reason and no time. What a function calls as `turn` hands over what it has found out so far and returns
when the machine is quiet, with an `Order`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.measure import parity
from bench.measure.first_step import FirstStep, take_first_step
from bench.measure.record import Cell
from bench.measure.timing import OtherLoad, PeakMemory, measure
from bench.measure.turns import take_turn
from bench.sweep import reduced
from bench.sweep.loaders import LOADERS, PACKED_FILE
from bench.sweep.materials import (
    CONVERTED_DIR,
    calibration_crops,
    conversion_seconds,
    load_network,
    load_reference,
    load_reference_found,
    network_mean,
    scored_people,
)
from bench.sweep.people import find_in_photographs, load_people
from bench.sweep.plan import COMPILED, PLAIN
from bench.sweep.settings import Settings
from fasthg.metrics.agreement import relative_error
from fasthg.metrics.evaluate import EvalOptions, predict_dataset
from fasthg.runtimes.paths import Prepared, prepare
from training.distributed import join_world
from training.learner import Learner
from training.loading.augment import Augmentation
from training.loading.batches import Batch
from training.loading.loader import Loader, make_loader
from training.recipes import Recipe

Fields = dict[str, Any]
WORKERS = {"cpu": 0, "cuda": 2}  # that load data for a training step; on a CPU they would take cores from it
LOADER_WORKERS = 2  # of each loader that is timed by itself


@dataclass(frozen=True)
class Order:
    """What a cell does in its turn: time `repeats` repeats, or with 0 come to an end.

    stream_s   seconds of single crops one after the other, before the end
    budget     seconds of timed repeats for a loader
    """

    round: int = 0
    repeats: int = 0
    stream_s: float = 0.0
    budget: float = 0.0


Turn = Callable[[Fields], Order]


def infer(cell: Cell, settings: Settings, turn: Turn) -> Fields:
    """Inference: batch after batch of crops that already lie on the device."""
    torch.set_num_threads(1)  # others prepare themselves beside: threads that spin would starve each other
    memory = PeakMemory(settings.device)
    images, expected = load_reference(settings, cell.variant, cell.batch_size)
    prepared = prepare(
        load_network(settings, cell.variant),
        cell.path,
        images,
        device=settings.device,
        precision=cell.precision,
        threads=threads_to_prepare(cell, settings),
        calibration=calibration_crops(settings, cell.variant, cell.precision),
        cache_dir=settings.cache / CONVERTED_DIR,
    )
    torch.set_num_threads(1)
    startup_s = prepared.startup_s + conversion_seconds(settings, cell.variant, cell.path)
    details = prepared.details | ({"threads": str(settings.threads)} if "threads" in prepared.details else {})
    found: Fields = {"startup_s": startup_s, "device": prepared.device, "details": details}
    found["error"] = error = relative_error(prepared(images).cpu(), expected)
    if reason := parity.verdict(error, cell.precision):
        return wrong(found, reason)
    found |= pckh(cell, settings, prepared)
    if found.get("reason"):
        return wrong(found, found["reason"])
    order = turn(found)
    torch.set_num_threads(settings.threads)
    images = images.to(settings.device)
    memory.restart()
    closing: Fields = {}
    photograph: Callable[[int], float] | None = None
    while order.repeats:
        taken = take_turn(lambda: prepared(images), order.round, order.repeats, device=settings.device)
        closing = closing or {"peak_memory_mb": memory.megabytes()}  # before a whole photograph lies in memory too
        if cell.batch_size == 1:
            photograph = photograph or photographs(cell, settings, prepared)
            taken["photo"] = photograph(order.round)
        order = turn(taken)
    if cell.batch_size == 1 and order.stream_s:
        closing |= stream(prepared, images, order.stream_s, settings)
    return closing


def threads_to_prepare(cell: Cell, settings: Settings) -> int:
    """One for PyTorch, whose number can be changed before anything is timed: two processes that prepare themselves at
    once on all cores would wait for each other at every layer, with threads that spin."""
    return 1 if cell.path in PLAIN else settings.threads


def pckh(cell: Cell, settings: Settings, prepared: Prepared) -> Fields:
    """PCKh of the path and its change: at full size where the variant has weights that have learnt something, else on
    its reduced network; with a reason where it loses more than its precision may. Measured at batch 1 only, and on
    reduced networks for what rounds: other paths' heatmaps are held to eager's on the network itself."""
    if cell.batch_size != 1:
        return {}
    if reference := load_reference_found(settings, cell.variant):
        eager, basis = reference
        people, mean = scored_people(settings), network_mean(settings, cell.variant)
        mine = find_in_photographs(prepared, people, settings.size, cell.batch_size, mean)
    elif (
        settings.reduced(cell.variant)
        and cell.path not in COMPILED
        and (cell.precision != "fp32" or cell == cell.eager)
    ):
        eager = reduced.load_reference(settings, cell.variant)
        basis, mine = reduced.basis(settings, cell.variant, eager), reduced.find_reduced(cell, settings)
    else:
        return {}
    reason = parity.pckh_verdict(mine.found, eager.found, int(eager.counted.sum()), cell.precision)
    return {"pckh": mine.pckh, "pckh_change": mine.pckh - eager.pckh, "pckh_basis": basis, "reason": reason}


def photographs(cell: Cell, settings: Settings, prepared: Prepared) -> Callable[[int], float]:
    """What times one photograph, person after person by the number that it is given: milliseconds from a JPEG and a box
    to the joints in the photograph. It has been called once."""
    people = scored_people(settings)
    options = EvalOptions(settings.size, 1, mean=network_mean(settings, cell.variant))

    def photograph(number: int) -> float:
        start = time.perf_counter()
        predict_dataset(prepared, people, [number % len(people)], options)
        return 1e3 * (time.perf_counter() - start)

    photograph(0)
    return photograph


def stream(prepared: Prepared, images: Tensor, seconds: float, settings: Settings) -> Fields:
    """Single crops one after the other for some time, drawn by the sweep's seed: the 90th percentile."""
    draw = np.random.default_rng(settings.seed)
    ms: list[float] = []
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        crop = images[int(draw.integers(len(images)))][None]
        start = time.perf_counter()
        prepared(crop)
        ms.append(1e3 * (time.perf_counter() - start))
    return {"stream_ms": float(np.percentile(ms, 90)), "stream_s": time.perf_counter() - began}


def train(cell: Cell, settings: Settings, turn: Turn) -> Fields:
    """A training step as training takes it: forward, loss over all stacks, backward, RMSProp; fed by a loader.

    A step includes what training does on the device for a batch (the copy, rendering its targets).
    """
    torch.set_num_threads(settings.threads if cell.path == "eager" else 1)  # the others prepare themselves together
    memory = PeakMemory(settings.device)
    dataset = load_people(settings.data, "train")
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
    order = turn(found)
    torch.set_num_threads(settings.threads)
    memory.restart()
    losses: list[Tensor] = []
    waits: list[float] = []
    fed = [batch]

    def fetch() -> None:
        begun = time.perf_counter()
        fed[:] = [next(batches)]
        waits.append(time.perf_counter() - begun)

    def step() -> None:
        losses.append(learner.learn(fed[0], 1))

    while order.repeats:
        taken = take_turn(
            step, order.round, order.repeats, device=settings.device, between=fetch, waits=waits, turn_s=0.0
        )
        order = turn(taken)
    if losses and not torch.stack(losses).isfinite().all():
        return wrong(found, "the loss is not finite after some steps")
    return {"peak_memory_mb": memory.megabytes()}


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
            eager = make_learner(cell.eager, settings)
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
    """The first step in float64, on all cores: the cells beside are ready long before."""
    torch.set_num_threads(settings.threads)
    learner = make_learner(cell.eager, settings)
    learner.model.double()
    return take_first_step(learner, batch._replace(images=batch.images.double()))


def loader_options(cell: Cell, settings: Settings) -> dict[str, Any]:
    """What training asks a loader for: everything augmented, shuffled."""
    return {
        "size": settings.size,
        "batch_size": cell.batch_size,
        "augmentation": Augmentation(),
        "shuffle": True,
        "drop_last": True,
        "num_workers": WORKERS[settings.device.partition(":")[0]],
        "seed": settings.seed,
        "pin_memory": settings.device.startswith("cuda"),
    }


def load(cell: Cell, settings: Settings, turn: Turn) -> Fields:
    """A loader by itself, nothing else running; images/s over the whole measurement, since batches come in bursts."""
    torch.set_num_threads(1)
    memory = PeakMemory("cpu")
    start = time.perf_counter()
    options = loader_options(cell, settings) | {"num_workers": LOADER_WORKERS}
    batches = endless(LOADERS[cell.path](settings.data, settings.cache / PACKED_FILE, **options))
    next(batches)
    found: Fields = {"startup_s": time.perf_counter() - start, "device": "cpu"}
    order = turn(found)
    memory.restart()
    others = OtherLoad()
    timing = measure(lambda: next(batches), budget=order.budget, warmup=2 * LOADER_WORKERS, max_repeats=10_000)
    return found | {
        "load": others.cores(),
        "peak_memory_mb": memory.megabytes(),
        "median_ms": 1e3 * timing.median,
        "p10_ms": 1e3 * timing.percentile(10),
        "p90_ms": 1e3 * timing.percentile(90),
        "repeats": timing.repeats,
        "images_s": cell.batch_size * timing.repeats / sum(timing.seconds),
    }


def endless(loader: Loader) -> Iterator[Batch]:
    """The loader's epochs, one after the other without end."""
    for epoch in count():
        loader.set_epoch(epoch)
        yield from loader


def wrong(found: Fields, reason: str) -> Fields:
    """A cell whose answer is wrong: what was found out, the reason, and no time."""
    errors = {name: found[name] for name in ("error", "gradient_error") if name in found}
    finite = {name: error if math.isfinite(error) else None for name, error in errors.items()}
    return found | finite | {"status": "WRONG", "reason": reason}


MEASURE = {"infer": infer, "train": train, "loader": load}


def measure_cell(cell: Cell, settings: Settings, turn: Turn) -> Fields:
    """The last fields of the cell's row, or all of them where it is WRONG; raises FasthgError where it cannot run."""
    return {"status": "ok"} | MEASURE[cell.mode](cell, settings, turn)
