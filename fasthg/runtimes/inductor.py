"""`compile`: torch.compile with inductor, one hourglass at a time."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._inductor import config as inductor_config

from fasthg.fold import fold_norms
from fasthg.runtimes.base import DTYPES, Prepared, Request, device_name
from fasthg.runtimes.pytorch import placed, set_threads, thread_details


def build(path: str, request: Request) -> Prepared:
    """The folded network, compiled."""
    device, dtype = request.device, DTYPES[request.precision]
    set_threads(request)
    model = placed(fold_norms(request.model), device, torch.channels_last).requires_grad_(False)
    final = torch.compile(model.final)

    @torch.no_grad()
    def run(images: Tensor) -> Tensor:
        images = images.to(device, torch.float32, memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32), inductor_config.patch(freezing=True):
            return final(images).float()

    details = {"torch": torch.__version__}
    return Prepared(run, path, device_name(device), request.precision, details | thread_details(request))
