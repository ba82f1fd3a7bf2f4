"""Render an MPII-format dataset of articulated people: JPEGs, and the annotation JSON with head boxes.

    python -m training.synthesize --out DIR --train 20000 --val 1000 --seed 0
    python -m training.synthesize --out DIR --poses mpii_annotations.json.gz

DIR/images holds the JPEGs and DIR/annotations.json the records in the format of bearpaw's MPII JSON, written last: a
folder without it is unfinished, and the same command goes on where it stopped. What is drawn depends on the seed alone,
not on the number of worker processes. With --poses the people stand as in the annotated photographs.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from fasthg.console import note, progress_bar, run_command
from fasthg.data.dataset import find_annotations
from fasthg.errors import FasthgError
from fasthg.files import cannot_write, is_same_file, make_folder, sha256, write_json
from training.people.poses import read_poses
from training.people.synthetic import chunk
from training.people.synthetic.chunk import Chunk, Drawing, SampledImage, draw_chunk, end_with_parent

RENDERER = 1  # raise it when the same seed draws other images
DEFAULT_SIZE = (480, 360)


def synthesize(
    out: str | Path,
    train: int | None,
    val: int | None,
    seed: int,
    poses: str | Path | None = None,
    *,
    size: tuple[int, int] | None = DEFAULT_SIZE,
    progress: bool = True,
    workers: int | None = None,
) -> Path:
    """Render `train` + `val` people into the folder `out` and return it.

    poses    a bearpaw JSON file, or LSP's joints.mat, or the folder of either: draw its people instead of sampled ones,
             in images named like theirs; `train` and `val` then limit the people of each split, None takes all
    size     width and height of the images; those of `poses` are scaled to fit into it, or with None keep their size
    workers  processes, by default one for each usable core; 1 renders in this process

    A folder that already holds this very dataset is left as it is; an interrupted run goes on. Raises FasthgError when
    the folder holds something else or cannot be written, or an argument makes no sense.
    """
    out = Path(out)
    if poses and Path(poses).is_dir():
        poses = find_annotations(Path(poses))
    _check(train, val, seed, poses, size)
    digest = sha256(poses) if poses else None
    settings = {"renderer": RENDERER, "train": train, "val": val, "seed": seed, "size": size, "poses": digest}
    if _is_finished(out, settings):
        return out
    if poses and is_same_file(out, [poses]):
        raise FasthgError(f"cannot write {out}: --poses lies in it; choose another --out")
    drawings = _drawings(train, val, seed, poses, size)
    _claim(out, settings)
    firsts = range(0, len(drawings), chunk.IMAGES)
    chunks = [Chunk(out, first, tuple(drawings[first : first + chunk.IMAGES])) for first in firsts]
    todo = [part for part in chunks if not part.records_path.exists()]
    try:
        _draw(todo, len(drawings), progress, workers or len(os.sched_getaffinity(0)))
    except OSError as error:
        raise cannot_write(out, error) from error
    except BrokenProcessPool:
        raise FasthgError("a worker process was killed; run again with fewer --workers to go on") from None
    write_json(
        out / "annotations.json", [person for part in chunks for person in json.loads(part.records_path.read_bytes())]
    )
    shutil.rmtree(out / ".records")
    for leftover in (out / "images").glob(".*.jpg.*"):  # of a process that was killed while it wrote
        leftover.unlink()
    return out


def _check(
    train: int | None, val: int | None, seed: int, poses: str | Path | None, size: tuple[int, int] | None
) -> None:
    if poses is None and (train is None or val is None):
        raise FasthgError("--train and --val are needed: the numbers of people to render")
    if (train or 0) < 0 or (val or 0) < 0 or (train == 0 and val == 0):
        raise FasthgError(f"nothing to render: --train {train} --val {val}; give at least one person")
    if seed < 0:
        raise FasthgError(f"--seed {seed} is negative; give 0 or more")
    if size is None and poses is None:
        raise FasthgError("--size original goes with --poses only; give WIDTHxHEIGHT")
    if size is not None and not all(64 <= side <= 8192 for side in size):
        raise FasthgError(f"--size {size[0]}x{size[1]}: each side must be 64 to 8192 pixels")


def _drawings(
    train: int | None, val: int | None, seed: int, poses: str | Path | None, size: tuple[int, int] | None
) -> Sequence[Drawing]:
    if poses is not None:
        return read_poses(Path(poses), train, val, seed, size)
    width, height = size or DEFAULT_SIZE
    splits = ((False, train or 0, 0), (True, val or 0, train or 0))
    return [
        SampledImage(seed, validation, index, offset + index + 1, width, height)
        for validation, people, offset in splits
        for index in range(people)
    ]


def _notes(out: Path) -> Path:
    return out / "synthesis.json"


def _is_finished(out: Path, settings: dict[str, Any]) -> bool:
    """Whether the folder holds this dataset; FasthgError when it holds anything else."""
    try:
        if _notes(out).exists():
            if json.loads(_notes(out).read_text()) != json.loads(json.dumps(settings)):
                raise FasthgError(f"{out} holds a dataset of other settings; remove it or choose another --out")
            return (out / "annotations.json").exists()
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise FasthgError(f"{out} exists and is no empty folder; choose another --out")
    except (OSError, ValueError) as error:
        raise FasthgError(f"cannot read {_notes(out)}: {error}; choose another --out") from None
    return False


def _claim(out: Path, settings: dict[str, Any]) -> None:
    """Make the folder and note what it will hold."""
    for folder in (out / "images", out / ".records"):
        make_folder(folder)
    write_json(_notes(out), settings)


def _draw(todo: list[Chunk], total: int, progress: bool, workers: int) -> None:
    done = total - sum(len(part.images) for part in todo)
    with progress_bar() if progress else nullcontext() as bar:
        task = bar.add_task("rendering images", total=total, completed=done) if bar else None
        for count in _drawn(todo, min(workers, len(todo))):
            if bar and task is not None:
                bar.advance(task, count)


def _drawn(todo: list[Chunk], workers: int) -> Iterator[int]:
    """Draw the chunks, in this process or in others; yields the number of images of each as it is done."""
    if workers <= 1:
        yield from map(draw_chunk, todo)
        return
    # Not forked: the caller may run threads, and a fork would copy their locks.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=end_with_parent) as pool:
        futures = [pool.submit(draw_chunk, part) for part in todo]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _size(text: str) -> tuple[int, int] | None:
    if text == "original":
        return None
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isdigit() and height.isdigit()):
        raise FasthgError(f"--size {text} is neither WIDTHxHEIGHT, for example 480x360, nor original")
    return int(width), int(height)


def main(
    out: Annotated[Path, typer.Option(help="folder to write: new, empty, or an interrupted run of the same command")],
    train: Annotated[int | None, typer.Option(help="people to train on; all of --poses by default")] = None,
    val: Annotated[int | None, typer.Option(help="people to validate on; all of --poses by default")] = None,
    seed: Annotated[int, typer.Option(help="another seed, other people")] = 0,
    poses: Annotated[Path | None, typer.Option(help="MPII annotations (bearpaw JSON) whose people are drawn")] = None,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT of the images, or original with --poses")] = "480x360",
    workers: Annotated[int | None, typer.Option(help="processes; one for each usable core by default")] = None,
) -> None:
    """Render an MPII-format dataset of articulated people."""
    folder = synthesize(out, train, val, seed, poses, size=_size(size), workers=workers)
    note(f"people and annotations are in {folder}")


if __name__ == "__main__":
    sys.exit(run_command(main, prog="python -m training.synthesize"))
