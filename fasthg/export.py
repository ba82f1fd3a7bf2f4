"""Export a network: convert it, load the result back, compare it with the reference, and only then keep it.

    targets     onnx       a graph for ONNX Runtime                             fp32, fp16, int8
                trt        the graph and a TensorRT engine built from it        fp32, fp16, int8
                openvino   OpenVINO's IR for plain CPUs                         fp32, bf16 (as it runs), int8

An artefact is a folder with metadata.json (`fasthg.artefact`). It appears as a whole or not at all. What cannot run on
this machine, such as an engine without a GPU, is compared through its ONNX twin beside it, and the metadata says so.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fasthg import targets
from fasthg.artefact import Artefact, load_artefact, write_metadata
from fasthg.checkpoint import default_weights, variant_name
from fasthg.compare import Answers, Comparison, compare
from fasthg.end_to_end import EndToEnd
from fasthg.errors import FasthgError
from fasthg.files import atomic_folder, sha256
from fasthg.gate import GateSet, load_gate
from fasthg.heatmap import decode
from fasthg.image import normalise
from fasthg.model import HourglassNet, check_input, create_model
from fasthg.serving import load_network
from fasthg.targets import Built, Plan
from fasthg.variants import INPUT_SIZE, STRIDE

RANDOM = "random"  # instead of weights: a fresh network, to measure speed with


@dataclass(frozen=True)
class ExportOptions:
    """What to export, and how.

    target      "onnx", "trt" or "openvino"
    precision   one of `targets.PRECISIONS[target]`; None takes the first
    variant     name in VARIANTS; None takes the network from the weights
    weights     a `.safetensors` checkpoint, a network, "random" for a fresh one (with `variant`), or None for those
                that ship with the package
    end_to_end  uint8 crops in, keypoints and scores out: normalisation and decoding in the graph
    flip        with `end_to_end`: average with the mirrored crop, in the graph
    batch       largest batch; the engine's kernels are chosen for it
    size        side of the crops in pixels
    output      folder of the artefact; None for export/NAME
    data        dataset whose crops are calibrated on and compared; None for the crops that ship with the package
    """

    target: str = "onnx"
    precision: str | None = None
    variant: str | None = None
    weights: str | Path | HourglassNet | None = None
    end_to_end: bool = False
    flip: bool = True
    batch: int = 8
    size: int = INPUT_SIZE
    output: str | Path | None = None
    data: str | Path | None = None


@dataclass(frozen=True)
class ExportResult:
    """A kept artefact; `str` is the summary for people."""

    folder: Path
    name: str
    comparison: Comparison
    lines: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return "\n".join([self.name, *(f"  {key:<10} {value}" for key, value in self.lines)])


def export(options: ExportOptions) -> ExportResult:
    """Export a network as `options` say.

    Raises FasthgError for options that do not fit together or a folder that cannot be written, BackendUnavailable for a
    library that is missing, and ParityError, with nothing left behind, where the artefact answers differently.
    """
    start = time.perf_counter()
    precision = targets.check(options.target, options.precision)
    if options.batch < 1:
        raise FasthgError(f"batch is {options.batch}; give at least 1")
    model, weights = _network(options)
    check_input(model.config, torch.empty(1, 3, options.size, options.size, device="meta"))
    name = _name(model, options, precision)
    folder = Path(options.output) if options.output is not None else Path("export") / name
    with atomic_folder(folder) as aside:
        gate = load_gate(options.data, options.size)
        plan = _plan(model, options, precision, gate)
        reference = _reference_answers(plan, gate)
        built, comparison, keep = _build_until_good(plan, aside, gate, reference)
        comparison.require(name)
        details = _details(plan, built, weights, comparison, keep)
        _write(plan, built, aside, **details)
        sizes = {file.name: file.stat().st_size for file in sorted(aside.iterdir())}
    lines = _summary(folder, plan, built, weights, comparison, keep, sizes, time.perf_counter() - start)
    return ExportResult(folder, name, comparison, lines)


def _network(options: ExportOptions) -> tuple[HourglassNet, str]:
    """The network in evaluation mode on the CPU, and one phrase that says where its weights come from."""
    if isinstance(options.weights, HourglassNet):
        return options.weights.cpu().eval(), "a network given by the caller"
    if options.weights == RANDOM:
        if options.variant is None:
            raise FasthgError("random weights need a network; give --variant")
        torch.manual_seed(0)
        return create_model(options.variant).eval(), "random, for measuring speed only"
    model = load_network(options.weights, options.variant)
    if options.weights is None:
        file = default_weights(options.variant or "small")
        return model, f"{file.name}, which ships with fasthg (sha256 {sha256(file)[:12]})"
    return model, f"{options.weights} (sha256 {sha256(options.weights)[:12]})"


def _name(model: HourglassNet, options: ExportOptions, precision: str) -> str:
    parts = [variant_name(model.config) or "network", options.target, precision]
    return "-".join(parts + (["end-to-end"] if options.end_to_end else []))


def _plan(model: HourglassNet, options: ExportOptions, precision: str, gate: GateSet) -> Plan:
    crops = gate.calibration if options.end_to_end else normalise(gate.calibration).numpy()
    return Plan(
        model=model,
        target=options.target,
        precision=precision,
        size=options.size,
        batch=options.batch,
        end_to_end=options.end_to_end,
        flip=options.flip and options.end_to_end,
        calibration=crops,
    )


def _build_until_good(
    plan: Plan, folder: Path, gate: GateSet, reference: Answers
) -> tuple[Built, Comparison, tuple[str, ...]]:
    """Build into the folder and compare; where int8 loses too much, keep more and more layers out of it.

    Returns the last try, good or not, with the modules that it kept out of int8.
    """
    graph = targets.graph(plan)
    tries = targets.sensitive_modules(plan.model.config) if plan.precision == "int8" else [()]
    for keep in tries:
        for file in folder.iterdir():
            file.unlink()
        built = targets.build(plan, graph, folder, keep)
        comparison = compare(_artefact_answers(plan, built, folder, gate), reference, gate, plan.precision)
        if not comparison.failures():
            break
    return built, comparison, keep


def _artefact_answers(plan: Plan, built: Built, folder: Path, gate: GateSet) -> Answers:
    """What the files in the folder answer, loaded back as a user's program loads them."""
    artefact = Artefact(
        folder=folder,
        model=folder / built.runs_here,
        kind=built.runs_here_kind,
        precision=plan.precision,
        end_to_end=plan.end_to_end,
        config=plan.model.config,
        size=plan.size,
        max_batch=plan.batch,
        metadata={},
    )
    return _answers(load_artefact(artefact, batch_size=plan.batch), gate, plan, _batches(len(gate), plan.batch))


def _reference_answers(plan: Plan, gate: GateSet) -> Answers:
    if plan.end_to_end:
        network = EndToEnd(plan.model, plan.flip).eval()

        def joined(crops: Tensor) -> Tensor:
            keypoints, scores = network(crops)
            return torch.cat([keypoints, scores[..., None]], dim=-1)

        return _answers(joined, gate, plan, _batches(len(gate), 4))
    return _answers(plan.model.final, gate, plan, _batches(len(gate), 4))


def _answers(run: Any, gate: GateSet, plan: Plan, batches: Sequence[int]) -> Answers:
    """Keypoints, and heatmaps where there are any, of all crops of the gate, in batches of the given lengths."""
    inputs = torch.from_numpy(gate.crops) if plan.end_to_end else normalise(gate.crops)
    with torch.inference_mode():
        outputs = torch.cat([run(part).cpu() for part in inputs.split(list(batches))])
        if plan.end_to_end:
            return Answers(outputs[..., :2].double().numpy(), None)
        points, _scores = decode(outputs)
    return Answers(points.double().numpy() * STRIDE, outputs)


def _batches(count: int, largest: int) -> list[int]:
    """Lengths of batches for `count` images: one alone, which finds out a graph of one fixed batch, then full ones."""
    rest = count - 1
    return [1] + [largest] * (rest // largest) + ([rest % largest] if rest % largest else [])


def _details(plan: Plan, built: Built, weights: str, comparison: Comparison, keep: Sequence[str]) -> dict[str, Any]:
    """What metadata.json says beside what is needed to load the artefact."""
    return {
        "variant": variant_name(plan.model.config),
        "weights": weights,
        "flip": plan.flip,
        "inputs": targets.inputs(plan),
        "outputs": targets.outputs(plan),
        "opset": targets.OPSET,
        "versions": targets.versions(plan.target),
        "engine": built.engine,
        "kept_fp32": list(built.kept_fp32),
        "kept_out_of_int8": list(keep),
        "compared_through": built.runs_here_note,
        "comparison": comparison.to_dict(),
    }


def _write(plan: Plan, built: Built, folder: Path, **details: Any) -> None:
    write_metadata(
        folder,
        built.model,
        kind=built.kind,
        precision=plan.precision,
        config=plan.model.config,
        size=plan.size,
        max_batch=plan.batch,
        end_to_end=plan.end_to_end,
        **details,
    )


def _summary(
    folder: Path,
    plan: Plan,
    built: Built,
    weights: str,
    comparison: Comparison,
    keep: Sequence[str],
    sizes: dict[str, int],
    seconds: float,
) -> tuple[tuple[str, str], ...]:
    c = comparison
    heatmaps = [] if c.heatmap_error is None else [f"heatmaps {c.heatmap_error:.1e} (limit {c.heatmap_limit:.0e})"]
    distances = f"keypoints {c.keypoint_median:.3f} px median, {c.keypoint_p99:.2f} px at 99 %"
    if c.pckh_counts:
        scores = f"PCKh@0.5 {c.pckh_reference:.2f} -> {c.pckh_artefact:.2f}"
    else:
        scores = "PCKh not compared: the network has not learnt enough"
    lines = [
        ("folder", str(folder)),
        ("files", ", ".join(f"{name} ({size / 1e6:.1f} MB)" for name, size in sizes.items())),
        ("weights", weights),
        ("input", targets.describe(targets.inputs(plan))),
        ("output", targets.describe(targets.outputs(plan))),
        ("engine", targets.describe_engine(built.engine)),
        ("fp32", targets.shortened(built.kept_fp32) if plan.precision == "fp16" else ""),
        ("not int8", targets.shortened(keep)),
        ("compared", "; ".join([*heatmaps, distances, scores])),
        ("", f"on {c.source}, through {built.runs_here_note}"),
        ("took", f"{seconds:.0f} s"),
    ]
    return tuple((key, value) for key, value in lines if value)
