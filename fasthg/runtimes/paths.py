"""The execution paths: one name each for every way to run a network, in the CLI, the sweep, tests and reports.

    eager          plain PyTorch, fp32: the reference
    channels_last  the same in the memory format that convolutions like
    amp            channels_last under autocast: bf16 on the CPU, fp16 on CUDA
    compile        torch.compile (inductor), with max-autotune and CUDA graphs on CUDA
    fused          this project's kernels
    onnxruntime, openvino, ncnn, tensorrt, torch_tensorrt

A path that cannot run says why; none ever runs something else instead.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from fasthg.errors import BackendUnavailable, FasthgError
from fasthg.files import default_cache_dir
from fasthg.network.model import HourglassNet, check_input
from fasthg.network.precision import without_tf32
from fasthg.network.variants import HourglassConfig
from fasthg.runtimes.request import DTYPES, Mode, Prepared, Request, check_can_run, resolve_device

log = logging.getLogger("fasthg")

MOST_THREADS = 1024  # libraries end the process where the system gives them no more
_preparing = threading.RLock()  # PyTorch's exporter and compiler serve one thread of a process at a time


@dataclass(frozen=True)
class ExecutionPath:
    """One way to run a network.

    runtime     module of `fasthg.runtimes` with `build(request)` and, where more than an import decides,
                `unavailable(device, precision)`
    on          precisions on each kind of device, the default first; a kind that is not listed cannot run it
    needs       modules that have to be installed
    install     what pip installs to bring them
    modes       "infer", "train"
    """

    name: str
    summary: str
    runtime: str
    on: dict[str, tuple[str, ...]]
    needs: tuple[str, ...] = ()
    install: str = ""
    modes: tuple[str, ...] = ("infer",)

    @property
    def precisions(self) -> tuple[str, ...]:
        """Every precision that the path has on some device."""
        return tuple(dict.fromkeys(precision for precisions in self.on.values() for precision in precisions))

    def default_precision(self, device: str | torch.device = "auto") -> str:
        """The precision that the path takes on `device` when none is asked for."""
        return self.on.get(resolve_device(device).type, self.precisions)[0]

    def why_not(self, device: str | torch.device = "cpu", precision: str | None = None) -> str | None:
        """None where the path can run; else one line that says why it cannot, and what would bring it."""
        target = resolve_device(device)
        if target.type not in self.on:
            return f"{self.name}: runs on {' or '.join(self.on)} only, not on {target.type}"
        if target.type == "cuda" and not torch.cuda.is_available():
            return f"{self.name}: no CUDA device that this PyTorch ({torch.__version__}) can use"
        if precision is not None and precision not in self.on[target.type]:
            return f"{self.name}: no {precision} on {target.type}, only {', '.join(self.on[target.type])}"
        for module in self.needs:
            if importlib.util.find_spec(module) is None:
                return f"{self.name}: {module} is not installed; pip install {self.install}"
        unavailable = getattr(self._runtime(), "unavailable", None)
        reason = unavailable(target, precision or self.default_precision(target)) if unavailable else None
        return f"{self.name}: {reason}" if reason else None

    def build(self, request: Request) -> Prepared:
        """The network of `request`, ready to run."""
        return self._runtime().build(self.name, request)

    def _runtime(self):
        return importlib.import_module(f"fasthg.runtimes.{self.runtime}")


PATHS: dict[str, ExecutionPath] = {
    path.name: path
    for path in (
        ExecutionPath(
            "eager",
            "plain PyTorch in fp32, NCHW: the reference",
            "pytorch",
            {"cpu": ("fp32",), "cuda": ("fp32",)},
            modes=("infer", "train"),
        ),
        ExecutionPath(
            "channels_last",
            "plain PyTorch in fp32, channels last",
            "pytorch",
            {"cpu": ("fp32",), "cuda": ("fp32",)},
            modes=("infer", "train"),
        ),
        ExecutionPath(
            "amp",
            "channels last under autocast",
            "pytorch",
            {"cpu": ("bf16",), "cuda": ("fp16", "bf16")},
            modes=("infer", "train"),
        ),
        ExecutionPath(
            "compile",
            "torch.compile (inductor), CUDA graphs on CUDA",
            "inductor",
            {"cpu": ("fp32", "bf16"), "cuda": ("fp16", "bf16", "fp32")},
            modes=("infer", "train"),
        ),
        ExecutionPath(
            "fused",
            "this project's fused kernels",
            "fused",
            {"cpu": ("fp32", "int12", "bf16", "bf16+int12", "int8+int12"), "cuda": ("fp16", "bf16")},
        ),
        ExecutionPath(
            "onnxruntime",
            "ONNX Runtime",
            "onnxruntime",
            {"cpu": ("fp32", "int8"), "cuda": ("fp16", "fp32")},
            needs=("onnxruntime", "onnx"),
            install="'fasthg[ort]'",
        ),
        ExecutionPath(
            "openvino",
            "OpenVINO",
            "openvino",
            {"cpu": ("fp32", "bf16", "int8")},
            needs=("openvino", "onnx"),
            install="'fasthg[openvino]'",
        ),
        ExecutionPath(
            "ncnn",
            "ncnn, whose convolutions are Winograd's",
            "ncnn",
            {"cpu": ("fp32",)},
            needs=("ncnn", "pnnx"),
            install="'fasthg[ncnn]'",
        ),
        ExecutionPath(
            "tensorrt",
            "engine of TensorRT or TensorRT-RTX, built on this GPU",
            "tensorrt",
            {"cuda": ("fp16", "fp32", "int8")},
            needs=("onnx",),
            install="'fasthg[trt]'",
        ),
        ExecutionPath(
            "torch_tensorrt",
            "TensorRT through torch.compile's exported program",
            "torch_tensorrt",
            {"cuda": ("fp16", "fp32")},
            needs=("torch_tensorrt",),
            install="torch-tensorrt",
        ),
    )
}


def parse_path(text: str) -> tuple[str, str | None]:
    """ "openvino:bf16" -> ("openvino", "bf16"); "eager" -> ("eager", None). Raises FasthgError for unknown names."""
    name, _, precision = text.partition(":")
    if name not in PATHS:
        raise FasthgError(f"unknown path {name!r}; choose one of {', '.join(PATHS)}")
    if precision and precision not in PATHS[name].precisions:
        raise FasthgError(f"path {name} has no precision {precision!r}; choose {', '.join(PATHS[name].precisions)}")
    return name, precision or None


def prepare(
    model: HourglassNet,
    path: str = "eager",
    example: Tensor | None = None,
    *,
    device: str | torch.device = "auto",
    precision: str | None = None,
    threads: int | None = None,
    mode: Mode = "latency",
    calibration: Tensor | None = None,
    cache_dir: str | Path | None = "default",
) -> Prepared:
    """Make `model` ready to run by `path` ("name" or "name:precision") and answer one batch, so that the next is quick.

    example      float32 [N, 3, H, W], a batch like those to come; onnxruntime, openvino and tensorrt take no other
                 H and W. One crop of the network's own size where None
    threads      CPU threads for one batch; as many as PyTorch uses where None
    mode         "latency" or "throughput"
    calibration  float32 [M, 3, H, W] of real crops, needed for int8
    cache_dir    folder for converted and compiled networks; None to keep nothing between processes

    Raises BackendUnavailable with the reason where the path cannot run here, and FasthgError for bad arguments; so does
    what it returns for images that are none of the network's.
    """
    check_can_run()
    name, named_precision = parse_path(path)
    if precision and named_precision and precision != named_precision:
        raise FasthgError(f"path {path!r} and precision {precision!r} disagree; give one of them")
    target = resolve_device(device)
    chosen = precision or named_precision or PATHS[name].default_precision(target)
    if reason := PATHS[name].why_not(target, chosen):
        raise BackendUnavailable(reason)
    if mode not in ("latency", "throughput"):
        raise FasthgError(f"unknown mode {mode!r}; give latency or throughput")
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise FasthgError(f"threads is {threads}; give 1 to {MOST_THREADS}")
    if example is None:
        size = model.config.input_size
        example = torch.zeros(1, 3, size, size)
    check_input(model.config, example)
    if not len(example):
        raise FasthgError("the example has no images; give at least one")
    if chosen == "int8" and calibration is None:
        raise FasthgError(f"{name}:int8 needs real crops to calibrate on; give calibration=[M, 3, H, W]")
    request = Request(
        model=model,
        example=example.detach().float().cpu(),
        device=target,
        precision=chosen,
        threads=threads or torch.get_num_threads(),
        mode=mode,
        calibration=calibration,
        cache_dir=default_cache_dir() if cache_dir == "default" else Path(cache_dir) if cache_dir else None,
    )
    with _preparing:
        start = time.perf_counter()
        built = _build(PATHS[name], request)
        prepared = replace(built, run=_checked(model.config, without_tf32()(built.run)))
        with torch.inference_mode():
            prepared(request.example)
        return replace(prepared, startup_s=time.perf_counter() - start)


def _checked(config: HourglassConfig, run: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """`run`, which refuses what is no batch for the network: a library may answer it nevertheless."""

    def checked(images: Tensor) -> Tensor:
        check_input(config, images)
        return run(images)

    return checked


def _build(path: ExecutionPath, request: Request) -> Prepared:
    """What `path` makes of `request`; without the cache where that is damaged or full."""
    try:
        return path.build(request)
    except BackendUnavailable:
        raise
    except Exception as error:
        if not _has_temporary_folder():
            reason = "there is no folder for temporary files; name one by TMPDIR=DIR, or a cache by FASTHG_CACHE=DIR"
            raise BackendUnavailable(f"{path.name}: {reason}") from None
        if request.cache_dir is None:
            raise
        built = path.build(replace(request, cache_dir=None))  # raises here too where the network is to blame
        log.warning("%s: the cache %s does not serve (%s); it is done without", path.name, request.cache_dir, error)
        return built


def _has_temporary_folder() -> bool:
    try:
        return bool(tempfile.gettempdir())
    except FileNotFoundError:
        return False


@dataclass(frozen=True)
class TrainingSetup:
    """How a path trains: what the trainer has to switch on."""

    channels_last: bool
    amp_dtype: torch.dtype | None
    compile: bool
    precision: str


def training_setup(path: str, device: str | torch.device = "auto") -> TrainingSetup:
    """The set-up that `path` ("name" or "name:precision") trains with on `device`.

    `amp` without a precision is fp32 on a CPU that has no other, with a line that says so.

    Raises BackendUnavailable for a path that only infers or cannot run here.
    """
    name, precision = parse_path(path)
    target = resolve_device(device)
    if "train" not in PATHS[name].modes:
        trainable = ", ".join(other.name for other in PATHS.values() if "train" in other.modes)
        raise BackendUnavailable(f"path {name} does not train; choose one of {trainable}")
    chosen = precision or PATHS[name].default_precision(target)
    if reason := PATHS[name].why_not(target, chosen):
        if name != "amp" or precision or target.type != "cpu":
            raise BackendUnavailable(reason)
        log.warning("%s; this training takes fp32, channels last", reason)
        return training_setup("channels_last", target)
    return TrainingSetup(
        channels_last=name != "eager",
        amp_dtype=DTYPES[chosen] if chosen != "fp32" else None,
        compile=name == "compile",
        precision=chosen,
    )
