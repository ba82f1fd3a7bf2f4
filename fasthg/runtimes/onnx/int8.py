"""An ONNX graph with its convolutions in int8, as quantise-dequantise pairs calibrated on real crops.

Only convolutions compute in int8: they are nearly all of the work. The residual trunk keeps its precision, and so do
the modules that are named.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from fasthg.runtimes.onnx.graph import INPUT_NAME, NETWORK, quiet, within

if TYPE_CHECKING:
    import onnx


def quantise(
    graph: onnx.ModelProto, crops: NDArray[Any], for_tensorrt: bool, keep: Sequence[str] = ()
) -> onnx.ModelProto:
    """The graph with int8 convolutions, by onnxruntime's static quantisation.

    crops         what the graph's input takes, [M, ...]: the ranges of activations are those on these
    for_tensorrt  symmetric, and convolutions' inputs only: TensorRT finds the rest itself. ONNX Runtime wants their
                  outputs and the ReLUs in between as well, and a zero point wastes no values below ReLU's zero
    keep          names of modules that keep their precision
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    options: dict[str, Any] = {
        "ActivationSymmetric": for_tensorrt,
        "WeightSymmetric": True,
        "QuantizeBias": not for_tensorrt,
    }
    if for_tensorrt:
        options["OpTypesToExcludeOutputQuantization"] = ["Conv"]
    operators = ["Conv"] if for_tensorrt else ["Conv", "Relu"]
    chosen = [
        node.name
        for node in graph.graph.node
        if node.op_type in operators and within(node.name, NETWORK) and not within(node.name, keep)
    ]
    with tempfile.TemporaryDirectory() as folder:
        plain, quantised = Path(folder) / "plain.onnx", Path(folder) / "int8.onnx"
        onnx.save(graph, plain)
        with quiet("root"):  # it advises to tidy graphs first, which PyTorch's exporter has done
            quantize_static(
                plain,
                quantised,
                _CropReader(crops),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=operators,
                nodes_to_quantize=chosen,
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                extra_options=options,
            )
        return onnx.load(quantised)


class _CropReader:
    """Crops one by one, as onnxruntime's calibration asks for them."""

    def __init__(self, crops: NDArray[Any]) -> None:
        self._crops = iter(crops)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        crop = next(self._crops, None)
        return None if crop is None else {INPUT_NAME: crop[None]}
