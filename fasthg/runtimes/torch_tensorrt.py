"""`torch_tensorrt`: TensorRT behind PyTorch's own export, on a CUDA build of PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from fasthg.network.fold import fold
from fasthg.network.precision import lower
from fasthg.pixels.image import fill_up
from fasthg.runtimes.onnx.graph import FinalHeatmaps
from fasthg.runtimes.request import DTYPES, Prepared, Request, device_name, one_at_a_time


def build(path: str, request: Request) -> Prepared:
    """The folded network compiled for the example's batch size; other batches are filled up to it."""
    import torch_tensorrt

    compiled = compile_program(request)
    device, batch = request.device, len(request.example)

    def run(images: Tensor) -> Tensor:
        images = images.to(device, DTYPES[request.precision])
        parts = [compiled(fill_up(part, batch))[: len(part)] for part in images.split(batch)]
        return torch.cat(parts).float()

    details = {"torch_tensorrt": torch_tensorrt.__version__, "torch": torch.__version__, "batch": str(batch)}
    return Prepared(one_at_a_time(run), path, device_name(device), request.precision, details)


def compile_program(request: Request) -> torch.fx.GraphModule:
    """The folded network with weights of the request's precision, which TensorRT takes as they are."""
    import torch_tensorrt

    dtype = DTYPES[request.precision]
    module = FinalHeatmaps(lower(fold(request.model), dtype)).eval().to(request.device)
    example = torch_tensorrt.Input(shape=tuple(request.example.shape), dtype=dtype)
    with torch.cuda.device(request.device), torch.no_grad():
        return torch_tensorrt.compile(module, ir="dynamo", arg_inputs=[example], min_block_size=1, disable_tf32=True)
