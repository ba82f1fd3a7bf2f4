"""From weights or an artefact to something that answers: which network, which path, which device."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from fasthg.auto import choose_path
from fasthg.checkpoint import check_same_network, default_weights, load_config, load_into, load_model, read_metadata
from fasthg.errors import FasthgError
from fasthg.geometry import JOINT_NAMES
from fasthg.model import HourglassNet
from fasthg.paths import prepare
from fasthg.runtimes.base import Prepared
from fasthg.variants import INPUT_SIZE, get_config

log = logging.getLogger("fasthg")


def load_network(weights: str | Path | None = None, variant: str | None = None) -> HourglassNet:
    """The network with its weights, in evaluation mode, on the CPU.

    weights  a `.safetensors` checkpoint; None for those that ship with the package, which is said
    variant  what the network must be; None takes it from the file

    Raises FasthgError where the two disagree or the file does not say its network.
    """
    if weights is None:
        weights = default_weights(variant or "small")
        log.info("weights: the %s network that ships with fasthg", variant or "small")
    if variant is None:
        return load_model(weights)
    config = get_config(variant)
    if "config" not in read_metadata(weights):
        model = HourglassNet(config)
        load_into(model, weights)
        return model.eval()
    check_same_network(str(weights), load_config(weights), config)
    return load_model(weights)


def load_runner(
    weights: str | Path | HourglassNet | None = None,
    variant: str | None = None,
    runtime: str = "auto",
    device: str | torch.device = "auto",
    batch_size: int = 1,
    size: int | None = None,
    threads: int | None = None,
) -> tuple[int, Prepared, str]:
    """The side of the crops, what answers them, and one sentence that says why it was chosen.

    weights  as `load_network`, or a folder that `fasthg export` wrote, or a network
    runtime  a path's name, or "auto": see `fasthg.auto`
    """
    model = weights if isinstance(weights, HourglassNet) else load_network(weights, variant)
    if model.config.num_joints != len(JOINT_NAMES):
        raise FasthgError(
            f"the network has {model.config.num_joints} joints; poses are predicted for MPII's {len(JOINT_NAMES)} only"
        )
    size = size or INPUT_SIZE
    path, why = choose_path(model.config, device, batch_size, threads) if runtime == "auto" else (runtime, "as asked")
    example = torch.zeros(batch_size, 3, size, size)
    return size, prepare(model, path, example, device=device, threads=threads), why
