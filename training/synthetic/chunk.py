"""Render a run of images to disk: the unit of work of a worker process, and of resuming."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from training.synthetic.effects import encode_jpeg
from training.synthetic.scene import record, render_scene

SIZE = 50  # images in a chunk


@dataclass(frozen=True)
class Chunk:
    """Images `first` .. `first + count - 1` of one split; `offset` is the number of the split's first image."""

    folder: Path
    seed: int
    validation: bool
    first: int
    count: int
    offset: int
    width: int
    height: int

    @property
    def records_path(self) -> Path:
        return self.folder / ".records" / f"{'val' if self.validation else 'train'}-{self.first:07d}.json"


def write_aside(path: Path, data: bytes) -> None:
    """Write a file so that it is either whole or not there."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_bytes(data)
    os.replace(aside, path)


def generator(seed: int, validation: bool, index: int) -> np.random.Generator:
    """The image's own generator: it depends on nothing but the arguments, so any process draws the same image."""
    return np.random.default_rng([seed, int(validation), index])


def render_chunk(chunk: Chunk) -> int:
    """Write the chunk's JPEGs, then its records (which mark it as done). Returns the number of images."""
    cv2.setNumThreads(1)
    records: list[dict[str, Any]] = []
    for index in range(chunk.first, chunk.first + chunk.count):
        rng = generator(chunk.seed, chunk.validation, index)
        scene = render_scene(rng, chunk.width, chunk.height)
        number = chunk.offset + index + 1
        name = f"{number:06d}.jpg"
        write_aside(chunk.folder / "images" / name, encode_jpeg(rng, scene.image))
        records.append(record(scene, name, number, chunk.validation))
    write_aside(chunk.records_path, json.dumps(records).encode())
    return chunk.count
