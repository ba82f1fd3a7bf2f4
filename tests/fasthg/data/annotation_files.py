"""The same people in the formats of MPII's annotations."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io

from fasthg.data.people import People

# Two people in one photograph and one in another, in the files' 1-based pixels: (x, y, visible), None if missing.
JOINTS: list[list[tuple[float, float, int] | None]] = [
    [(100 + 3 * joint, 50 + 7 * joint, 1) for joint in range(16)],
    [None if joint in (0, 5) else (400 + 2 * joint, 80 + 5 * joint, int(joint != 10)) for joint in range(16)],
    [(0, 30 + joint, 1) if joint == 15 else (20 + joint, 30 + joint, int(joint % 2)) for joint in range(16)],
]
IMAGES = ["a.jpg", "a.jpg", "b.jpg"]
CENTERS = [[130.0, 110.0], [420.0, 120.0], [30.0, 40.0]]
SCALES = [1.5, 2.25, 0.5]
HEAD_BOXES = [[100, 100, 130, 140], [400, 90, 412, 95], [10, 10, 18, 25]]
HEAD_SIZES = [0.6 * 50, 0.6 * 13, 0.6 * 17]
VALIDATION = [0, 0, 1]


def write_bearpaw(folder: Path, **changes: Any) -> Path:
    records = [
        {
            "dataset": "MPI",
            "isValidation": float(VALIDATION[i]),
            "img_paths": IMAGES[i],
            "objpos": CENTERS[i],
            "scale_provided": SCALES[i],
            "joint_self": [list(joint or (0, 0, 0)) for joint in JOINTS[i]],
            "head_box": HEAD_BOXES[i],
        }
        for i in range(3)
    ]
    for name, value in changes.items():
        records[1][name] = value
        if value is None:
            del records[1][name]
    path = folder / "annotations.json"
    path.write_text(json.dumps(records))
    return path


def write_hrnet(folder: Path) -> Path:
    records = [
        {
            "image": IMAGES[i],
            "center": CENTERS[i],
            "scale": SCALES[i],
            "joints": [list(joint[:2]) if joint else [-1.0, -1.0] for joint in JOINTS[i]],
            "joints_vis": [int(joint is not None) for joint in JOINTS[i]],
        }
        for i in range(3)
    ]
    path = folder / "valid.json"
    path.write_text(json.dumps(records))
    return path


def write_princeton(folder: Path) -> Path:
    path = folder / "valid.h5"
    with h5py.File(path, "w") as file:
        scale = np.array(SCALES)
        file["imgname"] = np.array(IMAGES, "S13")
        file["center"] = np.array(CENTERS) + np.stack([0 * scale, 15 * scale], axis=1)
        file["scale"] = scale * 1.25
        file["part"] = np.array([[(joint or (0, 0, 0))[:2] for joint in joints] for joints in JOINTS], float)
        file["visible"] = np.array([[(joint or (0, 0, 0))[2] for joint in joints] for joints in JOINTS], float)
        file["normalize"] = np.array(HEAD_SIZES)
        file["index"], file["person"] = np.array([1.0, 1.0, 3.0]), np.array([0.0, 2.0, 0.0])
    return path


def structs(rows: list[dict[str, Any]]) -> np.ndarray:
    """MATLAB structure array [1, N] of the rows' fields; a field that a row lacks is []."""
    fields = list(dict.fromkeys(name for row in rows for name in row))
    array = np.empty((1, len(rows)), dtype=[(name, object) for name in fields])
    for i, row in enumerate(rows):
        for name in fields:
            array[0, i][name] = row.get(name, np.empty((0, 0)))
    return array


def matlab_person(i: int) -> dict[str, Any]:
    """One `annorect`, its `is_visible` in all the ways in which the release writes it."""
    shapes: dict[int, list[Any]] = {0: [0, "0"], 1: [1, "1", np.empty((0, 0))]}
    points = []
    for joint, value in enumerate(JOINTS[i]):
        if value is not None:
            ways = shapes[value[2]]
            point = {"id": joint, "x": value[0], "y": value[1], "is_visible": ways[joint % len(ways)]}
            points.append(point)
    x, y = CENTERS[i]
    box = dict(zip(("x1", "y1", "x2", "y2"), HEAD_BOXES[i]))
    objpos = structs([{"x": x, "y": y}])
    return {**box, "annopoints": structs([{"point": structs(points)}]), "scale": SCALES[i], "objpos": objpos}


def write_release(folder: Path, spoil: Callable[[dict[str, Any]], None] = lambda person: None) -> Path:
    """The release's nesting: a test photograph, two people about one without joints, nobody, one person."""
    last = matlab_person(2)
    spoil(last)
    rects = [
        [{"scale": 3.0, "objpos": structs([{"x": 5.0, "y": 5.0}])}],
        [matlab_person(0), {"x1": 1, "y1": 1, "x2": 2, "y2": 2}, matlab_person(1)],
        [],
        [last],
    ]
    annolist = [
        {"image": structs([{"name": name}]), "annorect": structs(people) if people else np.empty((0, 0))}
        for name, people in zip(("test.jpg", "a.jpg", "empty.jpg", "b.jpg"), rects)
    ]
    single = np.empty((4, 1), object)
    single[:, 0] = [np.empty((0, 0)), np.array([[1], [3]]), np.empty((0, 0)), 1]
    release = {"annolist": structs(annolist), "img_train": np.array([[0, 1, 1, 1]]), "single_person": single}
    path = folder / "mpii_human_pose_v1_u12_1.mat"
    scipy.io.savemat(path, {"RELEASE": release})
    return path


def check_people(people: People, with_visible: bool = True, with_heads: bool = True) -> None:
    """The three people above, in continuous coordinates."""
    assert people.images == tuple(IMAGES)
    np.testing.assert_allclose(people.center, np.array(CENTERS) - 0.5)
    np.testing.assert_allclose(people.scale, SCALES)
    labelled = [[joint is not None for joint in joints] for joints in JOINTS]
    np.testing.assert_array_equal(people.labelled, labelled)
    expected = [[(joint[0] - 0.5, joint[1] - 0.5) if joint else (np.nan,) * 2 for joint in row] for row in JOINTS]
    np.testing.assert_allclose(people.joints, expected)
    if with_visible:
        np.testing.assert_array_equal(people.visible, [[bool(j and j[2]) for j in joints] for joints in JOINTS])
    else:
        np.testing.assert_array_equal(people.visible, labelled)
    if with_heads:
        np.testing.assert_allclose(people.head_size, HEAD_SIZES)
    else:
        assert np.isnan(people.head_size).all()
