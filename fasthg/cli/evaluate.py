"""`fasthg eval` and `fasthg score`: options of the commands, and how scores are printed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fasthg.cli import options as opt
from fasthg.console import note, progress_bar
from fasthg.errors import FasthgError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fasthg.data.dataset import Dataset
    from fasthg.data.people import People
    from fasthg.data.protocols import Protocol
    from fasthg.metrics.evaluate import Predictions
    from fasthg.metrics.pck import Scores
    from fasthg.metrics.prediction_files import Truth
    from fasthg.predict.load import Served
    from fasthg.predict.photo import LeftOut

_NAMED = 20  # people whose photograph cannot be read, before the rest is only counted

Measure = Annotated[str | None, typer.Option("--pck", help="Score by head, torso, box, image or pixels: box@0.1.")]


def evaluate(
    data: Annotated[Path, typer.Option(help="Dataset: a folder with images/ and annotations, or an annotation file.")],
    weights: opt.Weights = None,
    variant: opt.Variant = None,
    path: opt.PathName = "auto",
    device: opt.Device = "auto",
    split: Annotated[str, typer.Option(help="train, val or all.")] = "val",
    flip: opt.Flip = False,
    stacks: opt.Stacks = None,
    by_stack: Annotated[bool, typer.Option("--by-stack", help="Score, GFLOP and ms after each stack.")] = False,
    early_exit: opt.EarlyExit = None,
    batch_size: opt.BatchSize = 8,
    size: opt.Size = None,
    threads: opt.Threads = None,
    category: opt.Category = None,
    holdout: opt.Holdout = "every6",
    measure: Measure = None,
    detections: Annotated[Path | None, typer.Option(help="COCO's list of boxes to predict in; scored by OKS.")] = None,
    results: Annotated[Path | None, typer.Option(help="Write the poses as COCO's list of results.")] = None,
    overwrite: opt.Overwrite = False,
    strict: opt.Strict = False,
    as_json: opt.AsJson = False,
) -> None:
    """Score weights on a dataset: PCKh on MPII's format, PCK by the torso on LSP's, by boxes and OKS on others'."""
    import numpy as np

    from fasthg.cli.by_stack import eval_by_stack, exits, stacks_table
    from fasthg.data.coco import is_coco_file
    from fasthg.data.dataset import check_images, files_read, load_dataset
    from fasthg.data.detections import at_detections
    from fasthg.data.protocols import parse_protocol
    from fasthg.data.reading import Reading
    from fasthg.files import check_new, is_same_file, write_json
    from fasthg.metrics.oks import oks_of_dataset, results_of_dataset
    from fasthg.pixels.skeleton import check_same_points
    from fasthg.predict.depth import Depth
    from fasthg.predict.load import load_runner
    from fasthg.predict.photo import LeftOut

    _check_split(split)
    asked = parse_protocol(measure) if measure else None
    if results:
        check_new(results, [file for file in (data, weights, detections) if file], overwrite)
    dataset: Dataset = load_dataset(data, split, check_files=False, reading=Reading(category, holdout))  # type: ignore[arg-type]
    if results and (is_coco_file(results) or is_same_file(results, files_read(dataset))):
        raise FasthgError(f"cannot write {results}: it is part of the data; choose another name")
    of_coco = is_coco_file(dataset.annotations)
    if (results or detections) and not of_coco:
        raise FasthgError(
            f"{dataset.annotations} is no file of COCO's keypoints, whose numbers results and detections refer to;"
            " give one with --data"
        )
    left_out = LeftOut(strict, named=_NAMED)
    dataset, box_scores = at_detections(dataset, detections, category, left_out) if detections else (dataset, None)
    if strict or not dataset.image_dir.is_dir():
        check_images(dataset)
    how: dict[str, Any] = {"device": device, "batch_size": batch_size, "size": size, "threads": threads}
    if by_stack:
        if stacks or early_exit is not None:
            raise FasthgError("--by-stack runs every number of stacks; leave --stacks and --early-exit out")
        opt.print_result(eval_by_stack(weights, variant, path, dataset, flip, left_out, how), as_json, stacks_table)
        opt.say_left_out(left_out.count)
        return
    served = load_runner(weights, variant, path, depth=Depth(stacks, early_exit=early_exit), **how)
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
    found = _predictions(served, dataset, flip, left_out)
    seen = found.seen(dataset)
    run = {"path": runner.path, "precision": runner.precision, "device": runner.device, "flip": flip, "split": split}
    run["left_out"] = left_out.count
    if early_exit is not None:
        run["early_exit"] = exits(runner, served.size)
    listed = None
    if own and of_coco:
        chosen = None if box_scores is None else box_scores[seen]
        listed = results_of_dataset(dataset.select(seen), found.joints[seen], found.scores[seen], chosen, category)
    if results:
        write_json(results, listed)
        note(str(results))
    run["oks"] = oks_of_dataset(dataset, listed, category) if listed is not None else None
    people = dataset.people.select(seen)
    scores = [] if detections else _scores(found.joints[seen], people, asked, dataset.protocols)
    _print_scores(scores, run, as_json)
    opt.say_left_out(left_out.count)


def score(
    predictions: Annotated[Path, typer.Argument(help="Predictions: .h5, .mat or .json.")],
    truth: Annotated[Path, typer.Option(help="detections_our_format.mat, or annotations in any format.")],
    split: Annotated[str, typer.Option(help="People of the annotations: train, val or all.")] = "val",
    category: opt.Category = None,
    holdout: opt.Holdout = "every6",
    measure: Measure = None,
    as_json: opt.AsJson = False,
) -> None:
    """Score a file of predictions by its truth's protocols: PCKh for MPII, PCK by the torso for LSP.

    COCO's list of results is scored by OKS against a file of COCO's keypoints.
    """
    from fasthg.data.protocols import parse_protocol
    from fasthg.data.reading import Reading
    from fasthg.metrics.oks import is_results, score_results
    from fasthg.metrics.prediction_files import read_predictions, read_truth

    _check_split(split)
    asked = parse_protocol(measure) if measure else None
    if is_results(predictions):
        _print_scores([], {"oks": score_results(predictions, truth, Reading(category))}, as_json)
        return
    known = read_truth(truth, split, Reading(category, holdout))  # type: ignore[arg-type]
    joints = read_predictions(predictions, known.skeleton, known.images)
    _print_scores(_scores(joints, known, asked, known.protocols), {}, as_json)


def _check_split(split: str) -> None:
    if split not in ("train", "val", "all"):
        raise FasthgError(f"unknown split {split!r}; give train, val or all")


def _predictions(served: Served, dataset: Dataset, flip: bool, left_out: LeftOut) -> Predictions:
    """What a network finds of a dataset's people, under a progress bar."""
    from fasthg.metrics.evaluate import EvalOptions, predict_dataset

    with progress_bar() as bar:
        task = bar.add_task("people", total=len(dataset))
        options = EvalOptions(
            served.size, served.batch_size, flip, served.mean, lambda count: bar.advance(task, count), left_out
        )
        return predict_dataset(served.runner, dataset, None, options)


def _scores(
    joints: ArrayLike, people: People | Truth, asked: Protocol | None, usual: Sequence[Protocol]
) -> list[Scores]:
    """Scores of some people by the protocol that was asked for, else by each of the data's own."""
    from fasthg.metrics.pck import score_people

    return [score_people(joints, people, protocol) for protocol in ((asked,) if asked else usual)]


def _print_scores(scores: Sequence[Scores], run: dict[str, Any], as_json: bool) -> None:
    """Scores under each protocol, a table each, or the first one's JSON with the others beside; and OKS, where `run`
    has it."""
    from rich.console import Group

    from fasthg.metrics.oks import oks_table

    content = (scores[0].to_dict() if scores else {}) | run
    if len(scores) > 1:
        content["others"] = [others.to_dict() for others in scores[1:]]
    tables = [found.table() for found in scores] + ([oks_table(run["oks"])] if run.get("oks") else [])
    opt.print_result(content, as_json, lambda _: Group(*tables))
