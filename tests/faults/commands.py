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
from tests.fasthg.network.conftest import _pytorch_pose_names
from tests.faults.outcome import ended, start
from training.state import LAST


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
    network = fasthg.HourglassNet(HourglassConfig(num_stacks=1, num_feats=16, depths=2))
    save(network, folder / "tiny.safetensors")
    torch.save({"state_dict": _pytorch_pose_names(network)}, folder / "published.pth.tar")
    for i in range(12):
        pixels = np.random.default_rng(i).integers(0, 256, (300, 400, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(folder / "photos" / f"{i}.jpg")
    people = ["--train", "24", "--val", "4", "--seed", "1", "--size", "160x120", "--workers", "1"]
    code, output = ended(start(["-m", "training.synthesize", "--out", str(folder / "people"), *people]))
    if code:
        raise RuntimeError(output[-500:])


def _resume(run: Path) -> list[str]:
    """How a training goes on: from its last state, or from the start where it had none."""
    return ["--resume"] if (run / LAST).exists() else []


def commands(material: Path) -> list[Command]:
    """predict, convert, export, pack, training and the sweep."""
    weights, people = str(material / "tiny.safetensors"), str(material / "people")
    predict = ["-m", "fasthg.cli", "predict", str(material / "photos"), "--weights", weights, "--path", "eager"]
    export = ["-m", "fasthg.cli", "export", "--weights", weights, "--size", "64", "--batch", "1"]
    convert = ["-m", "fasthg.cli", "convert", str(material / "published.pth.tar")]
    train = ["-m", "training.train", "--variant", "small", "--data", people, "--epochs", "2", "--batch-size", "4"]
    train += ["--no-tensorboard", "--num-workers", "0"]

    def training(out: Path) -> list[str]:
        return [*train, "--out", str(out / "run")]

    def sweep(out: Path) -> list[str]:
        narrow = ["--variants", "small", "--paths", "eager,onnxruntime", "--modes", "infer", "--minutes", "1"]
        return ["-m", "bench.sweep", *narrow, "--data", people, "--out", str(out / "sweep")]

    def plain(name: str, first: list[str], option: str, inside: str, again: tuple[str, ...] = ()) -> Command:
        return Command(
            name,
            lambda out: [*first, option, str(out / inside)],
            lambda out: [*first, option, str(out / inside), *again],
        )

    return [
        plain("predict", predict, "-o", "poses", ("--overwrite",)),
        plain("convert", convert, "-o", "network.safetensors", ("--overwrite",)),
        plain("export", export, "-o", "artefact", ("--overwrite",)),
        plain("pack", ["-m", "training.pack", "--data", people], "--out", "crops.h5", ("--overwrite",)),
        Command("train", training, lambda out: [*training(out), *_resume(out / "run")]),
        Command("sweep", sweep, lambda out: [*sweep(out), "--resume"]),
    ]
