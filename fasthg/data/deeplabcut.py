"""DeepLabCut projects: `config.yaml` with `labeled-data/*/CollectedData_SCORER.csv` or `.h5`.

The tables have three rows of names (scorer, bodyparts, coords), four where several animals are labelled (individuals
after the scorer), and one row for each image. Coordinates are 0-based pixel centres. One animal is a whole image;
several have a box about their points each. The column names inside the HDF5 files are pickled; their text is read
without unpickling anything.
"""

from __future__ import annotations

import csv
import logging
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthg.data.people import HALF_PIXEL, read_text
from fasthg.data.reading import Labels, Reading, make_labels, make_skeleton
from fasthg.errors import FasthgError
from fasthg.pixels.pictures import picture_size

log = logging.getLogger("fasthg")

LOOKED_FOR = "config.yaml with bodyparts (DeepLabCut)"
Rows = dict[str, dict[tuple[str, str], tuple[float, float]]]  # image -> (individual, body part) -> x, y


def is_deeplabcut(path: Path) -> bool:
    """Whether a folder, or a config.yaml, is a DeepLabCut project."""
    config = path if path.name == "config.yaml" else path / "config.yaml"
    return config.is_file() and ("bodyparts:" in (text := config.read_text(errors="replace")) and "scorer:" in text)


def read_deeplabcut(path: Path, reading: Reading) -> Labels:
    """The labelled frames of a project; raises FasthgError that names the file and what is missing."""
    import yaml

    file = path if path.name == "config.yaml" else path / "config.yaml"
    try:
        config = yaml.safe_load(read_text(file))
    except yaml.YAMLError as error:
        raise FasthgError(f"{file}: not YAML ({error}); copy it again") from None
    if not isinstance(config, dict):
        raise FasthgError(f"{file}: no fields with names; give a DeepLabCut project")
    single = [str(name) for name in _listed(config.get("bodyparts"))]
    names = single or [str(name) for name in _listed(config.get("multianimalbodyparts"))]
    if not names:
        raise FasthgError(f"{file}: no list of bodyparts; give a DeepLabCut project")
    limbs = [
        (names.index(str(a)), names.index(str(b)))
        for a, b in (pair for pair in _listed(config.get("skeleton")) if len(_listed(pair)) == 2)
        if str(a) in names and str(b) in names
    ]
    skeleton = make_skeleton(str(config.get("Task") or "animal"), names, limbs, reading.pairs)
    rows = _read_tables(file.parent)
    _warn_of_names(file, names, {part for found in rows.values() for _who, part in found})
    subjects = sorted({(image, who) for image, found in rows.items() for who, _part in found})
    points = np.full((len(subjects), len(names), 2), np.nan)
    for place, (image, who) in enumerate(subjects):
        for joint, name in enumerate(names):
            points[place, joint] = rows[image].get((who, name), (np.nan, np.nan))
    images = [image for image, _who in subjects]
    several = len({who for _image, who in subjects}) > 1
    boxes = np.full((len(images), 4), np.nan) if several else None
    sizes = None if several else [picture_size(file.parent / image) for image in images]
    return make_labels(
        images,
        points + HALF_PIXEL,
        np.isfinite(points).all(-1),
        boxes,
        sizes,
        skeleton,
        file.parent,
        file,
        "DeepLabCut project",
    )


def _warn_of_names(file: Path, names: list[str], labelled: set[str]) -> None:
    """Say which points are not read since the config and the tables name them differently."""
    unread, empty = sorted(labelled - set(names)), [name for name in names if name not in labelled]
    says = [f"it lacks the tables' {', '.join(unread)}"] if unread else []
    says += [f"no table has its {', '.join(empty)}"] if empty else []
    if says:
        log.warning("%s: %s; correct the names of its body parts where they are the same points", file, ", ".join(says))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _read_tables(project: Path) -> Rows:
    rows: Rows = {}
    for folder in sorted(filter(Path.is_dir, (project / "labeled-data").glob("*"))):
        tables = sorted(folder.glob("CollectedData*.csv")) or sorted(folder.glob("CollectedData*.h5"))
        if len(tables) > 1:
            names = ", ".join(table.name for table in tables)
            raise FasthgError(f"{folder}: labels of several scorers ({names}); leave one there")
        for table in tables:
            rows |= _read_csv(table) if table.suffix == ".csv" else _read_h5(table)
    if not rows:
        raise FasthgError(f"{project}: no labeled-data/*/CollectedData_SCORER.csv or .h5; label some frames first")
    return rows


def _read_csv(path: Path) -> Rows:
    lines = [line for line in csv.reader(read_text(path).splitlines()) if line]
    heads = 0
    while heads < len(lines) and lines[heads][0] in ("scorer", "individuals", "bodyparts", "coords"):
        heads += 1
    labels = {line[0]: line for line in lines[:heads]}
    if not {"bodyparts", "coords"} <= labels.keys():
        raise FasthgError(f"{path}: no rows 'bodyparts' and 'coords'; give DeepLabCut's CollectedData")
    first = len(lines[0]) - len([name for name in labels["coords"] if name in ("x", "y")])
    parts, axes = labels["bodyparts"][first:], labels["coords"][first:]
    who = labels.get("individuals", [""] * len(lines[0]))[first:]
    columns = list(zip(who, parts, axes))
    if not set(axes) <= {"x", "y"}:
        raise FasthgError(f"{path}: 'coords' are not x and y alone; give DeepLabCut's CollectedData")
    rows: Rows = {}
    for number, line in enumerate(lines[heads:], start=heads + 1):
        try:
            values = [float(text) if text.strip() else np.nan for text in line[first:]]
        except ValueError:
            raise FasthgError(f"{path}: line {number} holds no numbers; give DeepLabCut's CollectedData") from None
        if len(values) != len(columns):
            raise FasthgError(f"{path}: line {number} has {len(values)} values, expected {len(columns)}")
        rows["/".join(line[:first]).replace("\\", "/")] = _by_part(columns, np.array(values))
    return rows


def _by_part(columns: list[tuple[str, str, str]], values: NDArray[np.float64]) -> dict[tuple[str, str], Any]:
    found: dict[tuple[str, str], list[float]] = {}
    for (who, part, axis), value in zip(columns, values):
        found.setdefault((who, part), [np.nan, np.nan])["xy".index(axis)] = float(value)
    return {key: (x, y) for key, (x, y) in found.items()}


def _read_h5(path: Path) -> Rows:
    """pandas' two layouts: a table of rows, and fixed blocks with an index of codes and levels."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            group = file["df_with_missing"]
            if "table" in group:
                table = group["table"][()]
                names = _pickled_texts(group.attrs["non_index_axes"])
                depth = 4 if len(names) % 4 == 0 and len(names) // 4 == table["values_block_0"].shape[1] else 3
                columns = [tuple(names[i : i + depth]) for i in range(0, len(names), depth)]
                images, values = [_text(name) for name in table["index"]], table["values_block_0"]
            else:
                columns = _fixed_index(group, "block0_items")
                images = ["/".join(map(str, key)) for key in _fixed_index(group, "axis1")]
                values = group["block0_values"][()]
    except (OSError, KeyError, ValueError) as error:
        raise FasthgError(f"{path}: not a table of DeepLabCut's ({error}); copy it again, with its .csv") from None
    keys = [(column[-3] if len(column) == 4 else "", column[-2], column[-1]) for column in columns]
    return {image.replace("\\", "/"): _by_part(keys, row) for image, row in zip(images, values)}


def _fixed_index(group: Any, name: str) -> list[tuple[str, ...]]:
    """An index of a fixed pandas frame as tuples of text."""
    if name in group:
        return [(_text(value),) for value in group[name][()]]
    levels, number = [], 0
    while f"{name}_level{number}" in group:
        texts = [_text(value) for value in group[f"{name}_level{number}"][()]]
        levels.append([texts[code] for code in group[f"{name}_label{number}"][()]])
        number += 1
    return list(zip(*levels))


def _pickled_texts(data: Any) -> list[str]:
    """The strings of a pickled list of column names, in order, without running the pickle; numbers are left out."""
    texts: list[str] = []
    memo: dict[Any, str] = {}
    last = None
    for code, argument, _place in pickletools.genops(bytes(data)):
        if code.name in ("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "STRING"):
            last = str(argument)
            texts.append(last)
        elif "PUT" in code.name or code.name == "MEMOIZE":
            key = len(memo) if argument is None else argument
            memo[key] = last if last is not None else ""
            last = None
        elif "GET" in code.name and memo.get(argument):
            texts.append(memo[argument])
            last = None
        else:
            last = None
    return texts


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
