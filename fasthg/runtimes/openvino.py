"""`openvino`: OpenVINO on the CPU in fp32, bf16 or int8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fasthg.runtimes.base import Prepared, Request, device_name
from fasthg.runtimes.onnx_graph import cached_graph


def unavailable(device: torch.device, precision: str) -> str | None:
    """Why this CPU cannot run `precision` in OpenVINO; None where it can."""
    import openvino

    if precision == "bf16" and "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return "this CPU has no bf16 arithmetic (AVX-512 or AMX); use openvino:fp32 or openvino:int8"
    return None


def build(path: str, request: Request) -> Prepared:
    """The folded network, compiled by OpenVINO."""
    graph = cached_graph(request.model, request.example, request.cache_dir)
    try:
        return load(path, graph, request)
    finally:
        if request.cache_dir is None:
            graph.unlink()


def load(path: str, graph: Path, request: Request) -> Prepared:
    """An ONNX or IR file, compiled by OpenVINO for the batches that come: each new batch size is compiled once."""
    import openvino

    core = openvino.Core()
    properties = {
        "INFERENCE_NUM_THREADS": request.threads,
        "PERFORMANCE_HINT": request.mode.upper(),
        "INFERENCE_PRECISION_HINT": "f32" if request.precision == "fp32" else "bf16",
    }
    if request.cache_dir is not None:
        properties["CACHE_DIR"] = str(request.cache_dir / "openvino")
    network = core.read_model(graph)
    compiled: dict[tuple[int, ...], openvino.CompiledModel] = {}

    def for_shape(shape: tuple[int, ...]):
        if shape not in compiled:
            network.reshape(list(shape))
            compiled[shape] = core.compile_model(network, "CPU", properties)
        return compiled[shape]

    def run(images: Tensor) -> Tensor:
        batch = images.to("cpu", torch.float32).contiguous().numpy()
        if request.mode == "throughput" and len(batch) > 1:
            return torch.from_numpy(_in_streams(for_shape((1, *batch.shape[1:])), batch))
        return torch.from_numpy(for_shape(batch.shape)(batch, share_inputs=True)[0])

    first = for_shape((1, *request.example.shape[1:]) if request.mode == "throughput" else tuple(request.example.shape))
    details = {
        "openvino": openvino.__version__.split("-")[0],
        "threads": str(request.threads),
        "mode": request.mode,
        "streams": str(first.get_property("NUM_STREAMS")),
        "from_cache": str(first.get_property("LOADED_FROM_CACHE")),
    }
    return Prepared(run, path, device_name(request.device), request.precision, details)


def _in_streams(compiled, batch: np.ndarray) -> np.ndarray:
    """Heatmaps of a batch whose images are answered one each by as many requests as there are streams."""
    import openvino

    shape = compiled.output(0).shape
    heatmaps = np.empty((len(batch), *list(shape)[1:]), np.float32)
    queue = openvino.AsyncInferQueue(compiled)

    def keep(request, row: int) -> None:
        heatmaps[row] = request.get_output_tensor(0).data[0]

    queue.set_callback(keep)
    for row in range(len(batch)):
        queue.start_async({0: batch[row : row + 1]}, userdata=row)
    queue.wait_all()
    return heatmaps
