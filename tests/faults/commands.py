"""The commands that the campaign disturbs: small, on material that is rendered once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
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
    exact      patterns of the results that are the same, byte for byte, however often it was killed
    lasting    patterns of those that stay from a killed run
    grows      whether results are replaced by later ones while it runs
    """

    name: str
    arguments: Callable[[Path], list[str]]
    rerun: Callable[[Path], list[str]]
    exact: tuple[str, ...]
    lasting: tuple[str, ...] = ()
    grows: bool = False

    def result(self, out: Path) -> dict[str, str]:
        """What has to be the same after a kill and a second run: names of all files, and the content of some; of a
        sweep, its cells, since how many of them get a time depends on the machine's load."""
        if rows := list(_sweep_rows(out)):
            return {"cells": ", ".join(sorted({cell for cell, _status in rows}))}
        names = [path for path in sorted(out.rglob("*")) if path.is_file() and ".part" not in str(path)]
        found = {str(path.relative_to(out)): "" for path in names if not path.name.startswith(".")}
        return found | _digests(out, self.exact)

    def done(self, out: Path) -> set[str]:
        """What a killed command has done, of which nothing may be lost or change when it is run again."""
        return {f"{cell} {status}" for cell, status in _sweep_rows(out) if status == "ok"} | {
            f"{name} {digest}" for name, digest in _digests(out, self.lasting).items()
        }


def _digests(out: Path, patterns: tuple[str, ...]) -> dict[str, str]:
    files = [path for pattern in patterns for path in out.glob(pattern) if not path.name.startswith(".")]
    return {str(path.relative_to(out)): hashlib.sha256(_content(path)).hexdigest()[:8] for path in files}


def _content(path: Path) -> bytes:
    """What is in a file, without the times that it took: of weights the numbers alone, of predictions the poses."""
    content = path.read_bytes()
    if path.name == "predictions.json":
        return json.dumps(json.loads(content)["predictions"]).encode()
    return content[8 + int.from_bytes(content[:8], "little") :] if path.suffix == ".safetensors" else content


def _sweep_rows(out: Path) -> Iterator[tuple[str, str]]:
    """Each cell of a sweep with how it ended."""
    for path in out.rglob("results.jsonl"):
        for row in filter(None, (json.loads(line).get("row") for line in path.read_text().splitlines())):
            yield f"{row['path']}:{row['precision']} at {row['batch_size']}", row["status"]


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


def _resume_sweep(run: Path) -> list[str]:
    """How a sweep goes on: in its folder, where it had come as far as to make it."""
    return ["--resume"] if run.is_dir() else []


def commands(material: Path) -> list[Command]:
    """predict, label, convert, export, pack, training and the sweep."""
    weights, people = str(material / "tiny.safetensors"), str(material / "people")
    predict = ["-m", "fasthg.cli", "predict", str(material / "photos"), "--weights", weights, "--path", "eager"]
    label = ["-m", "fasthg.cli", "label", str(material / "photos"), "--weights", weights, "--path", "eager"]
    label += ["--block", "3", "--format", "coco"]
    export = ["-m", "fasthg.cli", "export", "--weights", weights, "--size", "64", "--batch", "1"]
    convert = ["-m", "fasthg.cli", "convert", str(material / "published.pth.tar")]
    train = ["-m", "training.train", "--variant", "small", "--data", people, "--epochs", "2", "--batch-size", "4"]
    train += ["--no-tensorboard", "--num-workers", "0", "--size", "64"]

    def training(out: Path) -> list[str]:
        return [*train, "--out", str(out / "run")]

    def sweep(out: Path) -> list[str]:
        narrow = ["--variants", "small", "--paths", "eager,onnxruntime", "--modes", "infer", "--minutes", "1"]
        return ["-m", "bench.sweep", *narrow, "--data", people, "--out", str(out / "sweep")]

    def plain(name: str, first: list[str], option: str, inside: str, exact: str, *again: str) -> Command:
        return Command(
            name,
            lambda out: [*first, option, str(out / inside)],
            lambda out: [*first, option, str(out / inside), *again],
            (exact,),
        )

    pack = ["-m", "training.pack", "--data", people]
    return [
        plain("predict", predict, "-o", "poses", "poses/predictions.json", "--overwrite"),
        replace(plain("label", label, "-o", "labels", "labels/*"), lasting=("labels/part-*",)),
        plain("convert", convert, "-o", "network.safetensors", "*", "--overwrite"),
        plain("export", export, "-o", "artefact", "artefact/*.onnx", "--overwrite"),
        plain("pack", pack, "--out", "crops.h5", "*.h5", "--overwrite"),
        Command(
            "train",
            training,
            lambda out: [*training(out), *_resume(out / "run")],
            ("run/last.safetensors",),
            grows=True,
        ),
        Command("sweep", sweep, lambda out: [*sweep(out), *_resume_sweep(out / "sweep")], (), grows=True),
    ]
