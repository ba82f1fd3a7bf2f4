"""What labels a block: one predictor, kept from block to block, in this process or in an actor of Ray."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fasthg.errors import FasthgError
from fasthg.label.items import Block, Item
from fasthg.label.places import Place
from fasthg.label.rows import Row, to_parquet
from fasthg.network.checkpoint import load_model, save
from fasthg.network.model import HourglassNet
from fasthg.predict.photo import LeftOut, Photo
from fasthg.predict.predictor import Predictor
from fasthg.predict.sources import photos
from fasthg.predict.video import frames

NETWORK = "network.safetensors"


@dataclass
class _Told(LeftOut):
    """Keeps what it is told instead of logging it."""

    messages: list[object] = field(default_factory=list)

    def __call__(self, message: object, count: int = 1) -> None:
        self.messages.append(message)


def write_network(out: Place, model: HourglassNet) -> None:
    """Leave a network in the folder, where every machine that writes there can read it."""
    with tempfile.TemporaryDirectory() as folder:
        save(model, Path(folder) / NETWORK)
        out.child(NETWORK).write((Path(folder) / NETWORK).read_bytes())


def read_network(out: Place) -> HourglassNet:
    """The network that `write_network` left."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / NETWORK).write_bytes(out.child(NETWORK).read())
        return load_model(Path(folder) / NETWORK)


class Labeller:
    """Labels blocks and keeps each as one file of rows.

    out      folder of the results, by its path or address
    options  of Predictor; as weights also NETWORK, for those that `write_network` left in the folder
    """

    def __init__(self, out: str, options: dict[str, Any]) -> None:
        self.out = Place(out)
        if options["weights"] == NETWORK:
            options = options | {"weights": read_network(self.out)}
        self.predictor = Predictor(**options)
        self.predictor.fill_first = True  # one shape for all blocks: answers differ in their last digits between shapes

    def label(self, block: Block) -> dict[str, int]:
        """Write the block's rows; says how many images, people and reasons they are.

        The file is replaced as a whole: a block that is done again, after a crash, leaves what it left before.
        """
        rows = self.rows(block)
        self.out.child(block.name).write(to_parquet(rows))
        people = [row.pose for row in rows if row.pose is not None]
        images = len({(pose.image, pose.frame) for pose in people})
        return {"images": images, "people": len(people), "left_out": sum(row.reason is not None for row in rows)}

    def rows(self, block: Block) -> list[Row]:
        """A row for each person of the block, and one for each photograph, box or range that could not be labelled."""
        given: list[tuple[Item, str]] = []  # without the photographs: each holds its decoded frame
        rows: list[Row] = []
        told = _Told()
        answers: dict[int, list[Row]] = {}  # by the photograph's place in `given`
        places: dict[int, int] = {}
        with tempfile.TemporaryDirectory() as folder:

            def all_photos() -> Iterator[Photo]:
                for number, item in enumerate(block.items):
                    for photo in _photos(item, Path(folder) / str(number), rows):
                        places[id(photo)] = len(given)
                        given.append((item, photo.name))
                        yield photo

            outside: deque[str] = deque()
            failed: deque[str] = deque()
            for photo, poses in self.predictor.stream(all_photos(), told):
                _sort(told.messages, outside, failed)
                place = places[id(photo)]  # of the last photograph at this address, as it is still alive
                item, _name = given[place]
                found = [Row(item.key, photo.name, pose) for pose in poses]
                lost = (1 if photo.boxes is None else len(photo.boxes)) - len(poses)
                found += [Row(item.key, photo.name, reason=outside.popleft()) for _ in range(lost)]
                answers[place] = found
            _sort(told.messages, outside, failed)
        for place, (item, name) in enumerate(given):
            rows += answers.get(place) or [Row(item.key, name, reason=failed.popleft())]
        empty = {item.key for item in block.items} - {row.item for row in rows}
        reasons = ((i, None if i.start else f"{i.path} holds no picture") for i in block.items if i.key in empty)
        return rows + [Row(item.key, item.path, reason=reason) for item, reason in reasons]

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch of Ray Data, {"block": [...]}, to a row of counts for each."""
        counts = [self.label(block) for block in batch["block"]]
        return {name: np.array([count[name] for count in counts]) for name in ("images", "people", "left_out")}


def _sort(messages: list[object], outside: deque[str], failed: deque[str]) -> None:
    """Take what the predictor told: a FasthgError of a photograph that cannot be read, a text of a box outside one."""
    for message in messages:
        (failed if isinstance(message, FasthgError) else outside).append(str(message))
    messages.clear()


def _photos(item: Item, copy: Path, rows: list[Row]) -> Iterator[Photo]:
    """The pictures of one item; what is damaged among them becomes a row."""
    place, told = Place(item.path), _Told()
    path = Path(item.path)
    try:
        if not place.is_local:
            path = copy.with_suffix(Path(place.path).suffix)
            path.write_bytes(place.read())
        boxes = None if item.boxes is None else np.array(item.boxes, np.float64)
        stop = None if item.last else item.stop
        found = photos([path], boxes, told) if item.start is None else frames(path, told, item.start, stop)
        for photo in found:
            yield photo if place.is_local else replace(photo, name=item.path)
    except FasthgError as error:
        told(error)
    rows += [Row(item.key, item.path, reason=str(message)) for message in told.messages]
