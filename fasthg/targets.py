"""What an artefact is made of for each target: the graph, the engine, and the words that describe them."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray

from fasthg.end_to_end import OUTPUT_NAMES, EndToEnd
from fasthg.errors import BackendUnavailable, FasthgError
from fasthg.fold import fold_norms
from fasthg.geometry import JOINT_NAMES, MEAN
from fasthg.model import HourglassNet
from fasthg.runtimes import tensorrt_engine
from fasthg.runtimes.onnx_graph import INPUT_NAME, OPSET, OUTPUT_NAME, FinalHeatmaps, export_graph
from fasthg.runtimes.onnx_precision import convert
from fasthg.variants import STRIDE, HourglassConfig

if TYPE_CHECKING:
    import onnx

__all__ = ["OPSET", "PRECISIONS", "Built", "Plan", "build", "check", "graph"]

#: Precisions of each target, the default first.
PRECISIONS: dict[str, tuple[str, ...]] = {
    "onnx": ("fp32", "fp16", "int8"),
    "trt": ("fp16", "fp32", "int8"),
    "openvino": ("bf16", "fp32", "int8"),
}
_GRAPH = (("onnx", "onnx"), ("onnxscript", "onnxscript"), ("onnxruntime", "onnxruntime"))
_NEEDS: dict[str, tuple[tuple[str, str], ...]] = {
    "onnx": _GRAPH,
    "trt": _GRAPH,
    "openvino": (*_GRAPH[:2], ("openvino", "openvino")),
}
_LIBRARIES = {"onnx": ("onnx", "onnxruntime"), "trt": ("onnx", "onnxruntime"), "openvino": ("openvino", "nncf")}


@dataclass(frozen=True)
class Plan:
    """One artefact to be made.

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
class Built:
    """The files of an artefact.

    model, kind      the file to load, and the kind that `fasthg.artefact` knows it by
    runs_here        the file that can run on this machine, its kind, and a phrase that says which it is
    engine           what is known of an engine; empty without one
    kept_fp32        nodes of an fp16 graph that stay fp32
    """

    model: str
    kind: str
    runs_here: str
    runs_here_kind: str
    runs_here_note: str
    engine: dict[str, Any] = field(default_factory=dict)
    kept_fp32: Sequence[str] = ()


def check(target: str, precision: str | None) -> str:
    """The precision to export in; raises FasthgError for one that the target does not have, and BackendUnavailable,
    with the pip command, for what is not installed."""
    if target not in PRECISIONS:
        raise FasthgError(f"unknown target {target!r}; choose one of {', '.join(PRECISIONS)}")
    chosen = precision or PRECISIONS[target][0]
    if chosen not in PRECISIONS[target]:
        raise FasthgError(f"{target} has no {chosen}; choose one of {', '.join(PRECISIONS[target])}")
    needs = _NEEDS[target] + ((("nncf", "nncf"),) if (target, chosen) == ("openvino", "int8") else ())
    missing = [packages for module, packages in needs if importlib.util.find_spec(module) is None]
    if missing:
        raise BackendUnavailable(
            f"export to {target} {chosen} needs {', '.join(missing)}; pip install {' '.join(missing)}"
        )
    if target == "trt":
        tensorrt_engine.choose_library()
    if (target, chosen) == ("openvino", "bf16"):
        from fasthg.runtimes.openvino import unavailable

        if reason := unavailable(torch.device("cpu"), "bf16"):
            raise BackendUnavailable(f"export to openvino bf16: {reason}")
    return chosen


def graph(plan: Plan) -> onnx.ModelProto:
    """The folded network, with everything around it where the plan is end to end, as an fp32 graph."""
    folded = fold_norms(plan.model)
    if plan.end_to_end:
        module: torch.nn.Module = EndToEnd(folded, plan.flip)
        return _labelled(export_graph(module.eval(), torch.from_numpy(plan.calibration[:1]), OUTPUT_NAMES), plan)
    return _labelled(export_graph(FinalHeatmaps(folded).eval(), torch.from_numpy(plan.calibration[:1])), plan)


def build(plan: Plan, fp32: onnx.ModelProto, folder: Path, keep: Sequence[str] = ()) -> Built:
    """Write the plan's files into the folder, from its fp32 graph; `keep` names modules that int8 leaves out."""
    if plan.target == "openvino":
        return _openvino(plan, fp32, folder, keep)
    converted, kept = convert(fp32, plan.calibration, plan.precision, plan.target == "trt", keep)
    (folder / "model.onnx").write_bytes(converted.SerializeToString())
    here = ("model.onnx", "onnx", "ONNX Runtime")
    if plan.target == "onnx":
        return Built("model.onnx", "onnx", *here, kept_fp32=kept)
    return _tensorrt(plan, converted, folder, kept)


def sensitive_modules(config: HourglassConfig) -> list[tuple[str, ...]]:
    """What to keep out of int8, try after try: nothing; the first layer and the heads; the stem and the finest
    resolution as well; the last stack as well."""
    stacks = range(config.num_stacks)
    heads = [f"stacks.{i}.{name}" for i in stacks for name in ("features", "score", "merge_features", "merge_score")]
    finest = [f"stacks.{i}.hourglass.up1" for i in stacks]
    return [
        (),
        ("stem.conv", *heads),
        ("stem", *heads, *finest),
        ("stem", *heads, *finest, f"stacks.{config.num_stacks - 1}"),
    ]


def _openvino(plan: Plan, fp32: onnx.ModelProto, folder: Path, keep: Sequence[str]) -> Built:
    import openvino

    from fasthg.runtimes.openvino_int8 import quantise

    network = openvino.Core().read_model(fp32.SerializeToString())
    if plan.precision == "int8":
        network = quantise(network, plan.calibration, keep)
    for key, value in _labels(plan).items():
        network.set_rt_info(value, ["fasthg", key])
    openvino.save_model(network, folder / "model.xml", compress_to_fp16=False)
    return Built("model.xml", "openvino", "model.xml", "openvino", "OpenVINO")


def _tensorrt(plan: Plan, typed: onnx.ModelProto, folder: Path, kept: Sequence[str]) -> Built:
    library = tensorrt_engine.choose_library()
    name = f"model{tensorrt_engine.SUFFIXES[library]}"
    engine = tensorrt_engine.build_engine(library, typed.SerializeToString(), plan.batch, plan.batch)
    (folder / name).write_bytes(engine)
    about = tensorrt_engine.describe(library, plan.batch)
    if torch.cuda.is_available() and tensorrt_engine.runs_on(library, torch.device("cuda", 0)):
        about["ms_per_batch"] = tensorrt_engine.time_engine(library, engine, torch.device("cuda", 0))
        return Built(name, "tensorrt", name, "tensorrt", "the engine itself", about, kept)
    return Built(
        name,
        "tensorrt",
        "model.onnx",
        "onnx",
        "its ONNX twin in ONNX Runtime, since the engine cannot run here",
        about,
        kept,
    )


def inputs(plan: Plan) -> dict[str, Any]:
    """Name, type, shape and meaning of each input."""
    if plan.end_to_end:
        shape, meaning = ["batch", plan.size, plan.size, 3], "RGB crop as it is"
        return {INPUT_NAME: {"type": "uint8", "shape": shape, "meaning": meaning}}
    shape, meaning = ["batch", 3, plan.size, plan.size], f"RGB crop / 255 - {list(MEAN)}"
    return {INPUT_NAME: {"type": "float32", "shape": shape, "meaning": meaning}}


def outputs(plan: Plan) -> dict[str, Any]:
    """Name, type, shape and meaning of each output."""
    joints, side = plan.model.config.num_joints, plan.size // STRIDE
    if plan.end_to_end:
        keypoints, scores = OUTPUT_NAMES
        return {
            keypoints: {"type": "float32", "shape": ["batch", joints, 2], "meaning": "x, y in pixels of the crop"},
            scores: {"type": "float32", "shape": ["batch", joints], "meaning": "heatmap's peak"},
        }
    meaning = f"one map a joint, a pixel of it is {STRIDE} of the crop"
    return {OUTPUT_NAME: {"type": "float32", "shape": ["batch", joints, side, side], "meaning": meaning}}


def versions(target: str) -> dict[str, str]:
    """Versions of what made the artefact."""
    names = ("fasthg", "torch", "onnxscript", *_LIBRARIES[target])
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def describe(tensors: Mapping[str, Any]) -> str:
    """`inputs` or `outputs` in one line."""
    return "; ".join(
        f"{name} {about['type']} [{', '.join(map(str, about['shape']))}]: {about['meaning']}"
        for name, about in tensors.items()
    )


def describe_engine(engine: Mapping[str, Any]) -> str:
    """What is known of an engine in one line; empty where there is none."""
    if not engine:
        return ""
    built_for = engine.get("gpu") or f"compute {', '.join(engine['compute_capabilities'])}"
    timing = f"; {engine['ms_per_batch']:.2f} ms a batch" if "ms_per_batch" in engine else ""
    return f"{engine['library']} {engine['version']} for {built_for}, batch 1 to {engine['max_batch']}{timing}"


def shortened(names: Sequence[str]) -> str:
    """A list of names cut after the third."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _labels(plan: Plan) -> dict[str, str]:
    """What the model file itself says, so that it can be used without metadata.json."""
    joints = JOINT_NAMES if plan.model.config.num_joints == len(JOINT_NAMES) else range(plan.model.config.num_joints)
    return {
        "producer": f"fasthg {versions(plan.target).get('fasthg', '')}".strip(),
        "precision": plan.precision,
        "input_size": str(plan.size),
        "mean": ",".join(map(str, MEAN)),
        "inputs": describe(inputs(plan)),
        "outputs": describe(outputs(plan)),
        "joints": ",".join(map(str, joints)),
        "versions": ", ".join(f"{name} {version}" for name, version in versions(plan.target).items()),
    }


def _labelled(model: onnx.ModelProto, plan: Plan) -> onnx.ModelProto:
    import onnx

    onnx.helper.set_model_props(model, _labels(plan))
    model.graph.name = "stacked_hourglass"
    return model
