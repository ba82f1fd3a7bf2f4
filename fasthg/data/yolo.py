"""YOLO-pose folders: `data.yaml` with kpt_shape, images/ and labels/ side by side.

A line of a label file is class, box centre and size, then x, y and, with kpt_shape [J, 3], a flag for each point, all
shares of the image. Names of points (kpt_names) are a late addition: without them COCO's 17 are told by flip_idx.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthg.data.people import read_text
from fasthg.data.reading import Labels, Reading, make_labels, make_skeleton
from fasthg.errors import FasthgError
from fasthg.pixels.pictures import picture_size
from fasthg.pixels.skeleton import COCO, Skeleton

log = logging.getLogger("fasthg")

LOOKED_FOR = "data.yaml with kpt_shape (YOLO-pose)"
_MOST_POINTS = 10_000
_PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}


def yolo_file(path: Path) -> Path | None:
    """The YAML file of a YOLO-pose folder; None where it is none."""
    files = [path] if path.suffix in (".yaml", ".yml") else sorted([*path.glob("*.yaml"), *path.glob("*.yml")])
    try:
        return next((file for file in files if file.is_file() and b"kpt_shape" in file.read_bytes()), None)
    except OSError as error:
        raise FasthgError(f"{error.filename}: cannot be read ({error.strerror})") from error


def read_yolo(path: Path, reading: Reading) -> Labels:
    """The subjects of a folder, its `val` images held out; raises FasthgError that names the file and the line."""
    import yaml

    file = yolo_file(path)
    assert file is not None
    try:
        config = yaml.safe_load(read_text(file))
        count, values = (int(number) for number in config["kpt_shape"])
        if not 0 < count < _MOST_POINTS or values not in (2, 3):
            raise ValueError(f"kpt_shape is {config['kpt_shape']}")
        kind = _kind(file, config, reading.category)
        skeleton = _skeleton(file, config, kind, count, reading.pairs)
        root = _root(file, config)
        images = [
            (image, held)
            for held, split in enumerate(("train", "val"))
            for image in _images(file, root, config.get(split))
        ]
    except FasthgError:
        raise
    except (yaml.YAMLError, TypeError, ValueError, LookupError, AttributeError, OverflowError, OSError) as error:
        raise FasthgError(
            f"{file}: not YOLO-pose's fields, kpt_shape [points, 2 or 3] first ({error}); correct it"
        ) from None
    names, points, boxes, sizes_held = [], [], [], []
    for image, held in images:
        if not (rows := _rows(image, kind, 5 + count * values)):
            continue
        try:
            size = np.array(picture_size(image), np.float64)
        except FasthgError as error:
            log.warning("left out: %s", error)
            continue
        for row in rows:
            marked = row[5:].reshape(count, values)
            flags = marked[:, 2:] if values == 3 else (marked[:, :2] > 0).any(1, keepdims=True) * 2.0
            points.append(np.hstack([marked[:, :2] * size, flags]))
            boxes.append(np.concatenate([(row[1:3] - row[3:5] / 2) * size, row[3:5] * size]))
            names.append(image.relative_to(root).as_posix() if image.is_relative_to(root) else str(image))
            sizes_held.append(bool(held))
    if not points:
        raise FasthgError(f"{file}: no labels beside its images; they belong in labels/, one .txt for each image")
    marked = np.array(points)
    held_out = sizes_held if any(sizes_held) and not all(sizes_held) else None
    return make_labels(
        *(names, marked[..., :2], marked[..., 2] > 0, np.array(boxes), None, skeleton, root, file, "YOLO-pose folder"),
        visible=marked[..., 2] > 1,
        held_out=held_out,
    )


def _root(file: Path, config: dict[str, Any]) -> Path:
    root = Path(config.get("path") or ".")
    stated = root if root.is_absolute() else file.parent / root
    return stated if stated.is_dir() else file.parent


def _kind(file: Path, config: dict[str, Any], wanted: str | None) -> int:
    """The class to read; raises FasthgError where there are several and none was chosen."""
    names = config.get("names") or {0: "subject"}
    names = dict(enumerate(names)) if isinstance(names, list) else names
    chosen = [number for number, name in names.items() if wanted in (None, str(number), name)]
    if len(chosen) != 1:
        listed = ", ".join(map(str, names.values()))
        raise FasthgError(f"{file}: choose one of the classes {listed} with --category")
    return int(chosen[0])


def _skeleton(file: Path, config: dict[str, Any], kind: int, count: int, pairs: str | None) -> Skeleton:
    order = [int(place) for place in config.get("flip_idx") or range(count)]
    if sorted(order) != list(range(count)):
        raise FasthgError(f"{file}: flip_idx is no order of {count} points, which kpt_shape says; correct it")
    told = [(max(a, b), min(a, b)) for a, b in enumerate(order) if a < b]
    named = config.get("kpt_names") or {}
    names = named.get(kind) if isinstance(named, dict) else named
    if not names:
        is_coco = count == len(COCO) and tuple(order) == COCO.flip_order
        names = COCO.names if is_coco else [f"point{number}" for number in range(1, count + 1)]
    if len(names) != count:
        raise FasthgError(f"{file}: kpt_names has {len(names)} names, kpt_shape {count} points; correct one of them")
    kinds = config.get("names") or {}
    name = kinds.get(kind, "subject") if isinstance(kinds, dict) else kinds[kind]
    return make_skeleton(str(name), [str(point) for point in names], (), pairs, told)


def _images(file: Path, root: Path, places: Any) -> list[Path]:
    """The images of a split: of a folder, of several, or of a text file that lists them."""
    found: list[Path] = []
    for place in places if isinstance(places, list) else [places] if places else []:
        at = next((base / place for base in (root, file.parent) if (base / place).exists()), None)
        if at is None and str(place).startswith("../"):  # as Roboflow writes them
            at = next((base for base in (root / str(place)[3:],) if base.exists()), None)
        if at is None:
            raise FasthgError(f"{file}: {place} does not exist; correct the path")
        if at.is_file():
            found += [root / line.strip() for line in read_text(at).splitlines() if line.strip()]
        else:
            files = (file for file in at.rglob("*") if not file.name.startswith("."))  # a Mac writes ._NAME beside NAME
            found += sorted(image for image in files if image.suffix.lower() in _PICTURES)
    return found


def _rows(image: Path, kind: int, wanted: int) -> list[NDArray[np.float64]]:
    """The lines of an image's label file that are of a class, [wanted] each; none where there is no such file."""
    parts = list(image.parts)
    places = [i for i, part in enumerate(parts) if part == "images"]
    if places:
        parts[places[-1]] = "labels"
    file = Path(*parts).with_suffix(".txt")
    if not file.is_file():
        return []
    rows = []
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        try:
            row = np.array([float(text) for text in line.split()])
        except ValueError:
            raise FasthgError(f"{file}: line {number} is not numbers") from None
        if len(row) and len(row) != wanted:
            raise FasthgError(f"{file}: line {number} has {len(row)} numbers, kpt_shape asks for {wanted}")
        if len(row) and not float(row[0]).is_integer():
            raise FasthgError(f"{file}: line {number} has no number of a class; correct it")
        if len(row) and row[0] == kind:
            rows.append(row)
    return rows
