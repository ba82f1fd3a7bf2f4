"""`fasthg convert`: options of the command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fasthg.cli import options as opt
from fasthg.console import note


def convert(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint of bearpaw/pytorch-pose, anibali or princeton-vl.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .safetensors file to write.")],
    skeleton: Annotated[
        str | None, typer.Option(help="Its points: mpii, lsp, coco or crowdpose; told by their number where left out.")
    ] = None,
    half: Annotated[bool, typer.Option("--fp16", help="Store the convolutions' kernels in half precision.")] = False,
    overwrite: opt.Overwrite = False,
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
