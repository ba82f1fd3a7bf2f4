"""PCKh parity without trained weights: a reduced network of a variant, trained in seconds, scored by every path.

The reduced network keeps what tells variants apart (depths, blocks, convolutions, norm) in two stacks of a quarter of
the features at 64 px, and learns a handful of people by heart. Its PCKh says nothing about the variant, but its
heatmaps are those of a network that has learnt something: sharp peaks, which a path that computes too roughly moves or
loses. It is scored on views of these people that it has not seen, so many that one joint is a hundredth of a percent;
see `bench.sweep.views`. int8 is calibrated on views that it has learnt.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from bench.sweep.materials import CALIBRATION_IMAGES, CONVERTED_DIR, scored_rows
from bench.sweep.settings import Settings
from bench.sweep.views import Views, make_views, score
from fasthg.data.dataset import load_dataset
from fasthg.errors import FasthgError
from fasthg.files import write_json
from fasthg.network import checkpoint
from fasthg.network.load import create_model
from fasthg.network.model import HourglassNet, heatmap_size
from fasthg.network.variants import HourglassConfig, get_config
from fasthg.pixels.heatmap import render_targets
from fasthg.runtimes.paths import prepare
from fasthg.runtimes.pytorch import placed
from training.loss import heatmap_loss
from training.optim import make_optimizer

STACKS = 2
FEATS_DIVISOR = 4
STEM_FEATS = (16, 32)
SIZE = 64  # pixels, the smallest crop for hourglasses of four levels
PEOPLE = 8
LEARNT_VIEWS, SCORED_VIEWS = 64, 64  # at each of them
BATCH_SIZE, SCORED_AT_A_TIME = 8, 32
CHECKED_VIEWS = 128  # views that tell whether it has learnt enough
LEARNING_RATE = 4e-3
PEAK_WEIGHT = 10.0  # how much more a joint's place counts than empty background: learns a third as long
CHECK_EVERY = 20  # steps between two measurements of PCKh
GOOD_PCKH = 98.0  # percent at which training stops
LIMIT_S = 12.0  # CPU seconds of training after which it stops in any case


def reduced_config(variant: str) -> HourglassConfig:
    """The variant's reduced network: its first and its last hourglass."""
    config = get_config(variant)
    depths = (config.stack_depths[0], config.stack_depths[-1])
    feats = config.num_feats // FEATS_DIVISOR
    return replace(config, num_stacks=STACKS, depths=depths, num_feats=feats, stem_feats=STEM_FEATS)


def reduced_name(variant: str) -> str:
    """Name of the reduced network; variants that differ in nothing else share one."""
    config = reduced_config(variant)
    depths = "".join(map(str, config.stack_depths))
    return f"reduced-{config.num_feats}-{depths}-{config.num_blocks}-{config.num_convs}-{config.norm}"


def short_training(settings: Settings, variant: str, paths: Sequence[tuple[str, str]]) -> None:
    """Train the variant's reduced network and write its weights and its PCKh by each path (name, precision)."""
    folder = settings.cache / reduced_name(variant)
    if (folder / "pckh.json").exists():
        return
    torch.set_num_threads(1)
    dataset = load_dataset(settings.data, "val", check_files=False)
    people = scored_rows(dataset, PEOPLE)
    learnt = make_views(dataset, people, LEARNT_VIEWS, SIZE, seed=settings.seed)
    scored = make_views(dataset, people, SCORED_VIEWS, SIZE, seed=settings.seed + 1)
    model, steps = memorise(reduced_config(variant), learnt, settings.seed)
    basis = (
        f"reduced network ({STACKS} stacks, {model.config.num_feats} features, {SIZE} px) that learnt {len(people)} "
        f"people by heart in {steps} steps, {len(scored):,} other views of them with {scored.num_joints:,} joints, "
        f"{scored.protocol}"
    )
    checkpoint.save(model, folder / "weights.safetensors", metadata={"training": basis})
    scores, reasons = {}, {}
    for path, precision in dict.fromkeys([("eager", "fp32"), *paths]):
        try:
            prepared = prepare(
                model,
                path,
                torch.zeros(SCORED_AT_A_TIME, 3, SIZE, SIZE),
                device=settings.device,
                precision=precision,
                threads=1,
                calibration=learnt.images(slice(0, CALIBRATION_IMAGES)),
                cache_dir=settings.cache / CONVERTED_DIR,
            )
            scores[f"{path}:{precision}"] = score(prepared, scored, SCORED_AT_A_TIME).weighted14
        except FasthgError as error:
            reasons[f"{path}:{precision}"] = str(error)
    write_json(folder / "pckh.json", {"basis": basis, "scores": scores, "reasons": reasons})


def memorise(config: HourglassConfig, views: Views, seed: int) -> tuple[HourglassNet, int]:
    """A network that knows the people of some views by heart, in evaluation mode, and the steps that it took."""
    torch.manual_seed(seed)
    model = placed(create_model(config), torch.device("cpu"), torch.channels_last).train()
    side = heatmap_size(views.size)
    joints, weights = views.points(side)
    targets = render_targets(joints, weights, (side, side))
    importance = (1 + PEAK_WEIGHT * targets).sqrt()
    images = views.images().contiguous(memory_format=torch.channels_last)
    optimizer = make_optimizer("adamw", model.parameters(), LEARNING_RATE, momentum=0.9)
    start, steps = time.process_time(), 0
    while time.process_time() - start < LIMIT_S:
        rows = torch.arange(steps * BATCH_SIZE, (steps + 1) * BATCH_SIZE) % len(views)
        optimizer.zero_grad()
        heatmaps = model(images[rows]) * importance[rows].unsqueeze(1)
        heatmap_loss(heatmaps, targets[rows] * importance[rows], weights[rows]).backward()
        optimizer.step()
        steps += 1
        if (
            steps % CHECK_EVERY == 0
            and score(runner(model), views[:CHECKED_VIEWS], CHECKED_VIEWS).weighted14 >= GOOD_PCKH
        ):
            break
    trained = create_model(config).eval()
    trained.load_state_dict(model.state_dict())  # back to the usual memory format
    return trained, steps


def runner(model: HourglassNet) -> Callable[[Tensor], Tensor]:
    """The network in evaluation mode; training mode comes back after each call."""

    def run(images: Tensor) -> Tensor:
        model.eval()
        heatmaps = model.final(images)
        model.train()
        return heatmaps

    return run


def reduced_pckh(settings: Settings, variant: str, path: str, precision: str) -> dict[str, object]:
    """The fields of a `Row` that the short training found for a path; empty where it did not run."""
    file = settings.cache / reduced_name(variant) / "pckh.json"
    if not file.exists():
        return {}
    found = json.loads(file.read_text())
    score, eager = found["scores"].get(f"{path}:{precision}"), found["scores"].get("eager:fp32")
    if score is None or eager is None:
        return {}
    return {"pckh": score, "pckh_change": score - eager, "pckh_basis": found["basis"]}
