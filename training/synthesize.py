"""Render an MPII-format dataset of articulated people: JPEGs, and the annotation JSON with head boxes.

    python -m training.synthesize --out DIR --train 20000 --val 1000 --seed 0

DIR/images/000001.jpg ... hold one labelled person each, DIR/annotations.json the records, written last: a folder without
it is unfinished, and the same command goes on where it stopped. The images depend on the seed alone, not on the number of
worker processes.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fasthg.errors import FasthgError
from training.synthetic import chunk as chunks
from training.synthetic.chunk import Chunk, render_chunk, write_aside

RENDERER = 1  # raise it when the same seed draws other images
DEFAULT_SIZE = (480, 360)


def synthesize(
    out: Path,
    train: int,
    val: int,
    seed: int,
    poses: Path | None = None,
    *,
    size: tuple[int, int] = DEFAULT_SIZE,
    progress: bool = True,
    workers: int | None = None,
) -> Path:
    """Render `train` + `val` people into the folder `out` and return it.

    `size` is the images' width and height in pixels; `workers` the number of processes (default: one per usable core; 1
    renders in this process). A folder that already holds exactly this dataset is left as it is; an interrupted run goes on.
    Raises FasthgError when the folder holds something else or cannot be written, or an argument makes no sense.
    """
    out = Path(out)
    _check(train, val, seed, size)
    settings = {"renderer": RENDERER, "train": train, "val": val, "seed": seed, "size": list(size)}
    if _open(out, settings):
        return out
    work = list(_plan(out, train, val, seed, size))
    todo = [chunk for chunk in work if not chunk.records_path.exists()]
    _render(todo, sum(chunk.count for chunk in work), progress, workers or len(os.sched_getaffinity(0)))
    records = [record for chunk in work for record in json.loads(chunk.records_path.read_bytes())]
    write_aside(out / "annotations.json", json.dumps(records).encode())
    shutil.rmtree(out / ".records")
    return out


def _check(train: int, val: int, seed: int, size: tuple[int, int]) -> None:
    if train < 0 or val < 0 or train + val == 0:
        raise FasthgError(f"nothing to render: --train {train} --val {val}; give at least one person")
    if seed < 0:
        raise FasthgError(f"--seed {seed} is negative; give 0 or more")
    if not all(64 <= side <= 8192 for side in size):
        raise FasthgError(f"--size {size[0]}x{size[1]}: each side must be 64 to 8192 pixels")


def _open(out: Path, settings: dict[str, object]) -> bool:
    """Make or reopen the folder; True when it already holds the finished dataset."""
    notes = out / "synthesis.json"
    try:
        if notes.exists():
            if json.loads(notes.read_text()) != settings:
                raise FasthgError(
                    f"{out} holds a dataset of other settings ({notes}); remove it or choose another --out"
                )
            if (out / "annotations.json").exists():
                return True
        elif out.exists() and any(out.iterdir()):
            raise FasthgError(f"{out} is not empty; choose another --out")
        for folder in (out / "images", out / ".records"):
            folder.mkdir(parents=True, exist_ok=True)
        write_aside(notes, json.dumps(settings).encode())
    except (OSError, ValueError) as error:
        raise FasthgError(f"cannot write into {out}: {error}; choose another --out") from error
    return False


def _plan(out: Path, train: int, val: int, seed: int, size: tuple[int, int]) -> Iterator[Chunk]:
    for validation, people, offset in ((False, train, 0), (True, val, train)):
        for first in range(0, people, chunks.SIZE):
            yield Chunk(out, seed, validation, first, min(chunks.SIZE, people - first), offset, *size)


def _render(todo: list[Chunk], total: int, progress: bool, workers: int) -> None:
    columns = (TextColumn("rendering people"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not progress) as bar:
        task = bar.add_task("", total=total, completed=total - sum(chunk.count for chunk in todo))
        for count in _finished(todo, min(workers, len(todo))):
            bar.advance(task, count)


def _finished(todo: list[Chunk], workers: int) -> Iterator[int]:
    if workers <= 1:
        yield from map(render_chunk, todo)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(render_chunk, chunk) for chunk in todo]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _size(text: str) -> tuple[int, int]:
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isdigit() and height.isdigit()):
        raise FasthgError(f"--size {text} is not WIDTHxHEIGHT, for example 480x360")
    return int(width), int(height)


def command(
    out: Annotated[
        Path, typer.Option(help="folder to write; must be new, empty, or an interrupted run of the same command")
    ],
    train: Annotated[int, typer.Option(help="people to train on")],
    val: Annotated[int, typer.Option(help="people to validate on")],
    seed: Annotated[int, typer.Option(help="another seed, other people")] = 0,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT of the images")] = "480x360",
    workers: Annotated[int | None, typer.Option(help="processes; default: one per usable core")] = None,
) -> None:
    """Render an MPII-format dataset of articulated people."""
    try:
        folder = synthesize(out, train, val, seed, size=_size(size), workers=workers)
    except FasthgError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(error.exit_code) from None
    typer.echo(f"{train + val} people in {folder}")


if __name__ == "__main__":
    typer.run(command)
