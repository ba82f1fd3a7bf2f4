"""Boxes that are given pick the people, in pixels of the photograph as it is shown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest

from fasthg.errors import FasthgError
from fasthg.pixels.skeleton import MPII
from fasthg.predict.formats import write_poses
from fasthg.predict.predictor import Predictor
from tests.fasthg.predict.dots import assert_on_the_dot, dotted


def test_a_box_makes_the_answer_finer_and_keeps_its_pixels(predictor: Predictor) -> None:
    (pose,) = predictor(dotted(130.5, 60.25, radius=2), boxes=[110, 40, 40, 40])
    assert_on_the_dot(pose, 130.5, 60.25, 40)
    assert not pose.whole_image


def test_coco_boxes_pick_the_people_of_the_photographs_they_name(predictor: Predictor, tmp_path: Path) -> None:
    document = {
        "images": [{"id": 7, "file_name": "b.png"}, {"id": 9, "file_name": "elsewhere.png"}],
        "annotations": [
            {"image_id": 7, "bbox": [110, 40, 40, 40], "category_id": 1},
            {"image_id": 7, "bbox": [10, 10, 40, 40], "category_id": 1},
            {"image_id": 7, "bbox": [0, 0, 9, 9], "category_id": 3},
        ],
        "categories": [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(document))
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), dotted(130, 60, radius=2))
    poses = predictor(tmp_path, tmp_path / "boxes.json")
    assert [pose.box for pose in poses] == [(110, 40, 40, 40), (10, 10, 40, 40)]
    assert_on_the_dot(poses[0], 130, 60, 40)


def test_coco_boxes_of_a_videos_frames_stay_with_them(predictor: Predictor, tmp_path: Path) -> None:
    """As `predict --format coco` writes them; one file name stands for every frame."""
    pages = [PIL.Image.fromarray(dotted(30 + 30 * number, 60)) for number in range(4)]
    pages[0].save(tmp_path / "film.gif", save_all=True, append_images=pages[1:], duration=40)
    first = predictor(tmp_path / "film.gif", [10, 10, 60, 80])
    moved = [replace(pose, box=(10.0 + (pose.frame or 0), 10, 60, 80)) for pose in first if pose.frame != 1]
    (file,) = write_poses(tmp_path, [*moved, moved[2]], ["coco"], MPII, {})
    again = predictor(tmp_path / "film.gif", file)
    assert [(pose.frame, pose.box[0]) for pose in again] == [(0, 10), (2, 12), (3, 13), (3, 13)]


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([1, 2, 3], r"shape \(3,\)"),
        ([1, 2, float("nan"), 4], "box 1,2,nan,4 is not finite"),
        ([1, 2, 0, 4], "box 1,2,0,4 has no area"),
        ([500, 2, 30, 40], r"box 500,2,30,40 lies outside array 0 \(200x150 pixels\)"),
        (["a", 2, 3, 4], "not numbers"),
        ([10**400, 2, 3, 4], "not numbers"),
    ],
)
def test_boxes_that_are_none_are_named(predictor: Predictor, boxes: Any, message: str) -> None:
    with pytest.raises(FasthgError, match=message):
        predictor(dotted(50, 50), boxes)


def test_a_list_of_one_image_may_have_a_list_of_its_boxes(predictor: Predictor) -> None:
    image, two = dotted(50, 50), np.array([[10, 10, 60, 80], [20, 20, 60, 80]])
    for listed in (two, two.tolist()):
        assert [pose.box for pose in predictor([image], [listed])] == [tuple(box) for box in two]
    assert [pose.whole_image for pose in predictor([image], [None])] == [True]
    assert [pose.box for pose in predictor([image], [two[0].tolist()])] == [tuple(two[0])]


def test_boxes_of_the_stored_photograph_are_turned_with_it(predictor: Predictor, tmp_path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # shown turned clockwise: (x, y) of the stored 200 x 150 is shown at (150 - y, x)
    PIL.Image.fromarray(dotted(130, 60, radius=2)).save(tmp_path / "a.png", exif=exif)
    for size, box in (((200, 150), [110, 40, 40, 40]), ((150, 200), [70, 110, 40, 40])):
        image = {"id": 1, "file_name": "a.png", "width": size[0], "height": size[1]}
        document = {"images": [image], "annotations": [{"image_id": 1, "bbox": box}]}
        (tmp_path / "boxes.json").write_text(json.dumps(document))
        (pose,) = predictor(tmp_path / "a.png", tmp_path / "boxes.json")
        assert_on_the_dot(pose, 90, 130, 40)
        assert pose.box == (70, 110, 40, 40)
