"""`fasthg predict`: options of the command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fasthg.cli import options as opt
from fasthg.errors import FasthgError


def predict(
    images: Annotated[list[Path], typer.Argument(help="Photographs, folders of photographs, videos.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the results.")] = Path("predictions"),
    weights: opt.Weights = None,
    variant: opt.Variant = None,
    bbox: Annotated[
        list[str] | None, typer.Option(help="Person's box x,y,w,h in pixels; repeat for several people.")
    ] = None,
    boxes: Annotated[Path | None, typer.Option(help="People's boxes in COCO's JSON.")] = None,
    category: opt.Category = None,
    detect: Annotated[bool, typer.Option("--detect", help="Find the people, by YOLOX-Nano, fetched once.")] = False,
    path: opt.PathName = "auto",
    device: opt.Device = "auto",
    flip: opt.Flip = False,
    stacks: opt.Stacks = None,
    budget: Annotated[
        str | None,
        typer.Option(help="As many stacks as fit into this time a person here, such as 40ms.", metavar="TIME"),
    ] = None,
    early_exit: opt.EarlyExit = None,
    batch_size: opt.BatchSize = 8,
    size: opt.Size = None,
    threads: opt.Threads = None,
    throughput: Annotated[
        bool, typer.Option("--throughput", help="The most images a second, not the soonest answer.")
    ] = False,
    formats: Annotated[
        str, typer.Option("--format", help="Of json, csv, coco, mat, dlc, dlc-h5, sleap, with commas between.")
    ] = "json",
    overlays: Annotated[bool, typer.Option(help="Also write the images with the poses drawn over them.")] = True,
    overwrite: opt.Overwrite = False,
    strict: opt.Strict = False,
) -> None:
    """Predict poses on photographs and videos; write predictions.json in their pixels, and overlays."""
    from fasthg.predict.boxes import parse_boxes, read_coco_boxes
    from fasthg.predict.command import predict_to_folder
    from fasthg.predict.depth import Depth, parse_budget

    if (bbox is not None) + (boxes is not None) + detect > 1:
        raise FasthgError("--bbox, --boxes and --detect say where people are; give one of them")
    written = predict_to_folder(
        images,
        output,
        parse_boxes(bbox) if bbox else read_coco_boxes(boxes, category) if boxes else None,
        formats.split(","),
        overlays,
        overwrite=overwrite,
        strict=strict,
        keep=[file for file in (boxes, weights) if file],
        weights=weights,
        variant=variant,
        runtime=path,
        device=device,
        flip=flip,
        batch_size=batch_size,
        size=size,
        threads=threads,
        detect=detect,
        mode="throughput" if throughput else "latency",
        depth=Depth(stacks, parse_budget(budget) if budget is not None else None, early_exit),
    )
    for file in written.files:
        print(file)
    opt.say_left_out(written.left_out)
