"""An ONNX graph in fp16: its tensors and weights themselves, since TensorRT takes types as they are written.

What fp16 cannot hold stays fp32: tensors whose values on real crops come near fp16's limit, with the nodes that write
and read them; layer normalisation, whose squares and means fp16 rounds away; and the modules that are named.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fasthg.runtimes.onnx.graph import INPUT_NAME, NETWORK, within

if TYPE_CHECKING:
    import onnx

FP16_LIMIT = 65504.0  # the largest fp16 number
HEADROOM = 4.0  # images to come may reach this many times what the crops at hand reach

_QUANTISATION = ("QuantizeLinear", "DequantizeLinear")  # in the type of what is between them, or TensorRT sees no int8
#: Operators that only pass values on, or drop some: nothing they write is larger than what they read.
_BOUNDED = ("Relu", "MaxPool", "Resize", "Reshape", "Squeeze", "Concat", "Slice", "Transpose", "Gather")
_FP32_INPUTS = {"Resize": (1, 2)}  # region and scales: the operator takes them in fp32 only


def largest_values(graph: onnx.ModelProto, crops: NDArray[Any]) -> dict[str, float]:
    """Largest magnitude of every float tensor that a node of a float32 graph writes, over crops [M, ...]."""
    import onnx
    import onnxruntime

    probed = onnx.ModelProto()
    probed.CopyFrom(graph)
    floats = _float_tensors(graph)
    probes = [node.output[0] for node in graph.graph.node if node.output[0] in floats and node.op_type not in _BOUNDED]
    for name in probes:
        probed.graph.node.append(onnx.helper.make_node("Abs", [name], [f"{name}|abs"]))
        probed.graph.node.append(onnx.helper.make_node("ReduceMax", [f"{name}|abs"], [f"{name}|max"], keepdims=0))
        probed.graph.output.append(onnx.helper.make_tensor_value_info(f"{name}|max", onnx.TensorProto.FLOAT, []))
    session = onnxruntime.InferenceSession(probed.SerializeToString(), providers=["CPUExecutionProvider"])
    maxima = np.zeros(len(probes))
    for start in range(0, len(crops), 8):
        found = session.run([f"{name}|max" for name in probes], {INPUT_NAME: crops[start : start + 8]})
        maxima = np.maximum(maxima, np.array(found, np.float64))  # NaN stays
    largest = dict(zip(probes, maxima.tolist()))
    for node in graph.graph.node:
        if node.op_type in _BOUNDED:
            largest[node.output[0]] = max(largest.get(name, 0.0) for name in node.input)
    return largest


def to_fp16(
    graph: onnx.ModelProto, largest: dict[str, float], keep: Sequence[str]
) -> tuple[onnx.ModelProto, list[str]]:
    """The graph in fp16, and the names of the network's nodes that stay fp32.

    Inputs and outputs keep their types; so does everything outside the network itself, such as normalisation and
    decoding.

    largest  magnitudes as `largest_values` finds them
    keep     modules that stay fp32
    """
    import onnx

    half = onnx.ModelProto()
    half.CopyFrom(graph)
    inside = [node for node in half.graph.node if within(node.name, NETWORK) or node.op_type in _QUANTISATION]
    weights = {weight.name: _magnitude(weight) for weight in half.graph.initializer}
    limits = dict.fromkeys(largest, FP16_LIMIT / HEADROOM) | dict.fromkeys(weights, FP16_LIMIT)
    too_large = {name for name, value in {**largest, **weights}.items() if not value < limits[name]}
    norms = {_module(node) for node in inside if node.op_type == "ReduceMean"}
    kept = [
        node.name
        for node in inside
        if _module(node) in norms or within(node.name, keep) or too_large & {*node.input, *node.output}
    ]
    _retype(half.graph, {node.name for node in inside} - set(kept), _float_tensors(graph))
    return half, kept


def _retype(graph: onnx.GraphProto, half_nodes: set[str], float_tensors: set[str]) -> None:
    """Make the nodes named compute in fp16, with casts where a tensor changes sides."""
    import onnx
    from onnx import TensorProto

    types = {value.name: value.type.tensor_type.elem_type for value in graph.input}
    weights = {weight.name: weight for weight in graph.initializer if weight.data_type == TensorProto.FLOAT}
    nodes: list[onnx.NodeProto] = []
    made: dict[tuple[str, int], str] = {}

    def in_type(name: str, wanted: int) -> str:
        """Name of tensor `name` in type `wanted`; the first use of a cast or of a converted weight makes it."""
        have = TensorProto.FLOAT if name in weights else types.get(name)
        if have == wanted or have not in (TensorProto.FLOAT, TensorProto.FLOAT16):
            return name
        if (name, wanted) not in made:
            made[name, wanted] = f"{name}|{TensorProto.DataType.Name(wanted).lower()}"
            if name in weights:
                values = onnx.numpy_helper.to_array(weights[name]).astype(np.float16)
                graph.initializer.append(onnx.numpy_helper.from_array(values, made[name, wanted]))
            else:
                nodes.append(
                    onnx.helper.make_node("Cast", [name], [made[name, wanted]], made[name, wanted] + "/Cast", to=wanted)
                )
        return made[name, wanted]

    for node in graph.node:
        wanted = TensorProto.FLOAT16 if node.name in half_nodes else TensorProto.FLOAT
        for i, name in enumerate(node.input):
            if i not in _FP32_INPUTS.get(node.op_type, ()):
                node.input[i] = in_type(name, wanted)
        types.update({name: wanted for name in node.output if name in float_tensors})
        nodes.append(node)
    for output in graph.output:
        if types.get(output.name) == TensorProto.FLOAT16:
            _rename(nodes, output.name, f"{output.name}|float16")
            nodes.append(onnx.helper.make_node("Cast", [f"{output.name}|float16"], [output.name], to=TensorProto.FLOAT))
    _replace_nodes(graph, nodes)


def _rename(nodes: list[onnx.NodeProto], old: str, new: str) -> None:
    for node in nodes:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == old:
                    names[i] = new


def _replace_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Put `nodes` in the graph's place of its own, and drop weights and notes of types that nothing reads any more."""
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    read = {name for node in copies for name in node.input}
    for unread in [weight for weight in graph.initializer if weight.name not in read]:
        graph.initializer.remove(unread)
    del graph.value_info[:]


def _module(node: onnx.NodeProto) -> str:
    return node.name.rpartition("/")[0]


def _magnitude(weight: onnx.TensorProto) -> float:
    import onnx

    return float(np.abs(onnx.numpy_helper.to_array(weight)).max(initial=0))


def _float_tensors(graph: onnx.ModelProto) -> set[str]:
    """Names of the float32 tensors that the nodes write."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(graph).graph
    values = (*inferred.value_info, *inferred.output)
    return {value.name for value in values if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
