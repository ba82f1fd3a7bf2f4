"""Train the reduced networks that ship for the sweep's PCKh parity: each variant's own structure, small.

    python -m training.synthesize --out people --train 8000 --val 500 --seed 41 --size 320x240
    python -m bench.study.reduced --data people --out reduced

Every network keeps what tells its variant apart (depths, blocks, convolutions, norm) in two stacks, its first and its
last, at a quarter of the width, and learns rendered people at 64 px. `OUT/reduced-VARIANT.safetensors` holds its
weights and its figure; a run that was interrupted goes on with the same command.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import torch
import typer

from bench.study.trainings import SHORT, run_quietly
from fasthg.console import note, run_command
from fasthg.files import make_folder
from fasthg.network import checkpoint
from fasthg.network.variants import HourglassConfig, get_config
from training.state import LAST

STACKS = 2
FEATS_DIVISOR = 4
STEM_FEATS = (16, 32)
SIZE = 64  # pixels, the smallest crop for hourglasses of four levels
#: `stacks6` differs from `original` in the number of stacks alone: reduced they are one network.
VARIANTS = (
    *("original", "feats64", "stacks6-feats64-blocks4", "feats64-layernorm"),
    *("feats64-deepening", "feats64-shallowing", "convs4"),
)


def reduced_config(variant: str) -> HourglassConfig:
    """The variant's reduced network: its first and its last hourglass."""
    config = get_config(variant)
    depths = (config.stack_depths[0], config.stack_depths[-1])
    feats = config.num_feats // FEATS_DIVISOR
    return replace(config, num_stacks=STACKS, depths=depths, num_feats=feats, stem_feats=STEM_FEATS)


def train_one(variant: str, data: Path, out: Path, epochs: int) -> tuple[str, float]:
    """Train one network, or go on with it, and write its weights; returns its PCKh@0.5."""
    recipe = replace(
        SHORT,
        variant=reduced_config(variant),
        size=SIZE,
        batch_size=16,
        epochs=epochs,
        lr=2.5e-3,
        warmup=100,
        ema=0.995,
    )
    trainer, result = run_quietly(data, recipe, out / variant)
    score = result.history[-1]["weighted14_pckh@0.5"]
    people = len(trainer.dataset)
    about = f"PCKh@0.5 weighted14 {score:.1f} at {SIZE} px on held-out rendered people, {epochs} epochs of {people:,}"
    model = checkpoint.load_model(out / variant / LAST)
    checkpoint.save(model, out / f"reduced-{variant}.safetensors", metadata={"about": about}, dtype=torch.float16)
    return variant, score


def train_all(
    data: Annotated[Path, typer.Option(help="folder of people, such as training.synthesize renders")],
    out: Annotated[Path, typer.Option(help="folder of the weights and of the runs' checkpoints")],
    epochs: Annotated[int, typer.Option(help="passes over the people")] = 9,
    jobs: Annotated[int, typer.Option(help="networks at a time, one thread each")] = 2,
) -> None:
    """Train the reduced network of every variant."""
    make_folder(out)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(train_one, variant, data, out, epochs) for variant in VARIANTS]):
            note("{}: PCKh@0.5 weighted14 {:.2f}".format(*future.result()))


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return run_command(train_all, argv, "python -m bench.study.reduced")


if __name__ == "__main__":
    sys.exit(main())
