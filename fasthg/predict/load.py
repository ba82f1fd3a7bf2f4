"""From weights or an artefact to something that answers: which network, which path, which device."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from fasthg.errors import FasthgError
from fasthg.export.artefact import Artefact, check_path, is_artefact, load_artefact, read_artefact
from fasthg.network.checkpoint import check_same_network
from fasthg.network.load import load_network
from fasthg.network.model import HourglassNet
from fasthg.network.variants import get_config
from fasthg.pixels.skeleton import Skeleton
from fasthg.predict.depth import WHOLE, Depth, cut, leave_early
from fasthg.runtimes.choose import choose_path
from fasthg.runtimes.paths import prepare
from fasthg.runtimes.request import Mode, Prepared, check_can_run

log = logging.getLogger("fasthg")


@dataclass(frozen=True)
class Served:
    """A network that is ready to answer.

    runner      images float32 [N, 3, size, size] -> heatmaps; says which path, device and precision it is
    size        side of the crops in pixels
    batch_size  people in one run
    why         one sentence on the choice of the path
    mean        what the network takes off RGB in 0..1
    skeleton    which points it finds
    end_to_end  the runner takes crops uint8 [N, size, size, 3] instead and returns points and scores: see Prepared
    """

    runner: Prepared
    size: int
    batch_size: int
    why: str
    mean: tuple[float, float, float]
    skeleton: Skeleton
    end_to_end: bool = False


def load_runner(
    weights: str | Path | HourglassNet | None = None,
    variant: str | None = None,
    runtime: str = "auto",
    device: str | torch.device = "auto",
    batch_size: int = 1,
    size: int | None = None,
    threads: int | None = None,
    mode: Mode = "latency",
    depth: Depth = WHOLE,
) -> Served:
    """What answers crops of people.

    weights     as `load_network`, or a network, or a folder that `fasthg export` wrote
    runtime     a path's name, or "auto": see `fasthg.runtimes.choose`; an exported network
                is run by what it was exported for
    batch_size  people in one run; less where an exported network takes less
    size        side of the crops in pixels; None for the network's own, and an exported one has no other
    mode        "latency" or "throughput"
    depth       how many of the network's stacks run

    Raises FasthgError for what does not fit together, BackendUnavailable for what cannot run here.
    """
    check_can_run()
    if isinstance(weights, (str, Path)) and is_artefact(weights):
        if depth != WHOLE:
            raise FasthgError(f"artefact {weights} runs as it was exported; give --stacks to `fasthg export` instead")
        return _load_exported(read_artefact(weights), variant, runtime, device, batch_size, size, threads, mode)
    model = weights if isinstance(weights, HourglassNet) else load_network(weights, variant)
    size = size or model.config.input_size
    path, why = choose_path(model, device, batch_size, threads) if runtime == "auto" else (runtime, "as asked")
    if depth.early_exit is not None:
        path = "channels_last" if runtime == "auto" else path
    example = torch.zeros(batch_size, 3, size, size)
    model, chosen = cut(model, depth, path, example, device, threads, mode)
    if depth.early_exit is not None:
        prepared = leave_early(model, depth.early_exit, path, example, device, threads)
    else:
        prepared = prepare(model, path, example, device=device, threads=threads, mode=mode)
    why = "; ".join(filter(None, (why, chosen)))
    return Served(prepared, size, batch_size, why, model.config.mean, model.config.skeleton)


def _load_exported(
    artefact: Artefact,
    variant: str | None,
    runtime: str,
    device: str | torch.device,
    batch_size: int,
    size: int | None,
    threads: int | None,
    mode: Mode,
) -> Served:
    source = f"artefact {artefact.folder}"
    if variant is not None:
        check_same_network(source, artefact.config, get_config(variant))
    if size not in (None, artefact.size):
        raise FasthgError(f"{source} takes crops of {artefact.size} pixels, not {size}; leave the size out")
    check_path(artefact, runtime)
    batch_size = min(batch_size, artefact.max_batch)
    prepared = load_artefact(artefact, device, batch_size, threads, mode)
    why = f"exported for {prepared.path}"
    config = artefact.config
    return Served(prepared, artefact.size, batch_size, why, config.mean, config.skeleton, artefact.end_to_end)
