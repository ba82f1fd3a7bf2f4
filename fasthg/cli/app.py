"""The command `fasthg`: it reads options and prints; what a command does lives in the module of its name.

Exit codes: 0 done; 2 bad usage or input, one line on stderr; 3 a parity check failed; 4 a backend cannot run here; 5
done, but for items that could not be read and were left out; 130 Ctrl-C.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fasthg.cli.label import label, with_address
from fasthg.console import make_app, note, output_console, progress_bar, run_app
from fasthg.errors import FasthgError, ItemsLeftOut
from fasthg.network.variants import INPUT_SIZE
from fasthg.version import __version__

app = make_app(help="Stacked-hourglass pose networks, fast to train and to run, with the accuracy proven.")

_NAMED = 20  # people whose photograph cannot be read, before the rest is only counted

Weights = Annotated[
    Path | None,
    typer.Option(
        help="Checkpoint, exported folder, or a name of `fasthg list --weights`; the shipped one if left out."
    ),
]
Variant = Annotated[str | None, typer.Option(help="Network that the weights must be; taken from the file otherwise.")]
PathName = Annotated[str, typer.Option("--path", help="Execution path, such as openvino:bf16; see `fasthg env`.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Flip = Annotated[bool, typer.Option("--flip", help="Average with the mirrored image.")]
BatchSize = Annotated[int, typer.Option(min=1, help="People in one run of the network.")]
Size = Annotated[int | None, typer.Option(min=1, help="Side of the crops in pixels; 256 where left out.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; PyTorch's own number where left out.")]
Throughput = Annotated[bool, typer.Option("--throughput", help="The most images a second, not the soonest answer.")]
Category = Annotated[str | None, typer.Option(help="Kind of subject to read, where the data has several.")]
Holdout = Annotated[str, typer.Option(help="Images held out where no file says: every6, 0.2@7, or a file of names.")]
Measure = Annotated[str | None, typer.Option("--pck", help="Score by head, torso, box, image or pixels: box@0.1.")]
Stacks = Annotated[int | None, typer.Option(min=1, help="Run the network's first stacks alone.")]
Budget = Annotated[
    str | None, typer.Option(help="As many stacks as fit into this time a person here, such as 40ms.", metavar="TIME")
]
EarlyExit = Annotated[
    float | None,
    typer.Option(min=0, help="Stop once no joint moves further between two stacks than this, heatmap pixels."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result; never an input.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at what cannot be read, instead of leaving it out.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]


def _say_version(wanted: bool) -> None:
    if wanted:
        print(f"fasthg {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_say_version, help="Say the version and exit.")
    ] = False,
) -> None:
    pass


@app.command("list", epilog="Example: fasthg list --json")
def list_variants(
    weights: Annotated[bool, typer.Option("--weights", help="The weights that have a name instead.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the network variants with their parameters and GFLOPs at 256x256, or the weights by name."""
    if weights:
        from fasthg.cli.weights import weights_table, weights_to_dict

        _print(weights_to_dict(), as_json, weights_table)
        return
    from fasthg.cli.variants import variants_table, variants_to_dict

    _print(variants_to_dict(), as_json, variants_table)


@app.command(epilog="Example: fasthg env")
def env(as_json: AsJson = False) -> None:
    """Say what this machine is, which execution paths it can run, and why not the rest."""
    from fasthg.cli.env import describe, machine_tables

    _print(describe(), as_json, machine_tables)


@app.command(epilog="Example: fasthg predict photo.jpg --bbox 210,40,180,420 -o out/poses")
def predict(
    images: Annotated[list[Path], typer.Argument(help="Photographs, folders of photographs, videos.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the results.")] = Path("predictions"),
    weights: Weights = None,
    variant: Variant = None,
    bbox: Annotated[
        list[str] | None, typer.Option(help="Person's box x,y,w,h in pixels; repeat for several people.")
    ] = None,
    boxes: Annotated[Path | None, typer.Option(help="People's boxes in COCO's JSON.")] = None,
    category: Category = None,
    detect: Annotated[bool, typer.Option("--detect", help="Find the people, by YOLOX-Nano, fetched once.")] = False,
    path: PathName = "auto",
    device: Device = "auto",
    flip: Flip = False,
    stacks: Stacks = None,
    budget: Budget = None,
    early_exit: EarlyExit = None,
    batch_size: BatchSize = 8,
    size: Size = None,
    threads: Threads = None,
    throughput: Throughput = False,
    formats: Annotated[
        str,
        typer.Option("--format", help="Of json, csv, coco, mat, dlc, dlc-h5, sleap, with commas between."),
    ] = "json",
    overlays: Annotated[bool, typer.Option(help="Also write the images with the poses drawn over them.")] = True,
    overwrite: Overwrite = False,
    strict: Strict = False,
) -> None:
    """Predict poses on photographs and videos; write predictions.json in their pixels, and overlays."""
    from fasthg.predict.boxes import parse_boxes, read_coco_boxes
    from fasthg.predict.command import predict_to_folder
    from fasthg.predict.depth import Depth, parse_budget

    if (bbox is not None) + (boxes is not None) + detect > 1:
        raise FasthgError("--bbox, --boxes and --detect say where people are; give one of them")
    people = parse_boxes(bbox) if bbox else read_coco_boxes(boxes, category) if boxes else None
    options = {"variant": variant, "runtime": path, "device": device, "flip": flip, "threads": threads, "size": size}
    options["detect"] = detect
    options["mode"] = "throughput" if throughput else "latency"
    written = predict_to_folder(
        images,
        output,
        people,
        formats.split(","),
        overlays,
        overwrite=overwrite,
        strict=strict,
        keep=[file for file in (boxes, weights) if file],
        weights=weights,
        batch_size=batch_size,
        depth=Depth(stacks, parse_budget(budget) if budget is not None else None, early_exit),
        **options,  # type: ignore[arg-type]
    )
    for file in written.files:
        print(file)
    _say_left_out(written.left_out)


app.command(epilog="Example: fasthg label photos/ clips/*.mp4 -o out/labels --ray")(label)


@app.command("eval", epilog="Example: fasthg eval --data MPII --weights F.safetensors --flip")
def evaluate(
    data: Annotated[Path, typer.Option(help="Dataset: a folder with images/ and annotations, or an annotation file.")],
    weights: Weights = None,
    variant: Variant = None,
    path: PathName = "auto",
    device: Device = "auto",
    split: Annotated[str, typer.Option(help="train, val or all.")] = "val",
    flip: Flip = False,
    stacks: Stacks = None,
    by_stack: Annotated[bool, typer.Option("--by-stack", help="Score, GFLOP and ms after each stack.")] = False,
    early_exit: EarlyExit = None,
    batch_size: BatchSize = 8,
    size: Size = None,
    threads: Threads = None,
    category: Category = None,
    holdout: Holdout = "every6",
    measure: Measure = None,
    detections: Annotated[Path | None, typer.Option(help="COCO's list of boxes to predict in; scored by OKS.")] = None,
    results: Annotated[Path | None, typer.Option(help="Write the poses as COCO's list of results.")] = None,
    overwrite: Overwrite = False,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Score weights on a dataset: PCKh on MPII's format, PCK by the torso on LSP's, by boxes and OKS on others'."""
    import numpy as np

    from fasthg.data.coco import at_detections, is_coco_file
    from fasthg.data.dataset import check_images, load_dataset
    from fasthg.data.protocols import parse_protocol
    from fasthg.data.reading import Reading
    from fasthg.files import check_new, write_json
    from fasthg.metrics.evaluate import find_dataset
    from fasthg.metrics.oks import oks_of_dataset, results_of_dataset
    from fasthg.pixels.skeleton import check_same_points
    from fasthg.predict.depth import Depth
    from fasthg.predict.load import load_runner
    from fasthg.predict.photo import LeftOut

    if split not in ("train", "val", "all"):
        raise FasthgError(f"unknown split {split!r}; give train, val or all")
    if results:
        check_new(results, [file for file in (data, weights, detections) if file], overwrite)
    dataset = load_dataset(data, split, check_files=False, reading=Reading(category, holdout))  # type: ignore[arg-type]
    dataset, box_scores = at_detections(dataset, detections, category) if detections else (dataset, None)
    if strict or not dataset.image_dir.is_dir():
        check_images(dataset)
    left_out = LeftOut(strict, named=_NAMED)
    if by_stack:
        if stacks or early_exit is not None:
            raise FasthgError("--by-stack runs every number of stacks; leave --stacks and --early-exit out")
        from fasthg.cli.by_stack import eval_by_stack, stacks_table

        options = (path, device, batch_size, size, threads, flip)
        _print(eval_by_stack(weights, variant, dataset, *options, left_out), as_json, stacks_table)
        _say_left_out(left_out.count)
        return
    depth = Depth(stacks, early_exit=early_exit)
    served = load_runner(weights, variant, path, device, batch_size, size, threads, depth=depth)
    if results or detections:
        check_same_points(str(weights or "the shipped network"), served.skeleton, dataset.people.skeleton)
    own = served.skeleton.names == dataset.people.skeleton.names
    dataset = dataset.under(served.skeleton)
    if not own:
        points = [dataset.people.skeleton.names[i] for i in np.flatnonzero(dataset.people.labelled.any(axis=0))]
        note(f"the data has another skeleton; compared are {', '.join(points)}")
    if served.end_to_end:
        raise FasthgError(f"{weights} is exported end to end and gives no heatmaps; export it without --end-to-end")
    runner = served.runner
    note(f"path {runner.path} ({runner.precision}, {runner.device}): {served.why}")
    with progress_bar() as bar:
        task = bar.add_task("people", total=len(dataset))
        predictions, peaks = find_dataset(
            *(runner, dataset, None, served.size, served.batch_size, flip),
            lambda count: bar.advance(task, count),
            left_out,
            served.mean,
        )
    seen = np.isfinite(predictions).all(axis=(1, 2))
    if not seen.any():
        raise FasthgError(f"data {dataset.image_dir}: no photograph can be read; copy them there again")
    run = {"path": runner.path, "precision": runner.precision, "device": runner.device, "flip": flip, "split": split}
    run["left_out"] = left_out.count
    if early_exit is not None:
        from fasthg.cli.by_stack import exits

        run["early_exit"] = exits(runner, served.size)
    listed = None
    if own and (results or is_coco_file(dataset.annotations)):
        chosen = None if box_scores is None else box_scores[seen]
        listed = results_of_dataset(dataset.select(seen), predictions[seen], peaks[seen], chosen, category)
    if results:
        write_json(results, listed)
        note(str(results))
    run["oks"] = oks_of_dataset(dataset, listed) if listed is not None else None
    protocols = (parse_protocol(measure),) if measure else dataset.protocols
    people = None if detections else dataset.people.select(seen)
    _print_scores(predictions[seen], people, protocols, run, as_json)
    _say_left_out(left_out.count)


@app.command(epilog="Example: fasthg score predictions.json --truth MPII/annotations.json")
def score(
    predictions: Annotated[Path, typer.Argument(help="Predictions: .h5, .mat or .json.")],
    truth: Annotated[Path, typer.Option(help="detections_our_format.mat, or annotations in any format.")],
    split: Annotated[str, typer.Option(help="People of the annotations: train, val or all.")] = "val",
    category: Category = None,
    holdout: Holdout = "every6",
    measure: Measure = None,
    as_json: AsJson = False,
) -> None:
    """Score a file of predictions by its truth's protocols: PCKh for MPII, PCK by the torso for LSP.

    COCO's list of results is scored by OKS against a file of COCO's keypoints.
    """
    from fasthg.data.protocols import parse_protocol
    from fasthg.data.reading import Reading
    from fasthg.metrics.oks import is_results, score_results
    from fasthg.metrics.prediction_files import read_predictions, read_truth

    if split not in ("train", "val", "all"):
        raise FasthgError(f"unknown split {split!r}; give train, val or all")
    if is_results(predictions):
        _print_scores(None, None, (), {"oks": score_results(predictions, truth, Reading(category))}, as_json)
        return
    known = read_truth(truth, split, Reading(category, holdout))  # type: ignore[arg-type]
    protocols = (parse_protocol(measure),) if measure else known.protocols
    _print_scores(read_predictions(predictions, known.skeleton), known, protocols, {}, as_json)


@app.command(epilog="Example: fasthg convert checkpoint.pth.tar -o published.safetensors")
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint of bearpaw/pytorch-pose, anibali or princeton-vl.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .safetensors file to write.")],
    skeleton: Annotated[
        str | None,
        typer.Option(help="Its points: mpii, lsp, coco or crowdpose; told by their number where left out."),
    ] = None,
    half: Annotated[bool, typer.Option("--fp16", help="Store the convolutions' kernels in half precision.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Convert a published checkpoint to this project's format."""
    import torch

    from fasthg.files import check_new
    from fasthg.network.checkpoint import save, variant_name
    from fasthg.network.convert import convert as convert_checkpoint
    from fasthg.pixels.skeleton import get_skeleton

    check_new(output, [checkpoint], overwrite)
    config, state, metadata = convert_checkpoint(checkpoint, get_skeleton(skeleton) if skeleton else None)
    save(state, output, config=config, metadata=metadata, dtype=torch.float16 if half else None)
    name = variant_name(config) or f"{config.num_stacks} stacks of {config.num_feats} features"
    note(f"{metadata['converted_from']}: {name}, skeleton {config.skeleton}; input: {metadata['input']}")
    print(output)


@app.command(epilog="Example: fasthg export --openvino --int8 -o out/small-int8")
def export(
    variant: Variant = None,
    stacks: Stacks = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help='Checkpoint, a name of `fasthg list --weights`, or "random"; the shipped one where left out.'
        ),
    ] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Write ONNX; this is what is written without a choice.")] = False,
    trt: Annotated[bool, typer.Option("--trt", help="Build a TensorRT engine.")] = False,
    openvino: Annotated[bool, typer.Option("--openvino", help="Write OpenVINO's format.")] = False,
    fp32: Annotated[bool, typer.Option("--fp32", help="What ONNX is written in without a choice.")] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="What TensorRT is built in without a choice.")] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="What OpenVINO runs in without a choice.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Calibrated; kept where PCKh holds.")] = False,
    end_to_end: Annotated[bool, typer.Option("--end-to-end", help="uint8 crops in, joints and scores out.")] = False,
    flip: Annotated[bool, typer.Option(help="With --end-to-end: average with the mirrored crop, in the graph.")] = True,
    batch: Annotated[int, typer.Option(min=1, help="Largest batch that the artefact is made for.")] = 8,
    size: Annotated[int, typer.Option(min=1, help="Side of the crops in pixels.")] = INPUT_SIZE,
    data: Annotated[
        Path | None, typer.Option(help="Dataset to calibrate on and to compare on; the shipped crops where left out.")
    ] = None,
    category: Category = None,
    holdout: Holdout = "every6",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder for the artefact.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Export a network for deployment; the artefact is checked against the reference before it is kept."""
    target = _one_of(onnx=onnx, trt=trt, openvino=openvino) or "onnx"
    precision = _one_of(fp32=fp32, fp16=fp16, bf16=bf16, int8=int8)
    from fasthg.data.reading import Reading
    from fasthg.export.export import ExportOptions
    from fasthg.export.export import export as export_network

    options = ExportOptions(
        target=target,
        precision=precision,
        variant=variant,
        stacks=stacks,
        weights=weights,
        end_to_end=end_to_end,
        flip=flip,
        batch=batch,
        size=size,
        output=output,
        overwrite=overwrite,
        data=data,
        reading=Reading(category, holdout),
    )
    print(export_network(options))


def _say_left_out(count: int) -> None:
    if count:
        raise ItemsLeftOut(f"{count} left out, named above; everything else is done")


def _one_of(**flags: bool) -> str | None:
    """The flag that was given, None for none; raises FasthgError for several."""
    chosen = [name for name, given in flags.items() if given]
    if len(chosen) > 1:
        raise FasthgError(f"{' and '.join(f'--{name}' for name in chosen)} both given; give one of them")
    return chosen[0] if chosen else None


def _print_scores(predictions: Any, people: Any, protocols: Any, run: dict[str, Any], as_json: bool) -> None:
    """Scores under each protocol of some people: a table each, or the first one's JSON with the others beside.

    Where there are no people to compare with, as in detected boxes, OKS alone is shown; it is in `run`.
    """
    from rich.console import Group

    from fasthg.metrics.oks import oks_table
    from fasthg.metrics.pck import score_people

    scores = [score_people(predictions, people, protocol) for protocol in protocols] if people is not None else []
    content = (scores[0].to_dict() if scores else {}) | run
    if len(scores) > 1:
        content["others"] = [others.to_dict() for others in scores[1:]]
    tables = [found.table() for found in scores] + ([oks_table(run["oks"])] if run.get("oks") else [])
    _print(content, as_json, lambda _: Group(*tables))


def _print(content: dict[str, Any], as_json: bool, table: Any) -> None:
    if as_json:
        print(json.dumps(content, indent=2))
    else:
        output_console().print(table(content))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line on `argv` (default: the process's) and return the exit code."""
    log = logging.getLogger("fasthg")
    log.setLevel(logging.INFO)
    if not log.handlers:
        log.addHandler(logging.StreamHandler())
    return run_app(app, with_address(sys.argv[1:] if argv is None else argv) or ["--help"])


if __name__ == "__main__":
    sys.exit(main())
