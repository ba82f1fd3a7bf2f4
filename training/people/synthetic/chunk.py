"""Images to draw, and the run of them that a worker process draws to disk: the unit of resuming."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from training.people.synthetic.background import sample_background
from training.people.synthetic.effects import develop, encode_jpeg
from training.people.synthetic.lift import lift
from training.people.synthetic.scene import Person, Scene, draw_figures, record, render_scene
from training.people.synthetic.skeleton import HEAD_DIAGONAL, Figure

IMAGES = 50  # in a chunk


class Drawing(Protocol):
    """An image to draw. It depends on nothing but its fields, so any process draws the same one."""

    @property
    def name(self) -> str: ...

    def draw(self) -> tuple[bytes, list[dict[str, Any]]]:
        """The JPEG and the records of the people in it."""


@dataclass(frozen=True)
class SampledImage:
    """One sampled person among others: image `index` of its split, `number` of the dataset."""

    seed: int
    validation: bool
    index: int
    number: int
    width: int
    height: int

    @property
    def name(self) -> str:
        return f"{self.number:06d}.jpg"

    def draw(self) -> tuple[bytes, list[dict[str, Any]]]:
        rng = np.random.default_rng([self.seed, int(self.validation), self.index])
        scene = render_scene(rng, self.width, self.height)
        return encode_jpeg(rng, scene.image), [record(scene, self.name, self.number, self.validation)]


@dataclass(frozen=True)
class PosedImage:
    """The people of an annotated photograph, in coordinates of the image to draw; the first `records` get a record."""

    seed: int
    validation: bool
    name: str
    number: int
    width: int
    height: int
    people: tuple[Person, ...]
    records: int

    def draw(self) -> tuple[bytes, list[dict[str, Any]]]:
        rng = np.random.default_rng([self.seed, 2, self.number])
        figures = [self._lift(rng, person) for person in self.people]
        canvas = draw_figures(rng, figures, sample_background(rng, self.width, self.height))
        people = [
            replace(person, head_box=_resized(figure.head_box(), HEAD_DIAGONAL * figure.unit))
            for person, figure in zip(self.people, figures)
        ]
        scene = Scene(develop(rng, canvas.color), people, canvas.owner)
        wanted = [record(scene, self.name, self.number, self.validation, index) for index in range(self.records)]
        return encode_jpeg(rng, scene.image), wanted

    @staticmethod
    def _lift(rng: np.random.Generator, person: Person) -> Figure:
        """Larger people stand nearer, mostly occluded ones farther."""
        unit = 200 * person.scale
        hidden = 1 - float(person.visible.mean())
        return lift(rng, person.joints, person.visible, unit, depth=(2 * hidden - 3) * unit)


@dataclass(frozen=True)
class Chunk:
    """Some images and the folder of the dataset that they belong to."""

    folder: Path
    number: int
    images: tuple[Drawing, ...]

    @property
    def records_path(self) -> Path:
        """Written last: while it is missing, the chunk is not done."""
        return self.folder / ".records" / f"{self.number:05d}.json"


def draw_chunk(chunk: Chunk) -> int:
    """Write the chunk's JPEGs, then its records. Returns the number of images."""
    cv2.setNumThreads(1)
    records: list[dict[str, Any]] = []
    for image in chunk.images:
        jpeg, people = image.draw()
        write_aside(chunk.folder / "images" / image.name, jpeg)
        records += people
    write_aside(chunk.records_path, json.dumps(records).encode())
    return len(chunk.images)


def end_with_parent() -> None:
    """Prepare a worker process: Ctrl-C is the parent's business, and no worker outlives a parent that was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None, "this runs in worker processes"

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def write_aside(path: Path, data: bytes) -> None:
    """Write a file so that it is whole or not there; `fasthg.files` would wait for the disk 25,000 times."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_bytes(data)
    os.replace(aside, path)


def _resized(box: np.ndarray, diagonal: float) -> np.ndarray:
    """The box [4] grown or shrunk about its centre to this diagonal."""
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
    half = half * (diagonal / 2 / np.hypot(*half))
    return np.concatenate([centre - half, centre + half])
