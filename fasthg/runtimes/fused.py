"""`fused`: this project's own kernels."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from fasthg.runtimes.pytorch import set_threads, thread_details
from fasthg.runtimes.request import DTYPES, Prepared, Request, device_name, one_at_a_time


def build(path: str, request: Request) -> Prepared:
    """The network rewritten over the fused operators; on the CPU they run their reference."""
    from fasthg.fused.net import fuse

    set_threads(request)
    device = request.device
    final = fuse(copy.deepcopy(request.model).eval().to(device), request.example.to(device), DTYPES[request.precision])

    @torch.inference_mode()
    def run(images: Tensor) -> Tensor:
        return final(images.to(device, torch.float32)).float()

    details = {"torch": torch.__version__}
    return Prepared(one_at_a_time(run), path, device_name(device), request.precision, details | thread_details(request))
