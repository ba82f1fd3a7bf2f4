"""A dataset finds its photographs and head sizes, and names what is missing."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import scipy.io

from fasthg.data.annotations import read_annotations
from fasthg.data.dataset import find_people, load_dataset
from fasthg.errors import FasthgError
from tests.fasthg.data.annotation_files import (
    HEAD_BOXES,
    HEAD_SIZES,
    IMAGES,
    JOINTS,
    write_bearpaw,
    write_princeton,
    write_release,
)


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
