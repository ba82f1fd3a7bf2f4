"""Every format of MPII's annotations holds the same people, and a file that does not is named."""

from __future__ import annotations

import copy
import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io

from fasthg.data.annotations import read_annotations
from fasthg.data.people import People, Split
from fasthg.errors import FasthgError
from tests.fasthg.data.annotation_files import (
    check_people,
    write_bearpaw,
    write_hrnet,
    write_princeton,
    write_release,
)


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
        ({"scale_provided": 10**400}, "row 1: 'scale_provided' is not numbers"),
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
