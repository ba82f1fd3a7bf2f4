"""An ONNX graph in the precision that is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fasthg.data.crops import load_crops
from fasthg.files import make_once
from fasthg.network.fold import fold
from fasthg.network.precision import final_head
from fasthg.network.variants import HourglassConfig
from fasthg.pixels.image import normalise
from fasthg.runtimes.onnx.graph import FinalHeatmaps, export_graph, model_digest
from fasthg.runtimes.onnx.half import largest_values, to_fp16
from fasthg.runtimes.onnx.int8 import quantise
from fasthg.runtimes.request import Request

if TYPE_CHECKING:
    import onnx

_RANGE_CROPS = 8  # enough to see magnitudes, which get some headroom anyway


def convert(
    graph: onnx.ModelProto,
    crops: NDArray[Any],
    precision: str,
    config: HourglassConfig,
    keep: Sequence[str],
    for_tensorrt: bool = False,
) -> tuple[onnx.ModelProto, list[str]]:
    """An fp32 graph in `precision`, and the names of the nodes that stay fp32 in an fp16 graph.

    crops         what the graph's input takes, [M, ...], to find ranges on
    keep          modules that stay fp32 in fp16, or that int8 leaves out: see `precision_attempts`
    for_tensorrt  int8 in the form that TensorRT wants, and fp16 for what is not int8
    """
    if precision == "fp32":
        return graph, []
    half = precision == "fp16" or for_tensorrt
    largest = largest_values(graph, crops[:_RANGE_CROPS]) if half else {}
    if precision == "int8":
        graph = quantise(graph, crops, for_tensorrt, keep)
    if not half:
        return graph, []
    return to_fp16(graph, largest, final_head(config) if precision == "int8" else keep)


def converted_graph(request: Request, for_tensorrt: bool = False) -> onnx.ModelProto:
    """The request's folded network in its precision."""
    graph = export_graph(FinalHeatmaps(fold(request.model).cpu()).eval(), request.example)
    config = request.model.config
    converted, _kept = convert(graph, _crops(request), request.precision, config, final_head(config), for_tensorrt)
    return converted


def cached_conversion(request: Request, folder: Path) -> Path:
    """The same as a file, converted unless the folder has it."""
    height, width = request.example.shape[2:]
    path = folder / f"{model_digest(request.model)}-{height}x{width}-{precision_key(request)}.onnx"
    return make_once(path, lambda: converted_graph(request).SerializeToString())


def precision_key(request: Request) -> str:
    """The request's precision, and below fp32 the digest of the crops that its ranges are found on: "int8-0f3a9c21"."""
    if request.precision == "fp32":
        return request.precision
    return f"{request.precision}-{hashlib.sha256(_crops(request).tobytes()).hexdigest()[:8]}"


def _crops(request: Request) -> NDArray[np.float32]:
    """The request's calibration crops, or those that ship with the package, as the network takes them."""
    if request.calibration is not None:
        return np.ascontiguousarray(request.calibration.cpu().numpy(), np.float32)
    crops = load_crops(None, request.example.shape[-1]).calibration
    return normalise(crops, request.model.config.mean).numpy()
