"""The command `fasthg`: the commands by name; each has a file of its own, and what it does lives in its room.

Exit codes: 0 done; 2 bad usage or input, one line on stderr; 3 a parity check failed; 4 a backend cannot run here; 5
done, but for items that could not be read and were left out; 130 Ctrl-C.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from fasthg.cli.convert import convert
from fasthg.cli.env import env
from fasthg.cli.evaluate import evaluate, score
from fasthg.cli.export import export
from fasthg.cli.label import label, with_address
from fasthg.cli.list import list_known
from fasthg.cli.predict import predict
from fasthg.console import make_app, run_app
from fasthg.version import __version__

#: Each command by its name, with the arguments of an example.
COMMANDS: dict[str, tuple[Callable[..., None], str]] = {
    "list": (list_known, "--json"),
    "env": (env, ""),
    "predict": (predict, "photo.jpg --bbox 210,40,180,420 -o out/poses"),
    "label": (label, "photos/ clips/*.mp4 -o out/labels --ray"),
    "eval": (evaluate, "--data MPII --weights F.safetensors --flip"),
    "score": (score, "predictions.json --truth MPII/annotations.json"),
    "convert": (convert, "checkpoint.pth.tar -o published.safetensors"),
    "export": (export, "--openvino --int8 -o out/small-int8"),
}

app = make_app(help="Stacked-hourglass pose networks, fast to train and to run, with the accuracy proven.")
for name, (command, example) in COMMANDS.items():
    app.command(name, epilog=f"Example: fasthg {name} {example}".rstrip())(command)


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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line on `argv` (default: the process's) and return the exit code."""
    log = logging.getLogger("fasthg")
    log.setLevel(logging.INFO)
    if not log.handlers:
        log.addHandler(logging.StreamHandler())
    return run_app(app, with_address(sys.argv[1:] if argv is None else argv) or ["--help"])
