"""`openvino`: OpenVINO on the CPU in fp32, bf16 or int8."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from fasthg.files import staged_files
from fasthg.network.precision import final_head, last_stack
from fasthg.runtimes.onnx.convert import precision_key
from fasthg.runtimes.onnx.graph import cached_graph
from fasthg.runtimes.openvino_ir import quantise, save
from fasthg.runtimes.request import Prepared, Request, answer, device_name


def unavailable(device: torch.device, precision: str) -> str | None:
    """Why this CPU cannot run `precision` in OpenVINO; None where it can."""
    if precision == "bf16" and not has_bf16():
        return "this CPU has no bf16 arithmetic (AVX-512 or AMX); use openvino:fp32 or openvino:int8"
    return None


def has_bf16() -> bool:
    """Whether OpenVINO computes in bf16 on this CPU."""
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def build(path: str, request: Request) -> Prepared:
    """The folded network, compiled by OpenVINO."""
    with request.conversions() as folder:
        return load(path, _network(request, folder), request)


def load(path: str, file: Path, request: Request) -> Prepared:
    """An ONNX or IR file, compiled by OpenVINO for the batches that come: each new batch size is compiled once."""
    import openvino

    core = openvino.Core()
    network = core.read_model(file)
    sides = [side.get_length() for side in list(network.input(0).partial_shape)[1:]]
    dtype = torch.uint8 if network.input(0).element_type == openvino.Type.u8 else torch.float32
    compiled: dict[int, Any] = {}
    idle: dict[int, list[Any]] = {}  # requests that no thread is waiting for
    compiling = threading.Lock()

    def for_batch(batch: int) -> Any:
        with compiling:
            if batch not in compiled:
                network.reshape([batch, *sides])
                compiled[batch] = core.compile_model(network, "CPU", _properties(request))
                idle[batch] = []
            return compiled[batch]

    def infer(batch: np.ndarray) -> list[Tensor]:
        new_request = for_batch(len(batch)).create_infer_request
        try:
            lent = idle[len(batch)].pop()
        except IndexError:
            lent = new_request()
        found = lent.infer({0: batch}, share_inputs=True)  # copies of the outputs: the request is used again
        outputs = [torch.from_numpy(found[i]) for i in range(len(found))]
        idle[len(batch)].append(lent)
        return outputs

    def in_streams(batch: np.ndarray) -> list[Tensor]:
        """An image each for as many threads as there are streams. AsyncInferQueue's callbacks would want Python's lock
        on OpenVINO's threads, for which a network that is freed at that moment waits, with the lock: for ever."""
        answers = streams.map(infer, batch[:, None])  # type: ignore[union-attr]
        return [torch.cat(outputs) for outputs in zip(*answers)]

    def run(images: Tensor) -> Tensor:
        batch = images.to("cpu", dtype).contiguous().numpy()
        return answer(in_streams(batch) if streams else infer(batch))

    side_by_side = request.mode == "throughput"
    first = for_batch(1 if side_by_side else len(request.example))
    requests = int(first.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
    streams = ThreadPoolExecutor(requests) if side_by_side else None
    details = {
        "openvino": openvino.__version__.split("-")[0],
        "threads": str(request.threads),
        "mode": request.mode,
        "streams": str(first.get_property("NUM_STREAMS")),
        "from_cache": str(first.get_property("LOADED_FROM_CACHE")),
    }
    return Prepared(run, path, device_name(request.device), request.precision, details)


def _properties(request: Request) -> dict[str, Any]:
    """What OpenVINO is told; int8 leaves the rest of the network to bf16, where the CPU has it."""
    half = request.precision != "fp32" and has_bf16()
    properties = {
        "INFERENCE_NUM_THREADS": request.threads,
        "PERFORMANCE_HINT": request.mode.upper(),
        "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
    }
    if request.cache_dir is not None:
        properties["CACHE_DIR"] = str(request.cache_dir / "openvino")
    return properties


def _network(request: Request, folder: Path) -> Path:
    """The folded network as IR, converted unless the folder has it; fp32 and bf16 share a file."""
    import openvino

    graph = cached_graph(request.model, request.example, folder)
    kept = final_head(request.model.config)
    if request.precision == "int8":
        assert request.calibration is not None
        crops = np.ascontiguousarray(request.calibration.cpu().numpy(), np.float32)
        file = folder / f"{graph.stem}-{precision_key(request)}.xml"
    else:
        file = graph.with_suffix(".xml")
    with FileLock(f"{file}.lock"):
        if not file.exists():
            network = openvino.Core().read_model(graph)
            with staged_files(folder) as aside:
                if request.precision == "int8":
                    save(quantise(network, crops, kept), aside / file.name, kept)
                else:
                    save(network, aside / file.name, kept, [last_stack(request.model.config)])
    return file
