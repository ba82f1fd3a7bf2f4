"""Options that several commands share, and how a command ends: what it prints, and what it says was left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from fasthg.console import output_console
from fasthg.errors import ItemsLeftOut

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
Size = Annotated[int | None, typer.Option(min=1, help="Side of the crops in pixels; the network's own if left out.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; PyTorch's own number where left out.")]
Stacks = Annotated[int | None, typer.Option(min=1, help="Run the network's first stacks alone.")]
EarlyExit = Annotated[
    float | None,
    typer.Option(min=0, help="Stop once no joint moves further between two stacks than this, heatmap pixels."),
]
Category = Annotated[str | None, typer.Option(help="Kind of subject to read, where the data has several.")]
Holdout = Annotated[str, typer.Option(help="Images held out where no file says: every6, 0.2@7, or a file of names.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result; never an input.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at what cannot be read, instead of leaving it out.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]


def print_result(content: dict[str, Any], as_json: bool, table: Callable[[dict[str, Any]], Any]) -> None:
    """A command's result on stdout: as JSON, or as what `table` makes of it."""
    if as_json:
        print(json.dumps(content, indent=2))
    else:
        output_console().print(table(content))


def say_left_out(count: int) -> None:
    """Raise ItemsLeftOut where anything was; the lines before say what, and where some are only counted."""
    if count:
        raise ItemsLeftOut(f"{count} left out, see above; everything else is done")
