"""Every variant by every execution path: time, memory, share of the machine's limit, and parity with the reference.

    python -m bench.sweep
    python -m bench.sweep --variants small,original --paths eager,openvino:bf16 --modes infer
    python -m bench.sweep --weights DIR --data MPII --full
    python -m bench.sweep --resume

Results go to results.jsonl row by row, each on the disk before the next cell begins; results.csv, report.md and
report.html are made from it at the end, after Ctrl-C too. A killed sweep loses the cell that was running.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.measure.timing import go_first
from bench.sweep.plan import MODES
from bench.sweep.run import MINUTES, SweepRequest, sweep
from fasthg.console import run_command
from fasthg.errors import FasthgError
from fasthg.network.variants import INPUT_SIZE, VARIANTS, get_config


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part for part in text.replace(",", " ").split()))


def _first(variant: str, stacks: int | None) -> str:
    """The name of a variant's first stacks; a variant that has no more is itself."""
    return variant if stacks is None or get_config(variant).num_stacks <= stacks else f"{variant}@{stacks}"


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in _names(text))
    except ValueError:
        raise FasthgError(f"--batch-sizes {text!r}; give whole numbers such as 1,8,64") from None


def main(
    variants: Annotated[str, typer.Option(help="Networks, separated by commas.")] = ",".join(VARIANTS),
    stacks: Annotated[
        int | None, typer.Option(min=1, help="The networks' first stacks alone; --variants original@3 for one of them.")
    ] = None,
    paths: Annotated[str, typer.Option(help="Execution paths such as eager,openvino:bf16; all where left out.")] = "",
    modes: Annotated[str, typer.Option(help="infer, train, loader.")] = ",".join(MODES),
    batch_sizes: Annotated[str, typer.Option(help="Images at a time, such as 1,8,64.")] = "",
    data: Annotated[Path | None, typer.Option(help="Dataset; one is rendered where left out.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Folder of <variant>.safetensors to measure PCKh with.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    full: Annotated[bool, typer.Option("--full", help="Every cell, more repeats, no limit of time.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of the results; else a new one under out/.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the sweep in --out, else the newest.")] = False,
    minutes: Annotated[
        float | None, typer.Option(min=0.1, help=f"End within this time; {MINUTES:.0f} without --full.")
    ] = None,
    size: Annotated[int, typer.Option(min=64, help="Side of the crops in pixels; the study's is 256.")] = INPUT_SIZE,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; else PyTorch's own number.")] = None,
    people: Annotated[int | None, typer.Option(min=1, help="People that PCKh is measured on.")] = None,
    cell_limit: Annotated[float | None, typer.Option(min=0.1, help="Seconds after which a cell is ended.")] = None,
) -> None:
    """Measure every variant by every execution path and write results.jsonl, results.csv, report.md and report.html."""
    request = SweepRequest(
        variants=tuple(dict.fromkeys(_first(name, stacks) for name in _names(variants))),
        paths=_names(paths),
        modes=_names(modes),
        batch_sizes=_sizes(batch_sizes),
        data=data,
        weights=weights,
        device=device,
        full=full,
        out=out,
        resume=resume,
        minutes=minutes,
        size=size,
        threads=threads,
        people=people,
        cell_limit=cell_limit,
    )
    go_first()
    sweep(request)


if __name__ == "__main__":
    raise SystemExit(run_command(main, prog="python -m bench.sweep"))
