"""What this machine is, what it can run, and why not the rest: what `fasthg env` prints."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.console import Group
from rich.table import Table

from fasthg.errors import FasthgError
from fasthg.kernels.cpu import NATIVE_ERROR
from fasthg.network.load import WEIGHTS_DIR, create_model
from fasthg.network.model import HourglassNet
from fasthg.network.variants import VARIANTS
from fasthg.runtimes.choose import choose_path
from fasthg.runtimes.measured import cache_file, device_model, measurements
from fasthg.runtimes.paths import PATHS
from fasthg.version import LIBRARIES, __version__, installed

#: CPU features that decide how fast a path is, as Linux names them.
CPU_FEATURES = (
    *("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("avx_vnni", "amx_bf16", "amx_int8"),
)


def describe() -> dict[str, Any]:
    """JSON-able description: versions, CPU, memory, GPUs, the compiled operators and every execution path."""
    return {
        "fasthg": __version__,
        "python": platform.python_version(),
        "libraries": installed([*LIBRARIES, "opencv-python-headless", "av"]),
        "cpu": {
            "model": device_model("cpu"),
            "cores": psutil.cpu_count(logical=False),
            "threads": torch.get_num_threads(),
            "features": cpu_features(),
            "pytorch_uses": torch.backends.cpu.get_cpu_capability(),
        },
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "gpus": _gpus(),
        "native_operators": NATIVE_ERROR or "built",
        "paths": {name: _path(name) for name in PATHS},
        "auto": {name: choose_path(_shipped(name) or config)[0] for name, config in VARIANTS.items()},
        "measurements": {"file": str(cache_file() or "no cache"), "kept": len(measurements())},
    }


def _shipped(variant: str) -> HourglassNet | None:
    """The variant's network with the weights that ship with the package, where some do."""
    return create_model(variant, "default") if (WEIGHTS_DIR / f"{variant}.safetensors").is_file() else None


def cpu_features() -> list[str]:
    """Those of CPU_FEATURES that this CPU has; empty where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return [feature for feature in CPU_FEATURES if feature in flags]


def _gpus() -> list[dict[str, Any]]:
    if not torch.cuda.is_available():
        return []
    properties = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return [
        {"name": p.name, "compute": f"{p.major}.{p.minor}", "memory_gb": round(p.total_memory / 1e9, 1)}
        for p in properties
    ]


def _path(name: str) -> dict[str, Any]:
    """What a path is, and for each device and precision "runs" or the reason why not.

    CUDA is left out where there is none and the path has another device.
    """
    path = PATHS[name]
    here = [device for device in path.on if device != "cuda" or torch.cuda.is_available()]
    return {
        "summary": path.summary,
        "modes": list(path.modes),
        "devices": {
            device: {precision: _why_not(name, device, precision) or "runs" for precision in path.on[device]}
            for device in here or path.on
        },
    }


def _why_not(name: str, device: str, precision: str) -> str | None:
    try:
        reason = PATHS[name].why_not(device, precision)
    except (FasthgError, ImportError, RuntimeError, OSError) as error:  # a broken installation is a reason, too
        reason = f"{type(error).__name__}: {error}"
    return " ".join(reason.removeprefix(f"{name}: ").split()) if reason else None


def machine_tables(content: dict[str, Any]) -> Group:
    """What the machine is, and every path with each precision: runs, or why not."""
    cpu = content["cpu"]
    facts = Table(show_header=False, title="This machine")
    facts.add_row("fasthg", f"{content['fasthg']}, Python {content['python']}")
    facts.add_row("libraries", ", ".join(f"{name} {version}" for name, version in content["libraries"].items()))
    facts.add_row(
        "CPU", f"{cpu['model']}: {cpu['cores']} cores, {cpu['threads']} threads used, {content['memory_gb']} GB"
    )
    facts.add_row("CPU features", f"{' '.join(cpu['features']) or 'not known'} (PyTorch uses {cpu['pytorch_uses']})")
    gpus = [f"{gpu['name']} (compute {gpu['compute']}, {gpu['memory_gb']} GB)" for gpu in content["gpus"]]
    facts.add_row("GPU", ", ".join(gpus) or "none that PyTorch can use")
    native = content["native_operators"]
    facts.add_row(
        "compiled operators", native if native == "built" else f"NOT BUILT, the slow reference runs: {native}"
    )
    kept = content["measurements"]
    facts.add_row("measured", f"{kept['kept']} times in {kept['file']}; python -m bench.sweep adds to them")
    facts.add_row("auto takes", _grouped(content["auto"]))
    paths = Table(title="Execution paths")
    for column in ("path", "device", "precision", "here", "what it is"):
        paths.add_column(column)
    for name, path in content["paths"].items():
        first = True
        for device, precisions in path["devices"].items():
            for precision, answer in precisions.items():
                here = answer if answer == "runs" else f"no: {answer}"
                paths.add_row(name if first else "", device, precision, here, path["summary"] if first else "")
                first = False
    return Group(facts, paths)


def _grouped(choices: dict[str, str]) -> str:
    """ "channels_last (original, small); openvino:bf16 (feats64)"."""
    paths = dict.fromkeys(choices.values())
    return "; ".join(f"{path} ({', '.join(v for v, p in choices.items() if p == path)})" for path in paths)
