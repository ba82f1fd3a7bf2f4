"""The commands that the campaign disturbs: small, on material that is rendered once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import torch

import fasthg
from fasthg.network.checkpoint import save
from fasthg.network.variants import HourglassConfig
from tests.faults.outcome import ended, start


@dataclass(frozen=True)
class Command:
    """One command.

    arguments  of Python, for a folder of results
    rerun      the same after it was killed
    """

    name: str
    arguments: Callable[[Path], list[str]]
    rerun: Callable[[Path], list[str]]


def make_material(folder: Path) -> None:
    """Weights, photographs and people that the commands read."""
    (folder / "photos").mkdir(parents=True)
    torch.manual_seed(0)
    save(fasthg.HourglassNet(HourglassConfig(num_stacks=1, num_feats=16, depths=2)), folder / "tiny.safetensors")
    for i in range(12):
        pixels = np.random.default_rng(i).integers(0, 256, (300, 400, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(folder / "photos" / f"{i}.jpg")
    people = ["--train", "24", "--val", "4", "--seed", "1", "--size", "160x120", "--workers", "1"]
    code, output = ended(start(["-m", "training.synthesize", "--out", str(folder / "people"), *people]))
    if code:
        raise RuntimeError(output[-500:])


def commands(material: Path) -> list[Command]:
    """predict, eval's export, pack, synthesize and training."""
    weights, people = str(material / "tiny.safetensors"), str(material / "people")
    predict = ["-m", "fasthg.cli", "predict", str(material / "photos"), "--weights", weights, "--path", "eager"]
    export = ["-m", "fasthg.cli", "export", "--weights", weights, "--size", "64", "--batch", "1"]
    train = ["-m", "training.train", "--variant", "small", "--data", people, "--epochs", "2", "--batch-size", "4"]
    train += ["--no-tensorboard", "--num-workers", "0"]

    def plain(name: str, first: list[str], option: str, inside: str, again: tuple[str, ...] = ()) -> Command:
        return Command(
            name,
            lambda out: [*first, option, str(out / inside)],
            lambda out: [*first, option, str(out / inside), *again],
        )

    return [
        plain("predict", predict, "-o", "poses", ("--overwrite",)),
        plain("export", export, "-o", "artefact"),
        plain("pack", ["-m", "training.pack", "--data", people], "--out", "crops.h5"),
        plain("train", train, "--out", "run", ("--resume",)),
    ]
