"""Which path `auto` takes: the fastest that was measured on this device and passed parity, else a plain one.

A path that computes in less than fp32 passed with some weights and may fail with others, so it counts for the weights
that it was checked on alone.
"""

from __future__ import annotations

import torch

from fasthg.kernels.layout import padded_channels
from fasthg.network.checkpoint import variant_name, weights_digest
from fasthg.network.model import HourglassNet
from fasthg.network.variants import HourglassConfig
from fasthg.runtimes.measured import device_model, ranking
from fasthg.runtimes.paths import PATHS, parse_path
from fasthg.runtimes.request import resolve_device


def choose_path(
    network: HourglassNet | HourglassConfig,
    device: str | torch.device = "auto",
    batch_size: int = 1,
    threads: int | None = None,
) -> tuple[str, str]:
    """The path ("name:precision") for a network on a device, and one sentence that says why.

    A configuration stands for weights that nothing was checked on. int8 is left out: it needs crops to be calibrated
    on, which an exported artefact carries in itself.
    """
    target = resolve_device(device)
    count = 0 if target.type == "cuda" else threads or torch.get_num_threads()
    config = network.config if isinstance(network, HourglassNet) else network
    found = ranking(variant_name(config) or "", device_model(str(target)), count, batch_size)
    weights = weights_digest(network) if found and isinstance(network, HourglassNet) else None
    for measured in found:
        name, precision = parse_path(measured.path)
        checked = precision == "fp32" or measured.weights == weights
        if checked and precision != "int8" and PATHS[name].why_not(target, precision) is None:
            return measured.path, (
                f"{measured.path} was the fastest measured here ({measured.ms_per_image:.3g} ms an image at batch"
                f" {measured.batch_size})"
            )
    return _unmeasured(config, target), "nothing was measured here for this network; python -m bench.sweep measures"


def _unmeasured(config: HourglassConfig, device: torch.device) -> str:
    """Exact and free of start-up time: our own kernels on the CPU where they are built and take the network."""
    widths = (*config.stem_feats, config.num_feats)
    fits = config.norm == "batch" or all(padded_channels(width) == width for width in widths)
    if device.type == "cpu" and fits and PATHS["fused"].why_not(device, "fp32") is None:
        return "fused:fp32"
    return "channels_last"
