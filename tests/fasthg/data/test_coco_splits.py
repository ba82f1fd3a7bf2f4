"""Two files of COCO's keypoints are one project: each is read by its own names and numbers."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fasthg.data.dataset import load_dataset
from fasthg.data.reading import Reading
from fasthg.errors import FasthgError

POINTS = {"beak": [1, 2, 2], "wing": [20, 5, 2], "tail": [9, 25, 1]}
NEST = {"beak": [30, 30, 2], "wing": [31, 31, 2], "tail": [32, 32, 2]}


def document(order: list[str], bird: int, nest: int) -> dict[str, Any]:
    """A bird and a nest in one picture, their points in an order, their kinds under some numbers."""
    kinds = {"bird": (bird, POINTS), "nest": (nest, NEST)}
    return {
        "images": [{"id": 7, "file_name": "a.png"}],
        "annotations": [
            {"image_id": 7, "category_id": number, "keypoints": [value for name in order for value in points[name]]}
            for number, points in kinds.values()
        ],
        "categories": [{"id": number, "name": name, "keypoints": order} for name, (number, _) in kinds.items()],
    }


def project(folder: Path, train: dict[str, Any], val: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "train.json").write_text(json.dumps(train))
    (folder / "val.json").write_text(json.dumps(val))
    return folder


def read(folder: Path, split: Any, category: str) -> Any:
    return load_dataset(folder, split, check_files=False, reading=Reading(category)).people


TRAIN = document(["beak", "wing", "tail"], 1, 2)


@pytest.mark.parametrize("order", [["beak", "wing", "tail"], ["tail", "beak", "wing"]])
@pytest.mark.parametrize("numbers", [(1, 2), (2, 1)])
def test_a_second_files_order_and_numbers_are_its_own(
    order: list[str], numbers: tuple[int, int], tmp_path: Path
) -> None:
    project(tmp_path, TRAIN, document(order, *numbers))
    people = read(tmp_path, "val", "bird")
    assert people.skeleton.names == tuple(POINTS)
    np.testing.assert_array_equal(people.joints, [[(1.5, 2.5), (20.5, 5.5), (9.5, 25.5)]])
    assert people.visible.tolist() == [[True, True, False]]


def test_a_second_file_of_other_points_is_named(tmp_path: Path) -> None:
    val = json.loads(json.dumps(document(list(POINTS), 1, 2)).replace("wing", "foot"))
    with pytest.raises(FasthgError, match=r"val\.json has the points beak, foot, tail, not beak, wing, tail"):
        read(project(tmp_path, TRAIN, val), "val", "bird")


def test_a_number_that_stands_for_two_kinds_is_named(tmp_path: Path) -> None:
    project(tmp_path, TRAIN, document(list(POINTS), 2, 1))
    with pytest.raises(FasthgError, match=r"category '1' is bird in .*train\.json and nest in .*val\.json; give its"):
        read(tmp_path, "val", "1")


def test_a_second_file_without_labels_yet_is_read(tmp_path: Path) -> None:
    project(tmp_path, TRAIN, TRAIN | {"annotations": []})
    assert len(load_dataset(tmp_path, "train", check_files=False).people) == 2


@pytest.mark.parametrize("folder", ["mouse_test", "latest", "evaluation", "val"])
@pytest.mark.parametrize("held", ["val.json", "person_keypoints_val2017.json", "mice-test.json", "Validation.json"])
def test_which_file_is_held_out_is_told_by_whole_words_inside_the_folder(
    folder: str, held: str, tmp_path: Path
) -> None:
    second = copy.deepcopy(TRAIN)
    second["images"][0]["file_name"] = "b.png"
    project(tmp_path / folder, TRAIN, second)
    (tmp_path / folder / "val.json").rename(tmp_path / folder / held)
    (tmp_path / folder / "train.json").rename(tmp_path / folder / "latest_train.json")
    assert set(read(tmp_path / folder, "train", "bird").images) == {"a.png"}
    assert set(read(tmp_path / folder, "val", "bird").images) == {"b.png"}


def test_a_file_that_begins_with_windows_mark_is_read(tmp_path: Path) -> None:
    file = project(tmp_path, TRAIN, TRAIN) / "train.json"
    (tmp_path / "val.json").unlink()
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert len(read(tmp_path, "all", "bird")) == len(read(file, "all", "bird")) == 1
