"""Annotations: the same people out of every format, and a clear word about a file that is wrong."""

from __future__ import annotations

import copy
import gzip
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
import scipy.io

from fasthg.data.annotations import read_annotations
from fasthg.data.dataset import find_people, load_dataset
from fasthg.data.people import People, Split
from fasthg.errors import FasthgError

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


@pytest.mark.parametrize("place", [[0.0, 0.0], [123.0, 45.0], [-1.0, -1.0]])
def test_hrnets_absent_joints_are_not_labelled_wherever_they_are_put(tmp_path: Path, place: list[float]) -> None:
    """Datasets in HRNet's format mark an absent joint by `joints_vis` 0 alone; MPII's own put it at -1, -1 as well."""
    path = write_hrnet(tmp_path)
    records = json.loads(path.read_text())
    for record in records:
        record["joints"] = [point if seen else place for point, seen in zip(record["joints"], record["joints_vis"])]
    path.write_text(json.dumps(records))
    check_people(read_annotations(path), with_visible=False, with_heads=False)


@pytest.mark.parametrize("place", [[-1.0, -1.0], [float("nan"), 5.0]])
def test_hidden_joints_without_a_place_are_not_labelled_in_the_other_formats_either(
    tmp_path: Path, place: list[float]
) -> None:
    path = write_bearpaw(tmp_path)
    records = json.loads(path.read_text())
    for record in records:
        record["joint_self"] = [[*place, 0.0] if joint == [0, 0, 0] else joint for joint in record["joint_self"]]
    path.write_text(json.dumps(records))
    check_people(read_annotations(path, "all"))
    with h5py.File(path := write_princeton(tmp_path), "r+") as file:
        absent = (file["part"][:] == 0).all(axis=-1)
        assert absent.any()
        file["part"][:] = np.where(absent[..., None], place, file["part"][:])
    check_people(read_annotations(path))


def test_four_formats_hold_the_same_people(tmp_path: Path) -> None:
    check_people(read_annotations(write_bearpaw(tmp_path), "all"))
    check_people(read_annotations(write_hrnet(tmp_path)), with_visible=False, with_heads=False)
    check_people(read_annotations(write_princeton(tmp_path)))
    check_people(read_annotations(write_release(tmp_path)))


def test_formats_are_told_by_content_not_by_name(tmp_path: Path) -> None:
    for write in (write_bearpaw, write_princeton, write_release):
        path = write(tmp_path)
        check_people(read_annotations(shutil.move(path, tmp_path / "annotations.bin")))
    path = tmp_path / "packed"
    path.write_bytes(gzip.compress(write_bearpaw(tmp_path).read_bytes()))
    check_people(read_annotations(path))


def test_release_takes_the_validation_people_from_the_list_beside_it(tmp_path: Path) -> None:
    path = write_release(tmp_path)
    with pytest.raises(FasthgError, match=r"no validation split; put valid\.h5"):
        read_annotations(path, "val")
    with h5py.File(tmp_path / "valid.h5", "w") as file:  # zero-based photograph and person: the last one
        file["index"], file["person"] = np.array([3.0]), np.array([0.0])
    assert read_annotations(path, "val").images == ("b.jpg",)
    assert read_annotations(path, "train").images == ("a.jpg", "a.jpg")
    (tmp_path / "valid.h5").unlink()
    listed = [{"isValidation": 1.0, "annolist_index": 2.0, "people_index": 1.0}]
    (tmp_path / "mpii_annotations.json").write_text(json.dumps(listed))
    assert len(read_annotations(path, "val")) == 1
    assert read_annotations(path, "train").images == ("b.jpg",), "nobody else of a validation photograph is trained on"


def test_splits_of_bearpaws_file(tmp_path: Path) -> None:
    path = write_bearpaw(tmp_path)
    assert read_annotations(path, "train").images == ("a.jpg", "a.jpg")
    assert read_annotations(path, "val").images == ("b.jpg",)
    with pytest.raises(FasthgError, match="split is 'test'; choose train, val or all"):
        read_annotations(path, "test")  # type: ignore[arg-type]


def test_select_keeps_rows_together(tmp_path: Path) -> None:
    people = read_annotations(write_bearpaw(tmp_path))
    chosen = people.select([2, 0])
    assert chosen.images == ("b.jpg", "a.jpg")
    np.testing.assert_array_equal(chosen.joints, people.joints[[2, 0]])
    assert people.select(people.scale > 1).images == ("a.jpg", "a.jpg")


def test_mpii_has_its_published_numbers_of_people_and_labels(mpii_dir: Path, mpii_people: People) -> None:
    train, val = read_annotations(mpii_dir / "mpii_annotations.json.gz", "train"), mpii_people
    assert (len(train), len(val)) == (22_246, 2_958)
    assert not set(train.images) & set(val.images)
    assert (train.labelled.sum(), (train.labelled & ~train.visible).sum()) == (332_023, 76_460)
    assert (val.labelled.sum(), (val.labelled & ~val.visible).sum()) == (44_240, 10_243)


def test_validation_people_of_json_and_princeton_agree(mpii_dir: Path, mpii_people: People) -> None:
    other = read_annotations(mpii_dir / "valid.h5")
    assert mpii_people.images == other.images
    np.testing.assert_allclose(mpii_people.center, other.center, atol=1e-6)
    np.testing.assert_allclose(mpii_people.scale, other.scale, atol=5.1e-4)  # the JSON keeps three decimals
    np.testing.assert_array_equal(mpii_people.labelled, other.labelled)
    np.testing.assert_array_equal(mpii_people.visible, other.visible)
    np.testing.assert_allclose(mpii_people.joints, other.joints, atol=1.0)
    np.testing.assert_allclose(mpii_people.head_size, other.head_size, atol=1e-4)


def test_labels_counted_are_those_of_the_published_truth(mpii_dir: Path, mpii_people: People) -> None:
    missing = scipy.io.loadmat(mpii_dir / "detections_our_format.mat")["jnt_missing"].T
    np.testing.assert_array_equal(mpii_people.labelled, missing == 0)


def test_hrnets_file_holds_people_of_the_same_validation_set(mpii_dir: Path, mpii_people: People) -> None:
    hrnet = read_annotations(mpii_dir / "test_mpii.json")
    rows = [int(np.abs(mpii_people.center - center).sum(axis=1).argmin()) for center in hrnet.center]
    same = mpii_people.select(rows)
    assert same.images == hrnet.images
    np.testing.assert_array_equal(same.labelled, hrnet.labelled)
    np.testing.assert_allclose(same.joints, hrnet.joints, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale_provided": None}, "row 1 has no field 'scale_provided'"),
        ({"scale_provided": float("nan")}, r"row 1 \(a.jpg\): scale is nan"),
        ({"scale_provided": 0.0}, r"row 1 \(a.jpg\): scale is 0.0"),
        ({"scale_provided": "big"}, "row 1: 'scale_provided' is not numbers"),
        ({"objpos": [1.0]}, r"row 1: 'objpos' has shape \(1,\), expected \(2,\)"),
        ({"objpos": [1.0, float("inf")]}, r"row 1 \(a.jpg\): center is"),
        ({"joint_self": [[1, 2, 1]] * 15}, r"'joint_self' has shape \(15, 3\), expected \(16, 3\)"),
        ({"joint_self": [[float("nan"), 2, 1]] * 16}, r"row 1 \(a.jpg\): joints is NaN"),
        ({"head_box": None}, "row 1 has no field 'head_box'"),
        ({"head_box": [5, 5, 5, 5]}, r"row 1 \(a.jpg\): head size is 0.0"),
        ({"img_paths": 7}, "row 1 has no file name in 'img_paths'"),
        ({"isValidation": None}, "row 1 has no field 'isValidation'"),
    ],
)
def test_a_wrong_record_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = write_bearpaw(tmp_path, **copy.deepcopy(change))
    split: Split = "train" if "isValidation" in change else "all"
    with pytest.raises(FasthgError, match=rf"annotations\.json: .*{message}"):
        read_annotations(path, split)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda person: person.update(scale=np.empty((0, 0))), r"annolist\(4\).annorect\(1\) has no 'scale'"),
        (lambda person: person.pop("objpos"), r"annolist\(4\).annorect\(1\) has no 'objpos'"),
        (lambda person: person.pop("x2"), r"annolist\(4\).annorect\(1\) has no 'x2'"),
    ],
)
def test_a_wrong_release_record_is_named(tmp_path: Path, spoil: Callable[[dict[str, Any]], None], message: str) -> None:
    with pytest.raises(FasthgError, match=message):
        read_annotations(write_release(tmp_path, spoil))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[]", "expected a JSON list of people"),
        (b'{"a": 1}', "expected a JSON list of people"),
        (b'[{"keypoints": []}]', "row 0 has the fields keypoints; neither bearpaw's"),
        (b'[{"joint_self": ', "not a whole JSON file"),
        (b"\x1f\x8b\x08garbage", "not a whole JSON file"),
        (b"\x89HDF\r\n\x1a\n cut", "not a whole HDF5 file"),
        (b"MATLAB 5.0 MAT-file, cut", "not a whole MATLAB file"),
    ],
)
def test_files_that_hold_no_annotations_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "people"
    path.write_bytes(content)
    with pytest.raises(FasthgError, match=rf"people: {message}"):
        read_annotations(path)
    with pytest.raises(FasthgError, match="absent: No such file"):
        read_annotations(tmp_path / "absent")


def test_princeton_file_without_a_dataset_is_named(tmp_path: Path) -> None:
    path = write_princeton(tmp_path)
    with h5py.File(path, "a") as file:
        del file["normalize"], file["part"]
    with pytest.raises(FasthgError, match="no part, normalize in this HDF5 file"):
        read_annotations(path)


def write_images(folder: Path, names: list[str]) -> None:
    (folder / "images").mkdir(exist_ok=True)
    for name in names:
        cv2.imwrite(str(folder / "images" / name), np.zeros((8, 8, 3), np.uint8))


def test_dataset_finds_its_photographs_and_keeps_its_digest_when_moved(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    write_bearpaw(here)
    write_images(here, ["a.jpg", "b.jpg"])
    dataset = load_dataset(here, "val")
    assert len(dataset) == 1
    assert dataset.image_path(0) == here / "images" / "b.jpg"
    digest = dataset.digest
    shutil.move(here, there)
    assert load_dataset(there, "val").digest == digest
    assert load_dataset(there / "annotations.json", "val").digest == digest
    assert load_dataset(there, "train").digest != digest


def test_the_same_people_are_found_in_another_file_and_neighbours_are_not(tmp_path: Path) -> None:
    """Princeton's file and bearpaw's hold the same three people; two of them share a photograph."""
    write_bearpaw(tmp_path)
    (tmp_path / "images").mkdir()
    for name in IMAGES:
        (tmp_path / "images" / name).touch()
    everyone, princeton = load_dataset(tmp_path, "all"), load_dataset(write_princeton(tmp_path), "val")
    assert find_people(everyone, princeton).tolist() == [True, True, True]
    assert find_people(everyone, princeton.select([1])).tolist() == [False, True, False]
    elsewhere = replace(princeton, image_dir=tmp_path / "other")
    assert not find_people(everyone, elsewhere).any()


def test_dataset_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FasthgError, match="absent: no such folder"):
        load_dataset(tmp_path / "absent", "val")
    with pytest.raises(FasthgError, match=r"none of annotations\.json"):
        load_dataset(tmp_path, "val")
    path = write_bearpaw(tmp_path)
    with pytest.raises(FasthgError, match="images: no such folder"):
        load_dataset(tmp_path, "all")
    write_images(tmp_path, ["b.jpg"])
    with pytest.raises(FasthgError, match=r"1 of 2 photographs are missing, the first is a\.jpg"):
        load_dataset(tmp_path, "all")
    assert len(load_dataset(tmp_path, "all", check_files=False)) == 3
    path.write_text(json.dumps([record for record in json.loads(path.read_text()) if not record["isValidation"]]))
    with pytest.raises(FasthgError, match="split 'val' is empty"):
        load_dataset(tmp_path, "val")


def write_head_boxes(folder: Path, rows: list[int]) -> None:
    """The published truth's arrays, which run over people last."""
    boxes = np.array(HEAD_BOXES, float)[rows].reshape(-1, 2, 2).transpose(1, 2, 0)
    missing = np.array([[joint is None for joint in JOINTS[row]] for row in rows], np.uint8).T
    scipy.io.savemat(folder / "detections_our_format.mat", {"headboxes_src": boxes, "jnt_missing": missing})


def test_head_sizes_come_from_the_file_beside_the_annotations(tmp_path: Path) -> None:
    path = write_bearpaw(tmp_path)
    records = [{key: value for key, value in r.items() if key != "head_box"} for r in json.loads(path.read_text())]
    path.write_text(json.dumps(records))
    assert np.isnan(load_dataset(tmp_path, "val", check_files=False).people.head_size).all()
    write_head_boxes(tmp_path, [2])
    assert load_dataset(tmp_path, "val", check_files=False).people.head_size == pytest.approx([HEAD_SIZES[2]])
    assert np.isnan(load_dataset(tmp_path, "train", check_files=False).people.head_size).all()


@pytest.mark.parametrize("rows", [[1], [0, 2]], ids=["another person", "more people"])
def test_head_sizes_of_other_people_are_not_taken(tmp_path: Path, rows: list[int]) -> None:
    path = write_bearpaw(tmp_path)
    records = [{key: value for key, value in r.items() if key != "head_box"} for r in json.loads(path.read_text())]
    path.write_text(json.dumps(records))
    write_head_boxes(tmp_path, rows)
    with pytest.raises(FasthgError, match=r"detections_our_format.mat: its \d people are not the 1 of the annotations"):
        load_dataset(tmp_path, "val", check_files=False)


@pytest.mark.parametrize("name", ["detections_our_format.mat", "gt_valid.mat"])
@pytest.mark.parametrize("damage", ["cut", "flat"])
def test_a_damaged_file_of_head_sizes_is_named(tmp_path: Path, name: str, damage: str) -> None:
    path = write_bearpaw(tmp_path)
    records = [{key: value for key, value in r.items() if key != "head_box"} for r in json.loads(path.read_text())]
    path.write_text(json.dumps(records))
    if damage == "cut":
        write_head_boxes(tmp_path, [2])
        (tmp_path / name).write_bytes((tmp_path / "detections_our_format.mat").read_bytes()[:150])
    else:
        scipy.io.savemat(tmp_path / name, {"headboxes_src": np.zeros((2, 2)), "jnt_missing": np.zeros((16, 1))})
    if name != "detections_our_format.mat":
        (tmp_path / "detections_our_format.mat").unlink(missing_ok=True)
    with pytest.raises(FasthgError, match=f"{name}: (cannot be read as a MATLAB file|headboxes_src has shape)"):
        load_dataset(tmp_path, "val", check_files=False)


@pytest.mark.parametrize("content", [[5], ["a"], {"a": 1}, 7, [{"isValidation": 1.0, "annolist_index": None}]])
def test_a_list_of_something_else_beside_the_release_is_named(tmp_path: Path, content: Any) -> None:
    path = write_release(tmp_path)
    (tmp_path / "mpii_annotations.json").write_text(json.dumps(content))
    with pytest.raises(FasthgError, match=r"mpii_annotations\.json: not a list of people"):
        read_annotations(path, "val")


@pytest.mark.parametrize("given", ["", "annot", "annot/valid.json"])
def test_annotations_beside_the_photographs_in_a_folder_of_their_own_are_found(tmp_path: Path, given: str) -> None:
    """The layout of HRNet, mmpose and princeton-vl: annot/train.json, annot/valid.json and images/."""
    (tmp_path / "annot").mkdir()
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(b"")
    for name, shift in (("train", 0), ("valid", 100)):
        person = {"image": "a.jpg", "center": [50 + shift, 60], "scale": 1.0}
        person |= {"joints": [[5.0, 6.0]] * 16, "joints_vis": [1] * 16}
        (tmp_path / "annot" / f"{name}.json").write_text(json.dumps([person]))
    dataset = load_dataset(tmp_path / given, "val")
    assert dataset.image_path(0) == tmp_path / "images" / "a.jpg"
    assert dataset.people.center[0, 0] == 149.5
