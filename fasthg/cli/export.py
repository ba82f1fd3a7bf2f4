"""`fasthg export`: options of the command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fasthg.cli import options as opt
from fasthg.errors import FasthgError


def export(
    variant: opt.Variant = None,
    stacks: opt.Stacks = None,
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
    size: opt.Size = None,
    data: Annotated[
        Path | None, typer.Option(help="Dataset to calibrate on and to compare on; the shipped crops where left out.")
    ] = None,
    category: opt.Category = None,
    holdout: opt.Holdout = "every6",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder for the artefact.")] = None,
    overwrite: opt.Overwrite = False,
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


def _one_of(**flags: bool) -> str | None:
    """The flag that was given, None for none; raises FasthgError for several."""
    chosen = [name for name, given in flags.items() if given]
    if len(chosen) > 1:
        raise FasthgError(f"{' and '.join(f'--{name}' for name in chosen)} both given; give one of them")
    return chosen[0] if chosen else None
