"""`fused`: this project's own kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from fasthg.kernels.cpu import network as host
from fasthg.runtimes.pytorch import set_threads, thread_details
from fasthg.runtimes.request import DTYPES, Prepared, Request, device_name, one_at_a_time


def unavailable(device: torch.device, precision: str) -> str | None:
    """Why this CPU cannot run `precision`; None where it can."""
    return host.unavailable(precision) if device.type == "cpu" else None


def build(path: str, request: Request) -> Prepared:
    """The network rewritten over the fused operators."""
    from fasthg.fused.net import fuse

    set_threads(request)
    device = request.device
    model, example = request.model, request.example.to(device)
    if device.type == "cpu":
        final = fuse(model, example, torch.float32, host_precision=request.precision)
    else:
        final = fuse(model, example, DTYPES[request.precision])

    @torch.inference_mode()
    def run(images: Tensor) -> Tensor:
        return final(images.to(device, torch.float32)).float()

    details = {"torch": torch.__version__}
    return Prepared(one_at_a_time(run), path, device_name(device), request.precision, details | thread_details(request))
