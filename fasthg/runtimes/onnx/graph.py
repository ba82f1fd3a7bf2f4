"""The network as an ONNX graph: what ONNX Runtime, OpenVINO and TensorRT all start from."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fasthg.files import make_once
from fasthg.network.checkpoint import weights_digest
from fasthg.network.fold import fold
from fasthg.network.model import HourglassNet

if TYPE_CHECKING:
    import onnx

OPSET = 20  # ONNX Runtime, OpenVINO and TensorRT all read it as it is
INPUT_NAME = "images"
OUTPUT_NAME = "heatmaps"
_CONVERSION = 5  # raise it when the same network is converted to another graph
NETWORK = ("stem", "stacks")  # the modules whose nodes are the network itself, not what is around it


class FinalHeatmaps(nn.Module):
    """Images [N, 3, H, W] -> heatmaps [N, J, H/4, W/4] of the last stack, as a module of its own."""

    def __init__(self, model: HourglassNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.final(images)


class LayerNormByParts(nn.Module):
    """The same as `nn.GroupNorm(1, C)` over [N, C, H, W], with every mean taken over pixels first and then channels.

    Written as one operator, it comes to InstanceNormalization over a row of up to a million values, which ONNX Runtime
    and OpenVINO add up one after the other in float32: 1e-5 off on the heatmaps of eight stacks, and 4e-7 like this.
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.weight = nn.Parameter(norm.weight.detach().clone().view(-1, 1, 1))
        self.bias = nn.Parameter(norm.bias.detach().clone().view(-1, 1, 1))
        self.eps = norm.eps

    def forward(self, x: Tensor) -> Tensor:
        centred = x - _mean(x)
        return centred * (self.weight * torch.rsqrt(_mean(centred * centred) + self.eps)) + self.bias


def _mean(x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, 1, 1, 1]."""
    return x.mean((2, 3), keepdim=True).mean(1, keepdim=True)


def norms_by_parts(module: nn.Module) -> nn.Module:
    """A copy of `module` whose layer normalisations are `LayerNormByParts`."""
    module = copy.deepcopy(module)
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.GroupNorm):
                setattr(parent, name, LayerNormByParts(child))
    return module


def export_graph(module: nn.Module, example: Tensor, outputs: Sequence[str] = (OUTPUT_NAME,)) -> onnx.ModelProto:
    """`module` as an ONNX graph by the exporter that runs it once and notes what it does: 3 s for eight stacks, where
    PyTorch's newer one takes 20.

    The input is "images"; the first axis of inputs and outputs is dynamic, every other size fixed to the example's.
    Nodes are named after the modules that they come from, "stacks.0.score/Conv".

    module   in evaluation mode, on the CPU, with one input shaped as `example` [N, ...] and outputs as in `outputs`
    """
    import onnx

    content = io.BytesIO()
    with torch.no_grad(), quiet("torch.onnx"):
        torch.onnx.export(
            norms_by_parts(module),
            (example[:1],),
            content,  # type: ignore[arg-type]  # a file object is fine for this exporter
            dynamo=False,
            opset_version=OPSET,
            input_names=[INPUT_NAME],
            output_names=list(outputs),
            dynamic_axes={name: {0: "batch"} for name in (INPUT_NAME, *outputs)},
        )
        answers = module(example[:1])
    graph = onnx.load_from_string(content.getvalue())
    _tidy(graph.graph)
    for output, answer in zip(graph.graph.output, (answers,) if isinstance(answers, Tensor) else answers):
        shape = ["batch", *answer.shape[1:]]
        output.CopyFrom(onnx.helper.make_tensor_value_info(output.name, onnx.TensorProto.FLOAT, shape))
    return graph


def within(name: str, modules: Sequence[str]) -> bool:
    """Whether the node `name` ("stacks.0.score/Conv") is, or belongs to, one of the modules ("stacks.0")."""
    return any(name == module or name.startswith((f"{module}.", f"{module}/")) for module in modules)


def cached_graph(model: HourglassNet, example: Tensor, folder: Path) -> Path:
    """ONNX file of the folded network's final heatmaps, for images of the example's size and any batch.

    It is converted unless the folder has it.
    """
    height, width = example.shape[2:]

    def convert() -> bytes:
        return export_graph(FinalHeatmaps(fold(model).cpu()).eval(), example).SerializeToString()

    return make_once(folder / f"{model_digest(model)}-{height}x{width}.onnx", convert)


def model_digest(model: HourglassNet) -> str:
    """What identifies a network and the way it is converted: configuration, weights and versions."""
    converted = (asdict(model.config), torch.__version__, OPSET, _CONVERSION, weights_digest(model))
    return hashlib.sha256(repr(converted).encode()).hexdigest()[:16]


def _tidy(graph: onnx.GraphProto) -> None:
    """Name nodes "module/operator", make constants weights, and let nodes read what an Identity only passes on (equal
    weights, on which ONNX Runtime's optimiser stumbles)."""
    passed_on = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Identity"}
    for node in list(graph.node):
        if node.op_type == "Constant":
            node.attribute[0].t.name = node.output[0]
            graph.initializer.append(node.attribute[0].t)
        if node.op_type in ("Identity", "Constant"):
            graph.node.remove(node)
            continue
        scope, _, operator = node.name.rpartition("/")
        node.name = f"{scope.replace('/', '.').removeprefix('.model').strip('.')}/{operator}".removeprefix("/")
        for i, name in enumerate(node.input):
            node.input[i] = passed_on.get(name, name)


@contextlib.contextmanager
def quiet(name: str) -> Iterator[None]:
    """A library's logger below errors, Python's warnings and what is printed go nowhere: none of it is for the user."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
