"""`compile`: torch.compile, where one compilation serves all stacks of the same depth.

Compiled as a whole, eight stacks take a minute to start. Here the stem and each stack are compiled, and equal stacks
share their code: on the CPU 40 s of processor time at first and 4 s once inductor's cache on disk has it. Freezing the
weights would forbid both (equal stacks with other constants are compiled again, and nothing is cached), for 2 % of the
time of `original` in fp32 at batch 1: what pays is fusing the elementwise operators, not packing the weights ahead.

On CUDA the kernels are tuned by max-autotune, and each batch size runs as one CUDA graph.
"""

from __future__ import annotations

import atexit
import getpass
import os
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._dynamo import config as dynamo_config

from fasthg.network.fold import fold
from fasthg.network.precision import lower
from fasthg.runtimes import pytorch
from fasthg.runtimes.pytorch import placed, set_threads, thread_details
from fasthg.runtimes.request import DTYPES, Prepared, Request, device_name, one_at_a_time

_WARM_UP = 3  # calls before a CUDA graph is recorded
_SHAPES = 64  # batch shapes and networks that one process may compile; PyTorch's own limit of 8 would end in eager mode


def unavailable(device: torch.device, precision: str) -> str | None:
    """Why this CPU cannot run `precision`; None where it can."""
    return pytorch.unavailable(device, precision)


def build(path: str, request: Request) -> Prepared:
    """The folded network in the request's precision, its stem and stacks compiled."""
    device, dtype = request.device, DTYPES[request.precision]
    _name_cache()
    set_threads(request)
    model = lower(placed(fold(request.model), device, torch.channels_last), dtype).requires_grad_(False)
    mode = "max-autotune-no-cudagraphs" if device.type == "cuda" else None
    for module in (model.stem, *model.stacks):
        module.compile(mode=mode, dynamic=False)

    @torch.no_grad()
    def final(images: Tensor) -> Tensor:
        with dynamo_config.patch(recompile_limit=_SHAPES, fail_on_recompile_limit_hit=True):
            return model.final(images.contiguous(memory_format=torch.channels_last)).float()

    forward = CudaGraphs(final) if device.type == "cuda" else final

    def run(images: Tensor) -> Tensor:
        return forward(images.to(device, dtype))

    details = {"torch": torch.__version__, "mode": mode or "default"}
    return Prepared(one_at_a_time(run), path, device_name(device), request.precision, details | thread_details(request))


def _name_cache() -> None:
    """Inductor names its folder after the user; one whom the system does not know gets a temporary one."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder = tempfile.mkdtemp(prefix="torchinductor-")
            atexit.register(shutil.rmtree, folder, ignore_errors=True)


class CudaGraphs:
    """A function of one CUDA tensor, recorded as a CUDA graph for each shape that comes."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self._function = function
        self._recorded: dict[tuple[int, ...], tuple[Any, Tensor, Tensor]] = {}

    @torch.inference_mode()  # always: what is recorded in it can't be written to outside
    def __call__(self, images: Tensor) -> Tensor:
        shape = tuple(images.shape)
        if shape not in self._recorded:
            self._recorded[shape] = self._record(images)
        graph, inputs, outputs = self._recorded[shape]
        inputs.copy_(images)
        graph.replay()
        return outputs.clone()  # the next replay writes to the same memory

    def _record(self, images: Tensor) -> tuple[Any, Tensor, Tensor]:
        inputs = images.clone()
        stream = torch.cuda.Stream(images.device)
        stream.wait_stream(torch.cuda.current_stream(images.device))
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                self._function(inputs)
        torch.cuda.current_stream(images.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(images.device), torch.cuda.graph(graph):
            outputs = self._function(inputs)
        return graph, inputs, outputs
