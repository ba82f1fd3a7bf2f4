"""The people of an annotation file as images to render: real joints, scales and neighbours, other pixels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fasthg.data.annotations import read_annotations
from fasthg.data.lsp import is_lsp
from fasthg.data.people import HALF_PIXEL, NUM_JOINTS, People, load_json
from fasthg.errors import FasthgError
from training.people.synthetic.chunk import PosedImage
from training.people.synthetic.scene import Person

Record = dict[str, Any]

_LARGEST = 20_000  # pixels of an image's side
_NO_BOX = np.full(4, np.nan)  # known once the head is drawn


def read_poses(
    path: Path, train: int | None, val: int | None, seed: int, size: tuple[int, int] | None
) -> list[PosedImage]:
    """One image for each photograph of a bearpaw JSON file or of LSP, with all people that the file knows in it.

    `train` and `val` limit the people of each split (None: all of them), in the file's order; others in the same
    photograph are drawn but get no record. Images are shrunk or enlarged to fit into `size` (width, height); None keeps
    the photograph's size. Raises FasthgError that names the file and what is wrong with it.
    """
    path = Path(path)
    people = read_annotations(path, "all")
    records = _records(path)
    images: dict[str, list[int]] = {}
    for row, name in enumerate(people.images):
        images.setdefault(name, []).append(row)
    left = {0.0: train, 1.0: val}
    drawings: list[PosedImage] = []
    for rows in images.values():
        split = float(records[rows[0]]["isValidation"])
        limit = left.get(split)
        wanted = len(rows) if limit is None else min(limit, len(rows))
        if limit is not None:
            left[split] = limit - wanted
        if wanted:
            number = len(drawings) + 1
            drawings.append(_drawing(path, people, records, rows, wanted, seed, number, size))
    if not drawings:
        raise FasthgError(f"--poses {path}: no people of the wanted splits in it; raise --train or --val")
    return drawings


def _records(path: Path) -> list[Record]:
    if is_lsp(path):
        return _lsp_records(path)
    try:
        records = load_json(path)
    except FasthgError:
        raise FasthgError(f"--poses {path}: not JSON; only bearpaw's JSON knows image sizes and neighbours") from None
    for row, record in enumerate(records):
        for field in ("isValidation", "img_width", "img_height"):
            if not isinstance(record.get(field), int | float):
                raise FasthgError(f"--poses {path}: row {row} has no number {field!r}; give bearpaw's JSON")
        width, height, name = record["img_width"], record["img_height"], record["img_paths"]
        if not (1 <= width <= _LARGEST and 1 <= height <= _LARGEST):
            raise FasthgError(f"--poses {path}: row {row}: an image of {width} x {height} pixels; correct the file")
        if name != Path(name).name or name in ("", "..") or name.startswith("."):
            raise FasthgError(f"--poses {path}: row {row}: {name!r} is not a plain file name; correct the file")
    return records


def _lsp_records(path: Path) -> list[Record]:
    """What bearpaw's JSON would say of LSP's photographs, whose sizes are read from them."""
    from PIL import Image

    held_out, records = set(read_annotations(path, "val").images), []
    for name in read_annotations(path, "all").images:
        try:
            width, height = Image.open(path.parent / "images" / name).size
        except OSError as error:
            raise FasthgError(f"--poses {path}: images/{name} cannot be read ({error}); copy it again") from None
        records.append({"isValidation": float(name in held_out), "img_width": width, "img_height": height})
    return records


def _drawing(
    path: Path,
    people: People,
    records: list[Record],
    rows: list[int],
    wanted: int,
    seed: int,
    number: int,
    size: tuple[int, int] | None,
) -> PosedImage:
    first = records[rows[0]]
    width, height = first["img_width"], first["img_height"]
    factor = min(size[0] / width, size[1] / height) if size else 1.0
    drawn = [_person(people, row) for row in rows]
    drawn += _neighbours(path, rows, records, drawn)
    return PosedImage(
        seed=seed,
        validation=bool(first["isValidation"]),
        name=people.images[rows[0]],
        number=number,
        width=max(round(width * factor), 1),
        height=max(round(height * factor), 1),
        people=tuple(_scaled(person, factor) for person in drawn),
        records=wanted,
    )


def _person(people: People, row: int) -> Person:
    return Person(people.joints[row], people.visible[row], people.center[row], float(people.scale[row]), _NO_BOX)


def _neighbours(path: Path, rows: list[int], records: list[Record], known: list[Person]) -> list[Person]:
    """People of `joint_others` who have no record of their own."""
    found: list[Person] = []
    for row in rows:
        record = records[row]
        count = int(record.get("numOtherPeople", 0))
        if not count:
            continue
        try:
            joints = np.asarray(record["joint_others"], float).reshape(count, NUM_JOINTS, 3)
            scales = np.asarray(record["scale_provided_other"], float).reshape(count)
            centers = np.asarray(record["objpos_other"], float).reshape(count, 2)
        except (KeyError, TypeError, ValueError) as error:
            raise FasthgError(f"--poses {path}: row {row}: its {count} neighbours cannot be read ({error})") from None
        for points, scale, center in zip(joints, scales, centers):
            labelled = (points != 0).any(axis=1)
            place = np.where(labelled[:, None], points[:, :2] - HALF_PIXEL, np.nan)
            twice = any(np.array_equal(place, other.joints, equal_nan=True) for other in [*known, *found])
            if labelled.any() and scale > 0 and not twice:
                found.append(Person(place, labelled & (points[:, 2] > 0), center - HALF_PIXEL, float(scale), _NO_BOX))
    return found


def _scaled(person: Person, factor: float) -> Person:
    if factor == 1:
        return person
    return replace(person, joints=person.joints * factor, center=person.center * factor, scale=person.scale * factor)
