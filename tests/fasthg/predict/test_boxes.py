"""Boxes as their files mean them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from fasthg.errors import FasthgError
from fasthg.predict.boxes import Listed, Lookup, parse_boxes, read_coco_boxes, upright
from fasthg.predict.predictor import as_boxes


def read(tmp_path: Path, document: Any) -> Lookup:
    (tmp_path / "boxes.json").write_text(json.dumps(document))
    return read_coco_boxes(tmp_path / "boxes.json")


def people(lookup: Lookup, name: str) -> list[list[float]] | None:
    (listed,) = lookup.assign([name])
    return None if listed is None or listed.boxes is None else listed.boxes.tolist()


def test_crowds_other_categories_and_boxes_without_an_area_are_no_people(tmp_path: Path) -> None:
    rows = [
        {"image_id": 1, "category_id": 7, "bbox": [1, 2, 30, 40], "iscrowd": 0},
        {"image_id": 1, "category_id": 7, "bbox": [0, 0, 90, 90], "iscrowd": 1},
        {"image_id": 1, "category_id": 3, "bbox": [5, 5, 9, 9]},
        {"image_id": 1, "category_id": 7, "bbox": [5, 5, 0, 9]},
        {"image_id": 1, "category_id": 7, "bbox": [5, 5, 9, -1]},
    ]
    categories = [{"id": 3, "name": "car"}, {"id": 7, "name": "Person"}]
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}]
    lookup = read(tmp_path, {"images": images, "annotations": rows, "categories": categories})
    assert people(lookup, "a.jpg") == [[1, 2, 30, 40]]
    assert people(lookup, "b.jpg") == []
    assert people(lookup, "c.jpg") is None
    assert lookup.ignored == {"of a crowd": 1, "of another category": 1, "without an area": 2}


def test_a_list_of_detections_names_photographs_by_number_or_name(tmp_path: Path) -> None:
    """https://cocodataset.org/#format-results"""
    rows = [
        {"image_id": 139, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.9},
        {"image_id": 139, "category_id": 62, "bbox": [9, 9, 3, 4], "score": 0.9},
        {"image_id": "walk/b.jpg", "bbox": [5, 6, 7, 8]},
    ]
    lookup = read(tmp_path, rows)
    assert people(lookup, "val2017/000000000139.jpg") == [[1, 2, 3, 4]]
    assert people(lookup, "/data/walk/b.jpg") == people(lookup, "b.jpg") == [[5, 6, 7, 8]]


def test_photographs_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "one/a.jpg"}, {"id": 2, "file_name": "two\\a.jpg"}]
    rows = [{"image_id": i, "bbox": [i, 0, 9, 9]} for i in (1, 2)]
    lookup = read(tmp_path, {"images": images, "annotations": rows})
    assert people(lookup, "/data/one/a.jpg") == [[1, 0, 9, 9]]
    assert people(lookup, "/data/two/a.jpg") == [[2, 0, 9, 9]]
    with pytest.raises(FasthgError, match=r"boxes of 2 photographs called a\.jpg"):
        lookup.assign(["/elsewhere/a.jpg"])


@pytest.mark.parametrize("form", ["images", "detections", "mapping"])
def test_names_that_begin_at_the_folder_are_told_apart_too(tmp_path: Path, form: str) -> None:
    names = ["./one/a.jpg", ".\\two\\a.jpg"]
    rows = [{"image_id": name, "bbox": [i, 0, 9, 9]} for i, name in enumerate(names)]
    if form == "mapping":
        lookup = as_boxes({name: [i, 0, 9, 9] for i, name in enumerate(names)}, 2)
    else:
        images = [{"id": name, "file_name": name} for name in names]
        lookup = read(tmp_path, {"images": images, "annotations": rows} if form == "images" else rows)
    assert isinstance(lookup, Lookup)
    found = lookup.assign(["one/a.jpg", "two/a.jpg"])
    assert [listed and listed.boxes is not None and listed.boxes[0, 0] for listed in found] == [0, 1]


def test_a_photograph_does_not_get_the_people_of_another_one_of_its_name(tmp_path: Path) -> None:
    listed = read(tmp_path, {"images": [{"id": 1, "file_name": "train/1.jpg"}], "annotations": []})
    assert [people is None for people in listed.assign(["data/train/1.jpg", "data/test/1.jpg"])] == [False, True]
    assert listed.assign(["moved/1.jpg"]) != [None]  # by its name, where nobody else has it
    for name in ("old/1.jpg", "1.jpg", "00001.jpg"):
        known = [{"image_id": 1, "bbox": [0, 0, 9, 9]}]
        one = read(tmp_path, known) if name == "00001.jpg" else Lookup({name: Listed()})
        with pytest.raises(FasthgError, match=r"boxes of 1\.jpg are those of train/1\.jpg or of test/1\.jpg"):
            one.assign(["train/1.jpg", "test/1.jpg"])


def test_ids_are_matched_as_files_mix_them_and_no_two_images_have_one(tmp_path: Path) -> None:
    images = [{"id": "1", "file_name": "a.jpg"}, {"id": 2.0, "file_name": "b.jpg"}]
    rows = [{"image_id": i, "category_id": c, "bbox": [i, 0, 9, 9]} for i, c in ((1.0, "1"), (2, 1))]
    categories = [{"id": 1, "name": "person"}, {"id": "2", "name": "dog"}]
    lookup = read(tmp_path, {"images": images, "annotations": rows, "categories": categories})
    assert (people(lookup, "a.jpg"), people(lookup, "b.jpg")) == ([[1, 0, 9, 9]], [[2, 0, 9, 9]])
    with pytest.raises(FasthgError, match=r"a\.jpg and b\.jpg are both image 1; number them anew"):
        read(
            tmp_path, {"images": [{"id": 1, "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}], "annotations": []}
        )


def test_a_record_without_a_usable_box_is_left_out_and_named(tmp_path: Path) -> None:
    broken = [None, [], [1, 2, 3], [1, 2, float("nan"), 4], [1, 2, float("inf"), 4], "box", {}, [1, 2, 1e308, 1e308]]
    rows = [{"image_id": "a.jpg", "bbox": box, "iscrowd": "0"} for box in ([1, 2, 3, 4], *broken)]
    lookup = read(
        tmp_path, [*rows, {"image_id": "a.jpg"}, {"image_id": "a.jpg", "category_id": [1], "bbox": [0, 0, 1, 1]}]
    )
    assert people(lookup, "a.jpg") == [[1, 2, 3, 4]]
    assert lookup.ignored == {"without an area": 1, "of another category": 1}
    assert len(lookup.unusable) == 8
    assert "[4].bbox 1,2,nan,4 is not finite" in lookup.unusable[2]
    assert "[8].bbox 1,2,1e+308,1e+308 is larger than any photograph" in lookup.unusable[6]
    assert "[9] has no 'bbox'" in lookup.unusable[7]


@pytest.mark.parametrize(
    "written",
    ["my%20photo%20%C3%BC.jpg", "my photo u\u0308.jpg", "MY PHOTO Ü.JPG", "https://host/p/my%20photo%20%C3%BC.jpg?w=9"],
)
def test_a_file_name_is_known_as_tools_and_systems_write_it(tmp_path: Path, written: str) -> None:
    lookup = read(tmp_path, [{"image_id": written, "bbox": [1, 2, 3, 4]}])
    assert people(lookup, "photos/my photo \u00fc.jpg") == [[1, 2, 3, 4]]


@pytest.mark.parametrize("size", [("100", "60"), (100.0, 60.0)])
def test_the_size_of_the_labelled_image_is_a_number_however_it_is_written(
    tmp_path: Path, size: tuple[Any, Any]
) -> None:
    image = {"id": 1, "file_name": "a.jpg", "width": size[0], "height": size[1]}
    (listed,) = read(tmp_path, {"images": [image], "annotations": []}).assign(["a.jpg"])
    assert listed is not None
    assert listed.size == (100, 60)


@pytest.mark.parametrize("turn", [5, 6, 7, 8])
def test_boxes_of_the_stored_image_are_turned_with_it(turn: int) -> None:
    """Pillow turns the pixels; the box has to stay about the same ones."""
    stored = np.zeros((60, 100, 3), np.uint8)
    stored[10:30, 40:90] = 255  # x 40, y 10, 50 wide, 20 high
    exif = PIL.Image.Exif()
    exif[0x0112] = turn
    buffer = io.BytesIO()
    PIL.Image.fromarray(stored).save(buffer, "PNG", exif=exif)
    shown = np.asarray(PIL.ImageOps.exif_transpose(PIL.Image.open(buffer)))
    rows, columns = np.nonzero(shown[..., 0])
    expected = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
    turned = upright(np.array([[40.0, 10, 50, 20]]), (100, 60), (60, 100), turn, "a.png")
    assert turned.tolist() == [expected]


def test_boxes_of_an_image_of_another_size_are_refused() -> None:
    with pytest.raises(FasthgError, match="of an image of 50x30 pixels, the photograph has 60x100"):
        upright(np.array([[1.0, 2, 3, 4]]), (50, 30), (60, 100), 6, "a.png")
    with pytest.raises(FasthgError, match="give boxes in its pixels"):
        upright(np.array([[1.0, 2, 3, 4]]), (100, 60), (60, 100), 1, "a.png")


def test_boxes_of_the_shown_image_stay(tmp_path: Path) -> None:
    boxes = np.array([[1.0, 2, 3, 4]])
    assert upright(boxes, (60, 100), (60, 100), 6, "a.png") is boxes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": 3}, "no lists 'images' and 'annotations'"),
        ({"images": [{"id": 1}]}, r"images\[0\] has no 'file_name'"),
        ({"annotations": [{"image_id": 5, "bbox": [0, 0, 1, 1]}]}, "of image 5, which 'images' does not list"),
        ({"categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "dog"}]}, r"is called person \(car, dog\)"),
    ],
)
def test_box_files_with_missing_or_wrong_fields_are_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    document = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": []} | change
    (tmp_path / "boxes.json").write_text(json.dumps(document))
    with pytest.raises(FasthgError, match=message):
        read_coco_boxes(tmp_path / "boxes.json")


def test_boxes_of_the_command_line() -> None:
    assert np.array_equal(parse_boxes(["1,2,3,4", "5.5, 6,7,8"]), [[1, 2, 3, 4], [5.5, 6, 7, 8]])
    for text in ("1,2,3", "1,2,3,x", "1,2,3,4,5", ""):
        with pytest.raises(FasthgError, match="give x,y,w,h in pixels"):
            parse_boxes([text])
