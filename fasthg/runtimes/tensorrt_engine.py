"""TensorRT engines: building them, ahead of time where there is no GPU, and running them on CUDA tensors.

Two libraries share one interface. TensorRT-RTX builds without a GPU, for GeForce and RTX ones, where the kernels are
compiled when the engine is loaded; TensorRT builds on the very GPU that will run the engine, and is the only one for
Hopper.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fasthg.errors import BackendUnavailable, FasthgError

log = logging.getLogger("fasthg")

RTX, FULL = "tensorrt_rtx", "tensorrt"
PIP = {RTX: "pip install 'fasthg[trt]'", FULL: "pip install tensorrt-cu13"}
#: Compute capabilities that an engine of TensorRT-RTX is built for ahead of time: Ampere, Ada and Blackwell.
RTX_CAPABILITIES = ("8.0", "8.6", "8.9", "12.0")
THIS_GPU = ("current",)
SUFFIXES = {RTX: ".rtx.engine", FULL: ".engine"}


def choose_library() -> str:
    """The library to build with here: TensorRT where there is a GPU for it, else TensorRT-RTX ahead of time.

    Raises BackendUnavailable that names what would bring one.
    """
    if torch.cuda.is_available() and importlib.util.find_spec(FULL):
        return FULL
    if importlib.util.find_spec(RTX):
        return RTX
    if importlib.util.find_spec(FULL):
        raise BackendUnavailable(
            f"tensorrt builds engines on the GPU that runs them, and this machine has none; {PIP[RTX]} builds without"
        )
    raise BackendUnavailable(f"no TensorRT is installed; {PIP[RTX]} (no GPU needed) or {PIP[FULL]} (on the GPU)")


def library_of(engine: Path) -> str:
    """The library that a file of an engine belongs to, by its name."""
    return RTX if engine.name.endswith(SUFFIXES[RTX]) else FULL


def import_library(library: str) -> Any:
    """The module `tensorrt` or `tensorrt_rtx`; raises BackendUnavailable with the pip command that brings it."""
    if importlib.util.find_spec(library) is None:
        raise BackendUnavailable(f"{library} is not installed; {PIP[library]}")
    try:
        return importlib.import_module(library)
    except (ImportError, OSError) as error:
        raise BackendUnavailable(f"{library} is installed but cannot be loaded: {error}; {PIP[library]}") from None


def build_engine(
    library: str, graph: bytes, max_batch: int, best_batch: int = 1, capabilities: tuple[str, ...] = RTX_CAPABILITIES
) -> bytes:
    """Serialised engine of an ONNX graph, whose types are taken as they are, for batches of 1 to `max_batch`.

    best_batch    the batch that kernels are chosen for
    capabilities  compute capabilities to build for, or `THIS_GPU`; TensorRT-RTX only

    Raises FasthgError with the library's own words where the graph cannot be built.
    """
    trt = import_library(library)
    messages = _messages(trt)
    builder = trt.Builder(messages)
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # the only kind from TensorRT 11 on
    network = builder.create_network(0 if typed is None else 1 << int(typed))
    parser = trt.OnnxParser(network, messages)
    if not parser.parse(graph):
        raise FasthgError(f"{library} cannot read the graph: {parser.get_error(0).desc() or messages.last}")
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # what is written as fp32 has to be exact
    if library == RTX:
        config.num_compute_capabilities = len(capabilities)
        for i, capability in enumerate(capabilities):
            name = "CURRENT" if (capability,) == THIS_GPU else f"SM{capability.replace('.', '')}"
            if not config.set_compute_capability(getattr(trt.ComputeCapability, name), i):
                raise FasthgError(f"{library} {trt.__version__} cannot build for compute capability {capability}")
    images = network.get_input(0)
    sides = tuple(images.shape)[1:]
    profile = builder.create_optimization_profile()
    profile.set_shape(images.name, (1, *sides), (best_batch, *sides), (max_batch, *sides))
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise FasthgError(f"{library} {trt.__version__} cannot build the engine: {messages.last}")
    return bytes(engine)


class EngineRunner:
    """An engine on one CUDA device: images [N, ...] in its input's type -> its outputs, for any N.

    More images than the engine's largest batch are run in turn. Raises FasthgError for an engine of another version or
    GPU.
    """

    def __init__(self, library: str, engine: bytes, device: torch.device) -> None:
        trt = import_library(library)
        self.device = device
        self._messages = _messages(trt)
        with torch.cuda.device(device):
            self._runtime = trt.Runtime(self._messages)
            self._engine = self._runtime.deserialize_cuda_engine(engine)
            if self._engine is None:
                raise FasthgError(
                    f"{library} {trt.__version__} cannot load the engine on {torch.cuda.get_device_name(device)}:"
                    f" {self._messages.last}; export it again on this machine"
                )
            self._context = self._engine.create_execution_context()
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        inputs = [name for name in names if self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        self._input = inputs[0]
        self._outputs = [name for name in names if name not in inputs]
        self._types = {name: _torch_type(trt, self._engine.get_tensor_dtype(name)) for name in names}
        self._largest = tuple(self._engine.get_tensor_profile_shape(self._input, 0)[2])

    @property
    def max_batch(self) -> int:
        """The largest batch that is run at once."""
        return int(self._largest[0])

    def example(self) -> Tensor:
        """A largest batch of zeros."""
        return torch.zeros(self._largest, dtype=self._types[self._input], device=self.device)

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        images = images.to(self.device, self._types[self._input]).contiguous()
        parts = [self._run(part) for part in images.split(self.max_batch)]
        return parts[0] if len(parts) == 1 else tuple(torch.cat(outputs) for outputs in zip(*parts))

    def _run(self, images: Tensor) -> tuple[Tensor, ...]:
        with torch.cuda.device(self.device):
            self._context.set_input_shape(self._input, tuple(images.shape))
            self._context.set_tensor_address(self._input, images.data_ptr())
            outputs = []
            for name in self._outputs:
                shape = tuple(self._context.get_tensor_shape(name))
                outputs.append(torch.empty(shape, dtype=self._types[name], device=self.device))
                self._context.set_tensor_address(name, outputs[-1].data_ptr())
            if not self._context.execute_async_v3(torch.cuda.current_stream(self.device).cuda_stream):
                raise RuntimeError(f"the engine did not run: {self._messages.last}")
        return tuple(outputs)


def _torch_type(trt: Any, dtype: Any) -> torch.dtype:
    types = {
        trt.DataType.FLOAT: torch.float32,
        trt.DataType.HALF: torch.float16,
        trt.DataType.UINT8: torch.uint8,
        trt.DataType.INT32: torch.int32,
        trt.DataType.INT64: torch.int64,
    }
    return types[dtype]


def _messages(trt: Any) -> Any:
    """A logger of the library's own kind that keeps the last error and passes the rest to Python's logging."""

    class Messages(trt.ILogger):
        def __init__(self) -> None:
            super().__init__()
            self.last = "no reason given"

        def log(self, severity: Any, message: str) -> None:
            no_gpu = (
                "CUDA driver version is insufficient" in message
            )  # said on every machine without a GPU, and harmless
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR) and not no_gpu:
                self.last = " ".join(message.split())
            log.debug("%s: %s", trt.__name__, message)

    return Messages()


def describe(library: str, max_batch: int) -> dict[str, Any]:
    """What metadata says of an engine that is built here with `library`."""
    version = import_library(library).__version__
    about: dict[str, Any] = {"library": library, "version": version, "max_batch": max_batch}
    if library == RTX:
        return about | {"compute_capabilities": list(RTX_CAPABILITIES), "ahead_of_time": True}
    return about | {"gpu": torch.cuda.get_device_name(0), "ahead_of_time": False}


def runs_here(library: str) -> bool:
    """Whether an engine that is built here runs on this machine's first GPU."""
    if not torch.cuda.is_available():
        return False
    return library == FULL or ".".join(map(str, torch.cuda.get_device_capability(0))) in RTX_CAPABILITIES


def time_engine(library: str, engine: bytes, device: torch.device) -> float:
    """Median milliseconds of one full batch, inputs and outputs on the GPU."""
    runner = EngineRunner(library, engine, device)
    images = runner.example()
    for _ in range(10):
        runner(images)
    marks = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(50)]
    for before, after in marks:
        before.record()
        runner(images)
        after.record()
    torch.cuda.synchronize(device)
    return float(torch.tensor([before.elapsed_time(after) for before, after in marks]).median())
