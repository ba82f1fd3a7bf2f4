"""Export a network: convert it, load the result back, compare it with the reference, and only then keep it.

    targets     onnx       a graph for ONNX Runtime                             fp32, fp16, int8
                trt        the graph and a TensorRT engine built from it        fp16, fp32, int8
                openvino   OpenVINO's IR for plain CPUs                         bf16 (as it runs), fp32, int8

An artefact is a folder with metadata.json (`fasthg.export.artefact`). It appears whole or not at all. What cannot run
on this machine, such as an engine without a GPU, is compared through its ONNX twin beside it, and the metadata says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fasthg.data.crops import Crops, load_crops
from fasthg.data.reading import Reading
from fasthg.errors import FasthgError
from fasthg.export import manifest, targets
from fasthg.export.artefact import METADATA, Artefact, load_artefact, write_metadata
from fasthg.export.compare import Answers, Comparison, compare, rounding_error
from fasthg.export.end_to_end import EndToEnd
from fasthg.export.targets import ArtefactSpec, Built, RunsHere
from fasthg.files import atomic_folder, check_new, sha256
from fasthg.network.checkpoint import variant_name
from fasthg.network.load import create_model, default_weights, find_weights, load_network
from fasthg.network.model import HourglassNet, check_input
from fasthg.network.precision import precision_attempts
from fasthg.network.stacks import first_stacks
from fasthg.network.variants import STRIDE
from fasthg.pixels.heatmap import decode
from fasthg.pixels.image import normalise
from fasthg.runtimes.onnx.graph import OPSET

MAX_BATCH = 1024  # an artefact is run at its largest batch before it is kept
RANDOM = "random"  # instead of weights: a fresh network, to measure speed with
_RANDOM_CROPS = 8  # on which a fresh network is compared: PCKh says nothing of it, and heatmaps need no more


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
    batch       largest batch, 1 to MAX_BATCH; the engine's kernels are chosen for it
    size        side of the crops in pixels; None for the network's own
    output      folder of the artefact; None for export/NAME
    overwrite   replace an earlier artefact there
    data        dataset whose crops are calibrated on and compared; None for the crops that ship with the package
    reading     what is said of `data` beside where it lies
    stacks      the network's first stacks alone; None for all
    """

    target: str = "onnx"
    precision: str | None = None
    variant: str | None = None
    weights: str | Path | HourglassNet | None = None
    end_to_end: bool = False
    flip: bool = True
    batch: int = 8
    size: int | None = None
    output: str | Path | None = None
    overwrite: bool = False
    data: str | Path | None = None
    reading: Reading | None = None
    stacks: int | None = None


@dataclass(frozen=True)
class ExportResult:
    """A kept artefact; `str` is the summary for people."""

    folder: Path
    name: str
    comparison: Comparison
    summary: Sequence[tuple[str, str]]

    def __str__(self) -> str:
        return "\n".join([self.name, *(f"  {word:<10} {text}" for word, text in self.summary)])


def export(options: ExportOptions) -> ExportResult:
    """Export a network as `options` say.

    Raises FasthgError for options that do not fit together or a folder that cannot be written, BackendUnavailable for a
    library that is missing, and ParityError, with nothing left behind, where the artefact answers differently.
    """
    start = time.perf_counter()
    precision = targets.check(options.target, options.precision)
    if not 1 <= options.batch <= MAX_BATCH:
        raise FasthgError(f"batch is {options.batch}; give 1 to {MAX_BATCH}")
    model, weights = _network(options)
    if options.stacks is not None:
        weights += f", the first {options.stacks} of its {model.config.num_stacks} stacks"
        model = first_stacks(model, options.stacks)
    size = options.size or model.config.input_size
    check_input(model.config, torch.empty(1, 3, size, size, device="meta"))
    name = _name(model, options, precision)
    folder = Path(options.output) if options.output is not None else Path("export") / name
    earlier = (folder / METADATA).exists()  # what else is there, `atomic_folder` names and never replaces
    check_new(folder, _inputs(options), options.overwrite or not earlier)
    with atomic_folder(folder) as aside:
        crops = load_crops(options.data, size, reading=options.reading)
        if options.weights == RANDOM:
            crops = crops.first(_RANDOM_CROPS)
        spec = _spec(model, size, options, precision, crops)
        built, comparison = _build(spec, aside, crops, name)
        _write_metadata(spec, built, aside, weights, comparison)
    summary = manifest.summary(folder, spec, built, weights, comparison, time.perf_counter() - start)
    return ExportResult(folder, name, comparison, summary)


def _inputs(options: ExportOptions) -> list[str | Path]:
    """The files and folders that an export reads."""
    given = options.weights
    weights = [find_weights(given)] if isinstance(given, str | Path) and given != RANDOM else []
    return [*weights, *([options.data] if options.data is not None else [])]


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
    file = default_weights(options.variant or "small") if options.weights is None else find_weights(options.weights)
    shipped = ", which ships with fasthg" if options.weights is None else ""
    return model, f"{Path(file).name}{shipped} (sha256 {sha256(file)[:12]})"


def _name(model: HourglassNet, options: ExportOptions, precision: str) -> str:
    parts = [variant_name(model.config) or "network", options.target, precision]
    return "-".join(parts + (["end-to-end"] if options.end_to_end else []))


def _spec(model: HourglassNet, size: int, options: ExportOptions, precision: str, crops: Crops) -> ArtefactSpec:
    return ArtefactSpec(
        model=model,
        target=options.target,
        precision=precision,
        size=size,
        batch=options.batch,
        end_to_end=options.end_to_end,
        flip=options.flip and options.end_to_end,
        calibration=crops.calibration
        if options.end_to_end
        else normalise(crops.calibration, model.config.mean).numpy(),
    )


def _build(spec: ArtefactSpec, folder: Path, crops: Crops, name: str) -> tuple[Built, Comparison]:
    """Fill the folder with files that answer like the reference, keeping as little as will do in higher precision.

    Raises ParityError where no try is good enough.
    """
    reference = _answers(_reference(spec), crops, spec, batch=4)
    rounding = (
        rounding_error(spec.model, normalise(crops.images[:4], spec.model.config.mean))
        if spec.precision == "fp32"
        else 0.0
    )
    graph = targets.fp32_graph(spec)

    def compared(runs_here: RunsHere) -> Comparison:
        loaded = load_artefact(_artefact(spec, folder, runs_here.file, runs_here.kind), batch_size=spec.batch)
        answers = _answers(loaded, crops, spec, spec.batch)
        return compare(answers, reference, crops, spec.precision, rounding, spec.model.config.skeleton)

    for keep in precision_attempts(spec.model.config, spec.precision):
        for file in folder.iterdir():
            file.unlink()
        built = targets.build(spec, graph, folder, keep, manifest.labels(spec))
        comparison = compared(built.runs_here)
        if not comparison.failures():
            break
    comparison.require(name)
    if spec.target == "trt":
        built = targets.add_engine(spec, built, folder)
        if built.runs_here.kind == "tensorrt":
            comparison = compared(built.runs_here)
            comparison.require(name)
    return built, comparison


def _reference(spec: ArtefactSpec) -> Callable[[Tensor], Tensor]:
    """The network in plain PyTorch, with the same inputs and outputs as the artefact's `Prepared`."""
    if not spec.end_to_end:
        return spec.model.final
    network = EndToEnd(spec.model, spec.flip).eval()

    def run(crops: Tensor) -> Tensor:
        keypoints, scores = network(crops)
        return torch.cat([keypoints, scores[..., None]], dim=-1)

    return run


def _artefact(spec: ArtefactSpec, folder: Path, file: str, kind: str) -> Artefact:
    """A file in the folder as a user's program takes it."""
    return Artefact(
        folder=folder,
        model=folder / file,
        kind=kind,
        precision=spec.precision,
        end_to_end=spec.end_to_end,
        config=spec.model.config,
        size=spec.size,
        max_batch=spec.batch,
    )


def _answers(run: Callable[[Tensor], Tensor], crops: Crops, spec: ArtefactSpec, batch: int) -> Answers:
    """Keypoints, and heatmaps where there are any, of all crops to score.

    The first crop is answered alone and the others in batches, so that a graph of one fixed batch is found out.
    """
    inputs = torch.from_numpy(crops.images) if spec.end_to_end else normalise(crops.images, spec.model.config.mean)
    with torch.inference_mode():
        outputs = torch.cat([run(part).cpu() for part in (inputs[:1], *inputs[1:].split(batch))])
        if spec.end_to_end:
            return Answers(outputs[..., :2].double().numpy(), None)
        points, _scores = decode(outputs)
    return Answers(points.double().numpy() * STRIDE, outputs)


def _write_metadata(spec: ArtefactSpec, built: Built, folder: Path, weights: str, comparison: Comparison) -> None:
    write_metadata(
        _artefact(spec, folder, built.model, built.kind),
        variant=variant_name(spec.model.config),
        weights=weights,
        flip=spec.flip,
        inputs=manifest.inputs(spec),
        outputs=manifest.outputs(spec),
        opset=OPSET,
        versions=manifest.versions(spec.target),
        engine=built.engine,
        kept=list(built.kept),
        compared_through=built.runs_here.note,
        comparison=comparison.to_dict(),
    )
