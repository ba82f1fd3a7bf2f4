"""What was measured on this machine, kept between runs so that `auto` can take the fastest path that passed parity.

One JSON file (`measured.json` in `~/.cache/fasthg`, unless $FASTHG_CACHE says otherwise): for each variant, device,
batch size and path the time of the last measurement. The sweep writes it; losing it costs nothing but another sweep.
"""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from filelock import FileLock

from fasthg.files import default_cache_dir, make_folder, write_json

_VERSION = 2  # of the file's layout; another one is ignored


@dataclass(frozen=True)
class Measurement:
    """One path's inference time.

    variant       name in VARIANTS
    path          name with its precision, such as "openvino:bf16"
    device        what it ran on, by model: see `device_model`
    threads       CPU threads it used; 0 on a GPU
    batch_size    images at a time
    ms_per_image  median milliseconds an image
    weights       digest of the weights whose answers were compared with eager's
    """

    variant: str
    path: str
    device: str
    threads: int
    batch_size: int
    ms_per_image: float
    weights: str = ""


def cache_file() -> Path | None:
    """Where measurements are kept; None where there is no cache."""
    folder = default_cache_dir()
    return folder and folder / "measured.json"


def device_model(device: str = "cpu") -> str:
    """The model of a device ("cpu", "cuda", "cuda:1"), by which measurements of another machine are told apart."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(torch.device(device))
    return _cpu_model()


def remember_measurement(measurement: Measurement) -> None:
    """Keep a measurement that passed parity, in place of an earlier one of the same variant, path and conditions.

    Safe to call from several processes. Nothing is kept where there is no cache.
    """
    file = cache_file()
    if file is None:
        return
    make_folder(file.parent)
    with FileLock(f"{file}.lock"):
        kept = [known for known in measurements() if _conditions(known) != _conditions(measurement)]
        write_json(file, {"version": _VERSION, "measurements": [asdict(known) for known in [*kept, measurement]]})


def measurements() -> list[Measurement]:
    """All that is remembered; nothing where the file is missing, damaged or of another layout."""
    file = cache_file()
    if file is None:
        return []
    try:
        content = json.loads(file.read_text())
        if content["version"] != _VERSION:
            return []
        return [Measurement(**row) for row in content["measurements"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def ranking(variant: str, device: str, threads: int, batch_size: int) -> list[Measurement]:
    """Measurements of a variant on a device model and thread count, fastest first, at the measured batch size nearest.

    Empty where nothing fits. `threads` is 0 on a GPU. A path that was checked on several weights is there for each,
    with the newest of its times.
    """
    fitting = [m for m in measurements() if (m.variant, m.device, m.threads) == (variant, device, threads)]
    if not fitting:
        return []
    nearest = min((m.batch_size for m in fitting), key=lambda size: abs(size - batch_size))
    fitting = [m for m in fitting if m.batch_size == nearest]
    newest = {m.path: m.ms_per_image for m in fitting}
    return sorted((replace(m, ms_per_image=newest[m.path]) for m in fitting), key=lambda m: m.ms_per_image)


def _conditions(measurement: Measurement) -> tuple[str | int, ...]:
    m = measurement
    return m.variant, m.path, m.device, m.threads, m.batch_size, m.weights


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
