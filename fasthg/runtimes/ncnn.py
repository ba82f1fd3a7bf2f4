"""`ncnn`: ncnn on the CPU in fp32, the strongest library with Winograd convolutions on x86; pnnx converts for it."""

from __future__ import annotations

import copy
import subprocess
import tempfile
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from fasthg.files import make_folder, staged_files
from fasthg.runtimes.onnx.graph import FinalHeatmaps, cached_graph, model_digest
from fasthg.runtimes.request import Prepared, Request, device_name

_INPUT, _OUTPUT = "in0", "out0"  # pnnx's names
_CONVERSION_LIMIT_S = 600


def build(path: str, request: Request) -> Prepared:
    """The network in ncnn, which takes one image at a time."""
    with request.conversions() as folder:
        return load(path, _network(request, folder), request)


def load(path: str, file: Path, request: Request) -> Prepared:
    """A .param file with its .bin beside it; in throughput mode each thread answers an image of its own."""
    import ncnn

    workers = request.threads if request.mode == "throughput" else 1
    network = _load_exactly(file, max(1, request.threads // workers))
    pool = ThreadPoolExecutor(workers) if workers > 1 else None

    def run(images: Tensor) -> Tensor:
        batch = images.to("cpu", torch.float32).contiguous().numpy()
        one = partial(_answer, network)
        return torch.from_numpy(np.stack(list(pool.map(one, batch) if pool else map(one, batch))))

    details = {"ncnn": ncnn.__version__, "threads": str(request.threads), "mode": request.mode}
    return Prepared(run, path, device_name(request.device), request.precision, details)


def _load_exactly(file: Path, threads: int) -> Any:
    """The network in float32 from end to end; ncnn's own choice would be halves. Raises OSError for damaged files."""
    import ncnn

    network = ncnn.Net()
    network.opt.num_threads = threads
    network.opt.use_vulkan_compute = False
    for what in ("packed", "storage", "arithmetic"):
        setattr(network.opt, f"use_fp16_{what}", False)
    network.opt.use_bf16_packed = network.opt.use_bf16_storage = False
    weights = file.with_suffix(".bin")
    if network.load_param(str(file)) or network.load_model(str(weights)):
        raise OSError(f"ncnn cannot read {file} and {weights}")
    return network


def _answer(network: Any, image: np.ndarray) -> np.ndarray:
    """Image [3, H, W] -> heatmaps [J, H/4, W/4], a copy."""
    import ncnn

    extractor = network.create_extractor()
    extractor.input(_INPUT, ncnn.Mat(image))
    status, heatmaps = extractor.extract(_OUTPUT)
    if status:
        raise RuntimeError(f"ncnn failed with status {status}")
    return np.array(heatmaps)


def _network(request: Request, folder: Path) -> Path:
    """The network in ncnn's format, converted unless the folder has it."""
    import pnnx

    make_folder(folder)
    height, width = request.example.shape[2:]
    file = folder / f"{model_digest(request.model)}-{height}x{width}-pnnx{pnnx.__version__}.param"
    with FileLock(f"{file}.lock"):
        if not (file.exists() and file.with_suffix(".bin").exists()):
            with tempfile.TemporaryDirectory() as beside, staged_files(folder) as aside:
                source = _readable(request, folder, Path(beside))
                _convert(source, (1, *request.example.shape[1:]), aside / file.name)
    return file


def _readable(request: Request, cache: Path, folder: Path) -> Path:
    """The network in `folder` as pnnx reads it: its ONNX graph, or a traced module, which takes twenty times as long,
    where there is layer normalisation: in a graph pnnx takes the means of `LayerNormByParts` over the wrong axes."""
    example = request.example[:1]
    if request.model.config.norm != "layer":
        return Path(copyfile(cached_graph(request.model, example, cache), folder / "network.onnx"))
    module = FinalHeatmaps(copy.deepcopy(request.model).eval().cpu())
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        torch.jit.save(torch.jit.trace(module, example, check_trace=False), folder / "network.pt")
    return folder / "network.pt"


def _convert(source: Path, shape: Sequence[int], file: Path) -> None:
    """pnnx on a network for images of `shape` [1, 3, H, W]. It leaves more files than the two that count."""
    import pnnx

    done = subprocess.run(
        [pnnx.EXEC_PATH, source, f"inputshape=[{','.join(map(str, shape))}]", "fp16=0"],
        cwd=source.parent,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_CONVERSION_LIMIT_S,
        check=False,
    )
    made = source.with_suffix(".ncnn.param")
    if done.returncode or not made.exists():
        raise RuntimeError(f"pnnx failed with status {done.returncode}: {done.stderr.strip()[-200:]}")
    file.write_bytes(made.read_bytes())
    file.with_suffix(".bin").write_bytes(made.with_suffix(".bin").read_bytes())
