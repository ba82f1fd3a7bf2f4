"""`fasthg label`: options of the command."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from fasthg.cli import options as opt
from fasthg.errors import ItemsLeftOut

LOCAL = "local"  # what `--ray` without an address stands for


def label(
    sources: Annotated[
        list[str], typer.Argument(help="Photographs, folders, globs, videos, Parquet lists (path, x, y, w, h).")
    ],
    output: Annotated[str, typer.Option("-o", "--output", help="Folder or address of the results; a restart goes on.")],
    weights: opt.Weights = None,
    variant: opt.Variant = None,
    ray: Annotated[
        str | None, typer.Option("--ray", metavar="[ADDRESS]", help="By Ray: on this machine, or on a cluster.")
    ] = None,
    actors: Annotated[int | None, typer.Option(min=1, help="Predictors side by side.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of each.")] = None,
    path: opt.PathName = "auto",
    device: opt.Device = "auto",
    stacks: opt.Stacks = None,
    flip: opt.Flip = False,
    batch_size: opt.BatchSize = 8,
    block: Annotated[int, typer.Option(min=1, help="Pictures in one file of results.")] = 64,
    format: Annotated[str, typer.Option(help="parquet, or coco for COCO's JSON beside it.")] = "parquet",
) -> None:
    """Label more photographs and videos than one process should; a bad one becomes a row with its reason."""
    from fasthg.label.run import LabelOptions
    from fasthg.label.run import label as run
    from fasthg.predict.depth import Depth

    options = LabelOptions(
        weights=weights,
        variant=variant,
        path=path,
        device=device,
        depth=Depth(stacks),
        flip=flip,
        batch_size=batch_size,
        threads=threads,
        actors=actors,
        block=block,
        ray=ray,
        format=format,
    )
    counts = run(sources, output, options)
    print(output)
    if counts.left_out:
        raise ItemsLeftOut(f"{counts.left_out} rows have a reason instead of a pose; everything else is done")


def with_address(argv: Sequence[str]) -> list[str]:
    """The arguments with an address behind each bare `--ray`, since typer's options have no optional value."""
    given = list(argv)
    if given[:1] != ["label"]:
        return given
    bare = [i for i, text in enumerate(given) if text == "--ray" and (given[i + 1 : i + 2] or ["-"])[0].startswith("-")]
    for place in reversed(bare):
        given.insert(place + 1, LOCAL)
    return given
