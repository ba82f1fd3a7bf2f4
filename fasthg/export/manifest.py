"""What an artefact says of itself, in metadata.json, in the model file and in the summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fasthg.export.compare import Comparison
from fasthg.export.end_to_end import OUTPUT_NAMES
from fasthg.export.targets import ArtefactSpec, Built
from fasthg.network.variants import STRIDE
from fasthg.runtimes.onnx.graph import INPUT_NAME, OUTPUT_NAME
from fasthg.version import installed

_LIBRARIES = {"onnx": ("onnx", "onnxruntime"), "trt": ("onnx", "onnxruntime"), "openvino": ("openvino", "nncf")}


def inputs(spec: ArtefactSpec) -> dict[str, Any]:
    """Name, type, shape and meaning of each input."""
    if spec.end_to_end:
        shape, meaning = ["batch", spec.size, spec.size, 3], "RGB crop as it is"
        return {INPUT_NAME: {"type": "uint8", "shape": shape, "meaning": meaning}}
    shape, meaning = ["batch", 3, spec.size, spec.size], f"RGB crop / 255 - {list(spec.model.config.mean)}"
    return {INPUT_NAME: {"type": "float32", "shape": shape, "meaning": meaning}}


def outputs(spec: ArtefactSpec) -> dict[str, Any]:
    """Name, type, shape and meaning of each output."""
    joints, side = spec.model.config.num_joints, spec.size // STRIDE
    if spec.end_to_end:
        keypoints, scores = OUTPUT_NAMES
        return {
            keypoints: {"type": "float32", "shape": ["batch", joints, 2], "meaning": "x, y in pixels of the crop"},
            scores: {"type": "float32", "shape": ["batch", joints], "meaning": "peak of the heatmap"},
        }
    meaning = f"one map a joint, a pixel of it is {STRIDE} of the crop"
    return {OUTPUT_NAME: {"type": "float32", "shape": ["batch", joints, side, side], "meaning": meaning}}


def versions(target: str) -> dict[str, str]:
    """Versions of what made the artefact, as far as it is installed."""
    return installed(["fasthg", "torch", *_LIBRARIES[target]])


def labels(spec: ArtefactSpec) -> dict[str, str]:
    """What the model file itself says, so that it can be used without metadata.json."""
    return {
        "precision": spec.precision,
        "input_size": str(spec.size),
        "mean": ",".join(map(str, spec.model.config.mean)),
        "inputs": describe(inputs(spec)),
        "outputs": describe(outputs(spec)),
        "joints": ",".join(spec.model.config.skeleton.names),
        "versions": ", ".join(f"{name} {version}" for name, version in versions(spec.target).items()),
    }


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
    timing = f"; {engine['ms_per_batch']:.2f} ms a full batch" if "ms_per_batch" in engine else ""
    return f"{engine['library']} {engine['version']} for {built_for}, batch 1 to {engine['max_batch']}{timing}"


def summary(
    folder: Path, spec: ArtefactSpec, built: Built, weights: str, comparison: Comparison, seconds: float
) -> list[tuple[str, str]]:
    """The artefact for people: pairs of a word and what it is."""
    files = sorted(folder.iterdir())
    kept = "out of int8" if spec.precision == "int8" else "in fp32"
    lines = [
        ("folder", str(folder)),
        ("files", ", ".join(f"{file.name} ({file.stat().st_size / 1e6:.1f} MB)" for file in files)),
        ("weights", weights),
        ("input", describe(inputs(spec))),
        ("output", describe(outputs(spec))),
        ("engine", describe_engine(built.engine)),
        ("kept", f"{kept}: {_shortened(built.kept)}" if built.kept else ""),
        ("compared", str(comparison)),
        ("", f"on {comparison.source}, through {built.runs_here.note}"),
        ("took", f"{seconds:.0f} s"),
    ]
    return [(word, text) for word, text in lines if text]


def _shortened(names: Sequence[str]) -> str:
    """A list of names, cut where it gets long."""
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more
