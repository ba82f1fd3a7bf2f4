"""`onnxruntime`: ONNX Runtime on the CPU, or on CUDA through its own execution provider."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from fasthg.runtimes.onnx.convert import cached_conversion
from fasthg.runtimes.onnx.graph import INPUT_NAME, cached_graph
from fasthg.runtimes.request import Prepared, Request, answer, device_name

_TYPES = {"tensor(float)": torch.float32, "tensor(uint8)": torch.uint8}


def unavailable(device: torch.device, precision: str) -> str | None:
    """Why the installed ONNX Runtime cannot run on `device`; None where it can."""
    import onnxruntime

    if device.type == "cuda" and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return "the installed ONNX Runtime is for the CPU; pip install onnxruntime-gpu"
    return None


def build(path: str, request: Request) -> Prepared:
    """The folded network in a session of ONNX Runtime."""
    with request.conversions() as folder:
        return load(path, _graph(request, folder), request)


def load(path: str, graph: Path, request: Request) -> Prepared:
    """An ONNX file in a session of ONNX Runtime."""
    import onnxruntime

    workers = request.threads if request.mode == "throughput" and request.device.type == "cpu" else 1
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = max(1, request.threads // workers)
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph, options, providers=_providers(request.device))
    dtype = _TYPES[session.get_inputs()[0].type]
    pool = ThreadPoolExecutor(workers) if workers > 1 else None

    def one(images: Tensor) -> Tensor:
        return answer([torch.from_numpy(output) for output in session.run(None, {INPUT_NAME: images.numpy()})])

    def run(images: Tensor) -> Tensor:
        images = images.to("cpu", dtype).contiguous()
        if pool is None or len(images) == 1:
            return one(images)
        return torch.cat(list(pool.map(one, images.chunk(workers))))

    details = {
        "onnxruntime": onnxruntime.__version__,
        "providers": ", ".join(session.get_providers()),
        "threads": str(request.threads),
        "mode": request.mode,
    }
    return Prepared(run, path, device_name(request.device), request.precision, details)


def _graph(request: Request, folder: Path) -> Path:
    if request.precision == "fp32":
        return cached_graph(request.model, request.example, folder)
    return cached_conversion(request, folder)


def _providers(device: torch.device) -> list:
    if device.type == "cpu":
        return ["CPUExecutionProvider"]
    options = {"device_id": device.index, "cudnn_conv_algo_search": "EXHAUSTIVE", "use_tf32": 0}
    return [("CUDAExecutionProvider", options)]
