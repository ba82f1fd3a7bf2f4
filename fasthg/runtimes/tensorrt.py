"""`tensorrt`: an engine of TensorRT, or of TensorRT-RTX where that is what is installed, on this GPU."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from fasthg.files import make_once
from fasthg.runtimes import tensorrt_engine
from fasthg.runtimes.onnx.convert import converted_graph, precision_key
from fasthg.runtimes.onnx.graph import model_digest
from fasthg.runtimes.request import Prepared, Request, answer, device_name, one_at_a_time
from fasthg.runtimes.tensorrt_engine import THIS_GPU, EngineRunner, build_engine, import_library, library_of


def unavailable(device: torch.device, precision: str) -> str | None:
    """Why no engine can be built or run here; None where one can."""
    try:
        tensorrt_engine.choose_library()
    except tensorrt_engine.BackendUnavailable as error:
        return str(error)
    return None


def build(path: str, request: Request) -> Prepared:
    """An engine for this GPU and batches up to the example's, from the cache folder where it has one."""
    library = tensorrt_engine.choose_library()
    version = import_library(library).__version__
    if request.cache_dir is None:
        return _prepared(path, library, _engine(library, request), request)
    gpu = torch.cuda.get_device_name(request.device).replace(" ", "-")
    shape = "x".join(str(side) for side in (len(request.example), *request.example.shape[2:]))
    name = f"{model_digest(request.model)}-{shape}-{precision_key(request)}-{gpu}-{version}"
    file = request.cache_dir / f"{name}{tensorrt_engine.SUFFIXES[library]}"
    return load(path, make_once(file, lambda: _engine(library, request)), request)


def load(path: str, engine: Path, request: Request) -> Prepared:
    """An engine's file on this GPU."""
    return _prepared(path, library_of(engine), engine.read_bytes(), request)


def _prepared(path: str, library: str, engine: bytes, request: Request) -> Prepared:
    runner = EngineRunner(library, engine, request.device)

    def run(images: Tensor) -> Tensor:
        return answer(runner(images))

    details = {"library": f"{library} {import_library(library).__version__}", "max_batch": str(runner.max_batch)}
    return Prepared(one_at_a_time(run), path, device_name(request.device), request.precision, details)


def _engine(library: str, request: Request) -> bytes:
    graph = converted_graph(request, for_tensorrt=True)
    batch = len(request.example)
    return build_engine(library, graph.SerializeToString(), max_batch=batch, best_batch=batch, capabilities=THIS_GPU)
