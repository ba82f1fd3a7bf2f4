"""`fused`: this project's own kernels.

On a GPU each shape of images has configurations of its own, some of which a compiler has been seen to get wrong. So the
first batch of a shape is preceded by one of noise that the network answers too, and an answer that no rounding explains
is refused.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from fasthg.errors import ParityError
from fasthg.kernels.cpu import network as host
from fasthg.metrics.agreement import relative_error
from fasthg.network.model import HourglassNet
from fasthg.runtimes.pytorch import set_threads, thread_details
from fasthg.runtimes.request import DTYPES, Prepared, Request, device_name, one_at_a_time

ROUNDING = 0.1  # relative distance of heatmaps that is still one: bfloat16's is 0.02


def unavailable(device: torch.device, precision: str) -> str | None:
    """Why this CPU cannot run `precision`; None where it can."""
    return host.unavailable(precision) if device.type == "cpu" else None


def build(path: str, request: Request) -> Prepared:
    """The network rewritten over the fused operators."""
    from fasthg.fused.net import fuse

    set_threads(request)
    device = request.device
    model, example = request.model, request.example.to(device)
    final: Callable[[Tensor], Tensor]
    if device.type == "cpu":  # the plain network is not kept: its weights would be as many again
        final = fuse(model, example, torch.float32, host_precision=request.precision)
    else:
        final = checked(fuse(model, example, DTYPES[request.precision]), model, request.precision)

    @torch.inference_mode()
    def run(images: Tensor) -> Tensor:
        return final(images.to(device, torch.float32)).float()

    details = {"torch": torch.__version__}
    return Prepared(one_at_a_time(run), path, device_name(device), request.precision, details | thread_details(request))


def checked(final: Callable[[Tensor], Tensor], model: HourglassNet, precision: str) -> Callable[[Tensor], Tensor]:
    """`final`, which is checked before it answers the first batch of a shape."""
    known: set[tuple[int, ...]] = set()

    def run(images: Tensor) -> Tensor:
        if tuple(images.shape) not in known:
            check(final, model, images, precision)
            known.add(tuple(images.shape))
        return final(images)

    return run


@torch.inference_mode()
def check(final: Callable[[Tensor], Tensor], model: HourglassNet, images: Tensor, precision: str) -> None:
    """Raise ParityError unless `final` answers noise of the shape of `images` [N, 3, H, W] as the network does."""
    noise = torch.rand_like(images) - 0.5
    reference = copy.deepcopy(model).to(images.device).eval()
    error = relative_error(final(noise), reference.final(noise))
    if error > ROUNDING:
        where, shape = device_name(images.device), "x".join(map(str, images.shape))
        raise ParityError(
            f"fused:{precision} answers {shape} on {where} wrongly (relative distance {error:.1g}); give another path,"
            " and report the device and the versions that `fasthg env` prints"
        )
