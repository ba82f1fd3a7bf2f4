"""Which path `auto` takes: the fastest that was measured on this device and passed parity, else a plain one."""

from __future__ import annotations

import torch

from fasthg.network.checkpoint import variant_name
from fasthg.network.variants import HourglassConfig
from fasthg.runtimes.measured import device_model, ranking
from fasthg.runtimes.paths import PATHS, parse_path
from fasthg.runtimes.request import resolve_device

#: Where nothing was measured, the first that runs: exact and quick to start on the CPU, half precision on a GPU.
_UNMEASURED = {"cpu": ("fused:fp32", "channels_last"), "cuda": ("amp",)}


def choose_path(
    config: HourglassConfig, device: str | torch.device = "auto", batch_size: int = 1, threads: int | None = None
) -> tuple[str, str]:
    """The path ("name:precision") for a network on a device, and one sentence that says why.

    int8 is left out: it needs crops to be calibrated on, which an exported artefact carries in itself.
    """
    target = resolve_device(device)
    count = 0 if target.type == "cuda" else threads or torch.get_num_threads()
    for measured in ranking(variant_name(config) or "", device_model(str(target)), count, batch_size):
        name, precision = parse_path(measured.path)
        if precision != "int8" and PATHS[name].why_not(target, precision) is None:
            return measured.path, (
                f"{measured.path} was the fastest measured here ({measured.ms_per_image:.3g} ms an image at batch"
                f" {measured.batch_size})"
            )
    runs = [path for path in _UNMEASURED[target.type] if PATHS[path.partition(":")[0]].why_not(target) is None]
    return (runs or _UNMEASURED[target.type])[
        0
    ], "nothing was measured here for this network; python -m bench.sweep measures"
