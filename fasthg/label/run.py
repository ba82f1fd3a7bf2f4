"""`fasthg label`: everything of some sources, block by block, here or by Ray; what was done before is not done again.

OUT/label.json           what answers, so that a restart with something else is refused, and how videos are cut
OUT/network.safetensors  the network, where actors of Ray have to read it
OUT/part-NAME.parquet    the rows of a block, see `fasthg.label.rows`; it appears whole or not at all
OUT/keypoints.json       COCO's format, made from the parts at the end where that is asked for
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from fasthg.console import note, progress_bar
from fasthg.errors import FasthgError
from fasthg.export.artefact import check_path, is_artefact, read_artefact
from fasthg.files import sha256
from fasthg.label.items import Block, cut_blocks, list_items, without_frames
from fasthg.label.places import Place
from fasthg.label.rows import read_done, write_coco
from fasthg.label.worker import NETWORK, Labeller, write_network
from fasthg.network.checkpoint import weights_digest
from fasthg.network.load import load_network
from fasthg.network.model import HourglassNet
from fasthg.pixels.skeleton import Skeleton
from fasthg.predict.depth import WHOLE, Depth
from fasthg.runtimes.choose import choose_path
from fasthg.runtimes.paths import PATHS, parse_path
from fasthg.runtimes.request import resolve_device

ABOUT = "label.json"
FORMATS = ("parquet", "coco")


@dataclass(frozen=True)
class LabelOptions:
    """How sources are labelled.

    weights     as `fasthg.Predictor`; an exported folder has to be there on every machine
    path        of execution; "auto" as the run before took it, else the fastest that was measured here
    depth       how many stacks run
    flip        average with the mirrored image
    batch_size  people in one run of the network
    size        side of the crops, pixels
    threads     CPU threads of one predictor
    actors      predictors side by side; None for one on each GPU, else for each `threads` CPUs
    block       pictures that are kept in one file, and, in a new folder, frames of a range of a video
    ray         None for this process alone; "local", or the address of a cluster
    format      "parquet", or "coco" for its JSON beside the Parquet files
    """

    weights: str | Path | None = None
    variant: str | None = None
    path: str = "auto"
    device: str = "auto"
    depth: Depth = WHOLE
    flip: bool = False
    batch_size: int = 8
    size: int | None = None
    threads: int | None = None
    actors: int | None = None
    block: int = 64
    ray: str | None = None
    format: str = "parquet"

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise FasthgError(f"unknown format {self.format!r}; choose one of {', '.join(FORMATS)}")
        if self.depth.budget_ms is not None:
            raise FasthgError("machines differ in how many stacks fit into a budget; give --stacks")
        for name in ("batch_size", "block", "threads", "actors"):
            if (getattr(self, name) or 1) < 1 or getattr(self, name) == 0:
                raise FasthgError(f"{name} is {getattr(self, name)}; give at least 1")


@dataclass
class Counts:
    """What a run did: pictures with somebody, people, and rows with a reason instead."""

    images: int = 0
    people: int = 0
    left_out: int = 0
    seconds: float = 0.0

    def add(self, counts: dict[str, Any]) -> None:
        self.images += int(counts["images"])
        self.people += int(counts["people"])
        self.left_out += int(counts["left_out"])

    def __str__(self) -> str:
        rate = self.images / self.seconds if self.seconds else 0.0
        text = f"{self.images:,} images, {self.people:,} people in {self.seconds:.1f} s: {rate:.1f} images/s"
        return text + (f"; {self.left_out:,} rows have a reason instead of a pose" if self.left_out else "")


def label(sources: Sequence[str], out: str, options: LabelOptions) -> Counts:
    """Label what is not labelled yet, and say how far it is.

    Raises FasthgError for a source that does not exist and for a folder that holds something else, or labels of another
    network; BackendUnavailable where the path cannot run.
    """
    place = Place(out)
    model, skeleton, answers = _network(options)
    path, frames = _identify(place, answers | {"flip": options.flip, "size": options.size}, options, model)
    done, held = read_done(place)
    items = list_items(sources, frames, place)
    blocks = list(cut_blocks(without_frames(items, done, held), options.block, done))
    left = sum(item.size for block in blocks for item in block.items)
    before = len(items) - sum(len(block.items) for block in blocks)
    note(f"{len(items):,} items, {before:,} of them done before; path {path}")
    if model is not None and options.ray is not None:
        write_network(place, model)
    predictor = {
        "weights": str(options.weights) if model is None else model if options.ray is None else NETWORK,
        "variant": options.variant,
        "runtime": path,
        "flip": options.flip,
        "batch_size": options.batch_size,
        "size": options.size,
        "depth": options.depth,
    }
    counts, start = Counts(), time.perf_counter()
    with progress_bar() as bar:
        task = bar.add_task("images", total=left)
        for found in _run(out, blocks, predictor, options):
            counts.add(found)
            counts.seconds = time.perf_counter() - start
            bar.update(task, completed=counts.images, description=f"{counts.images / counts.seconds:.0f} images/s")
    if options.format == "coco":
        note(f"wrote {write_coco(place, skeleton).where}")
    note(str(counts))
    return counts


def _run(out: str, blocks: list[Block], predictor: dict[str, Any], options: LabelOptions) -> Iterable[dict[str, Any]]:
    if not blocks:
        return []
    if options.ray is not None:
        from fasthg.label.cluster import run_by_ray

        return run_by_ray(out, blocks, predictor, options)
    labeller = Labeller(out, predictor | {"device": options.device, "threads": options.threads, "mode": "throughput"})
    return map(labeller.label, blocks)


def _network(options: LabelOptions) -> tuple[HourglassNet | None, Skeleton, dict[str, Any]]:
    """The network, None for an exported one; its points; and what tells its answers from another's."""
    weights = options.weights
    if weights is not None and is_artefact(weights):
        artefact = read_artefact(weights)
        if options.depth != WHOLE:
            raise FasthgError(f"artefact {weights} runs as it was exported; leave --stacks and --early-exit out")
        check_path(artefact, options.path)
        files = (artefact.folder / name for name in sorted(artefact.metadata["files"]))
        answers = {"weights": sha256(*files), "depth": asdict(WHOLE)}
        return None, artefact.config.skeleton, answers
    model = load_network(weights, options.variant)
    if options.depth.stacks is not None:
        model.config.first(options.depth.stacks)
    return model, model.config.skeleton, {"weights": weights_digest(model), "depth": asdict(options.depth)}


def _identify(
    out: Place, answers: dict[str, Any], options: LabelOptions, model: HourglassNet | None
) -> tuple[str, int]:
    """Write or check OUT/label.json; the path to run by and the frames of a range, which a restart takes from there.

    Raises FasthgError where the folder holds other files, or labels of another network or path.
    """
    about, names = out.child(ABOUT), [name for name in out.names() if not name.startswith(".")]
    if ABOUT not in names:
        if names:
            raise FasthgError(f"{out.where} holds other files and no {ABOUT}; give another -o")
        path = _path(options, model)
        out.make_folder()
        about.write(json.dumps(answers | {"path": path, "range": options.block}, indent=2).encode() + b"\n")
        return path, options.block
    try:
        kept = json.loads(about.read())
        path, frames = kept.pop("path"), int(kept.pop("range", options.block))  # earlier releases do not say it
    except (ValueError, KeyError, AttributeError, TypeError):
        raise FasthgError(f"{about.where} is damaged; give another -o") from None
    different = [name for name in answers if kept.get(name) != answers[name]]
    if options.path != "auto" and _path(options, model) != path:
        different.append(f"path, which was {path}")
    if different:
        raise FasthgError(f"{out.where} holds labels by other {', '.join(different)}; give the same, or another -o")
    return path, frames


def _path(options: LabelOptions, model: HourglassNet | None) -> str:
    """The path with its precision, the same for all predictors."""
    if model is None:
        return "auto"
    device = options.device
    if options.depth.early_exit is not None and options.path == "auto":
        return "channels_last:fp32"
    if options.path == "auto":
        cuda_elsewhere = str(device).startswith("cuda") and not torch.cuda.is_available()
        if cuda_elsewhere:
            raise FasthgError("no GPU here to choose a path by; give --path, such as fused:fp16")
        text = choose_path(model, device, options.batch_size, options.threads)[0]
    else:
        text = options.path
    name, precision = parse_path(text)
    return f"{name}:{precision or PATHS[name].default_precision(resolve_device(device))}"
