"""How the files of an artefact are made, for each target."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray

from fasthg.errors import BackendUnavailable, FasthgError
from fasthg.export.end_to_end import OUTPUT_NAMES, EndToEnd
from fasthg.network.fold import fold
from fasthg.network.model import HourglassNet
from fasthg.network.precision import final_head, last_stack
from fasthg.runtimes import tensorrt_engine
from fasthg.runtimes.onnx.convert import convert
from fasthg.runtimes.onnx.graph import FinalHeatmaps, export_graph

if TYPE_CHECKING:
    import onnx

#: Precisions of each target, the default first.
PRECISIONS: dict[str, tuple[str, ...]] = {
    "onnx": ("fp32", "fp16", "int8"),
    "trt": ("fp16", "fp32", "int8"),
    "openvino": ("bf16", "fp32", "int8"),
}
_EXTRAS = {"onnx": "ort", "trt": "trt", "openvino": "openvino"}  # of pyproject.toml, with what each target needs
_NEEDS: dict[str, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxruntime"),
    "trt": ("onnx", "onnxruntime"),
    "openvino": ("onnx", "openvino"),
}


@dataclass(frozen=True)
class ArtefactSpec:
    """What the files of one artefact are made from.

    batch        the largest
    calibration  what the graph's input takes, [M, ...]: uint8 crops end to end, else normalised images
    """

    model: HourglassNet
    target: str
    precision: str
    size: int
    batch: int
    end_to_end: bool
    flip: bool
    calibration: NDArray[Any]


@dataclass(frozen=True)
class RunsHere:
    """The file of an artefact that this machine can run: its kind for `fasthg.export.artefact`, and which, in words."""

    file: str
    kind: str
    note: str


@dataclass(frozen=True)
class Built:
    """The files of an artefact.

    model, kind  the file to load, and the kind that `fasthg.export.artefact` knows it by
    engine       what is known of a TensorRT engine; empty without one
    kept         nodes or modules that stay in higher precision
    """

    model: str
    kind: str
    runs_here: RunsHere
    engine: dict[str, Any] = field(default_factory=dict)
    kept: Sequence[str] = ()


def check(target: str, precision: str | None) -> str:
    """The precision to export in.

    Raises FasthgError for one that the target does not have, and BackendUnavailable, with the pip command, for what is
    not installed.
    """
    if target not in PRECISIONS:
        raise FasthgError(f"unknown target {target!r}; choose one of {', '.join(PRECISIONS)}")
    chosen = precision or PRECISIONS[target][0]
    if chosen not in PRECISIONS[target]:
        raise FasthgError(f"{target} has no {chosen}; choose one of {', '.join(PRECISIONS[target])}")
    needs = _NEEDS[target] + (("nncf",) if (target, chosen) == ("openvino", "int8") else ())
    if missing := [module for module in needs if importlib.util.find_spec(module) is None]:
        raise BackendUnavailable(
            f"export to {target} needs {' and '.join(missing)}; pip install 'fasthg[{_EXTRAS[target]}]'"
        )
    if target == "trt":
        tensorrt_engine.choose_library()
    if (target, chosen) == ("openvino", "bf16"):
        from fasthg.runtimes.openvino import unavailable

        if reason := unavailable(torch.device("cpu"), chosen):
            raise BackendUnavailable(f"export to openvino bf16: {reason}")
    return chosen


def fp32_graph(spec: ArtefactSpec) -> onnx.ModelProto:
    """The folded network as a graph, with everything around it where the artefact is end to end."""
    folded = fold(spec.model)
    example = torch.from_numpy(spec.calibration[:1])
    if spec.end_to_end:
        return export_graph(EndToEnd(folded, spec.flip).eval(), example, OUTPUT_NAMES)
    return export_graph(FinalHeatmaps(folded).eval(), example)


def build(
    spec: ArtefactSpec, graph: onnx.ModelProto, folder: Path, keep: Sequence[str], labels: dict[str, str]
) -> Built:
    """Write the artefact's files into the folder; an engine comes later, by `add_engine`.

    graph   from `fp32_graph`
    keep    modules that stay in higher precision, see `fasthg.network.precision.precision_attempts`
    labels  what the model file says of itself
    """
    if spec.target == "openvino":
        return _openvino(spec, graph, folder, keep, labels)
    import onnx

    config = spec.model.config
    converted, kept = convert(graph, spec.calibration, spec.precision, config, keep, spec.target == "trt")
    onnx.helper.set_model_props(converted, labels)
    converted.graph.name = "stacked_hourglass"
    (folder / "model.onnx").write_bytes(converted.SerializeToString())
    here = RunsHere("model.onnx", "onnx", "ONNX Runtime")
    return Built("model.onnx", "onnx", here, kept=keep if spec.precision == "int8" else kept)


def add_engine(spec: ArtefactSpec, built: Built, folder: Path) -> Built:
    """Build the engine of the ONNX graph in the folder, and time it where it runs on this machine."""
    library = tensorrt_engine.choose_library()
    name = f"model{tensorrt_engine.SUFFIXES[library]}"
    graph = (folder / built.model).read_bytes()
    engine = tensorrt_engine.build_engine(library, graph, spec.batch, best_batch=spec.batch)
    (folder / name).write_bytes(engine)
    about = tensorrt_engine.describe(library, spec.batch)
    if not tensorrt_engine.runs_here(library):
        here = RunsHere(built.model, "onnx", "its ONNX twin in ONNX Runtime, since the engine cannot run here")
        return Built(name, "tensorrt", here, about, built.kept)
    about["ms_per_batch"] = tensorrt_engine.time_engine(library, engine, torch.device("cuda", 0))
    return Built(name, "tensorrt", RunsHere(name, "tensorrt", "the engine itself"), about, built.kept)


def _openvino(
    spec: ArtefactSpec, graph: onnx.ModelProto, folder: Path, keep: Sequence[str], labels: dict[str, str]
) -> Built:
    import openvino

    from fasthg.runtimes.openvino_ir import quantise, save

    network = openvino.Core().read_model(graph.SerializeToString())
    if spec.precision == "int8":
        network = quantise(network, spec.calibration, keep)
    for key, value in labels.items():
        network.set_rt_info(value, ["fasthg", key])
    if spec.precision == "int8":
        save(network, folder / "model.xml", final_head(spec.model.config))
    else:
        save(network, folder / "model.xml", keep, [last_stack(spec.model.config)])
    return Built("model.xml", "openvino", RunsHere("model.xml", "openvino", "OpenVINO"), kept=keep)
