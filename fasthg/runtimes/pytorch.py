"""PyTorch itself: `eager`, `channels_last` and `amp`."""

from __future__ import annotations

import copy
import platform

import torch
from torch import Tensor

from fasthg.network.model import HourglassNet
from fasthg.network.precision import keep_exact
from fasthg.runtimes.request import DTYPES, Prepared, Request, device_name


def unavailable(device: torch.device, precision: str) -> str | None:
    """Why this CPU cannot run `precision` in PyTorch; None where it can."""
    if device.type == "cpu" and precision == "bf16" and not has_bf16():
        return "this CPU has no bf16 arithmetic, and PyTorch imitates it more slowly than it computes in fp32"
    return None


def has_bf16() -> bool:
    """Whether this CPU multiplies bf16. On x86 oneDNN says so of every AVX-512, and imitates it where that is all."""
    if platform.machine() in ("x86_64", "AMD64"):
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def build(path: str, request: Request) -> Prepared:
    """The module as it is, in the memory format and under the autocast that `path` stands for."""
    device, dtype = request.device, DTYPES[request.precision]
    layout = torch.contiguous_format if path == "eager" else torch.channels_last
    model = placed(copy.deepcopy(request.model).eval(), device, layout)
    if dtype != torch.float32:
        keep_exact(model, dtype)
    set_threads(request)

    @torch.inference_mode()
    def run(images: Tensor) -> Tensor:
        images = images.to(device, torch.float32, memory_format=layout)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            return model.final(images).float()

    details = {"torch": torch.__version__, "memory_format": str(layout).removeprefix("torch.")}
    return Prepared(run, path, device_name(device), request.precision, details | thread_details(request))


def placed(model: HourglassNet, device: torch.device, layout: torch.memory_format) -> HourglassNet:
    """`model` itself, moved to a device and a memory format."""
    return model.to(device).to(memory_format=layout)  # type: ignore[call-overload]


def set_threads(request: Request) -> None:
    """Give PyTorch the threads that were asked for; PyTorch has one number for the whole process."""
    if request.device.type == "cpu" and torch.get_num_threads() != request.threads:
        torch.set_num_threads(request.threads)


def thread_details(request: Request) -> dict[str, str]:
    """The thread count, where it matters."""
    return {"threads": str(request.threads)} if request.device.type == "cpu" else {}
