"""Labelled projects of other tools: told by content, read with their own points, boxes and splits."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from fasthg.data.dataset import load_dataset
from fasthg.data.projects import find_format
from fasthg.data.reading import Reading, hold_out
from fasthg.errors import FasthgError
from fasthg.pixels.skeleton import COCO, CROWDPOSE

NAMES = ("snout", "leftear", "rightear")


def picture(path: Path, width: int = 40, height: int = 30) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.zeros((height, width, 3), np.uint8))


def deeplabcut(folder: Path, individuals: tuple[str, ...] = ("",), frames: int = 2) -> Path:
    """A project whose point j of frame f and animal a is at (f + 10 j, 5 + a); the last frame lacks the snout."""
    several = individuals != ("",)
    key = "multianimalbodyparts" if several else "bodyparts"
    (folder / "config.yaml").write_text(
        f"Task: mouse\nscorer: me\n{key}:\n- snout\n- leftear\n- rightear\nbodyparts: {list(NAMES)}\n"
        "skeleton:\n- - snout\n  - leftear\n- - snout\n  - nowhere\n"
    )
    table = folder / "labeled-data" / "clip" / "CollectedData_me.csv"
    for frame in range(frames):
        picture(table.parent / f"img{frame}.png")
    columns = [(who, name, axis) for who in individuals for name in NAMES for axis in "xy"]
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["scorer", *("me" for _ in columns)])
        if several:
            writer.writerow(["individuals", *(who for who, *_ in columns)])
        writer.writerow(["bodyparts", *(name for _who, name, _axis in columns)])
        writer.writerow(["coords", *(axis for *_, axis in columns)])
        for frame in range(frames):
            row = [
                frame + 10 * NAMES.index(name) if axis == "x" else 5 + individuals.index(who)
                for who, name, axis in columns
            ]
            hidden = frame == frames - 1
            writer.writerow(
                [f"labeled-data/clip/img{frame}.png", *("" if hidden and i < 2 else v for i, v in enumerate(row))]
            )
    return folder


def test_a_deeplabcut_project_is_whole_images_with_its_own_points(tmp_path: Path) -> None:
    data = load_dataset(deeplabcut(tmp_path), "all")
    people, skeleton = data.people, data.people.skeleton
    assert (skeleton.name, skeleton.names, skeleton.pairs, skeleton.limbs) == ("mouse", NAMES, ((2, 1),), ((0, 1),))
    np.testing.assert_array_equal(
        people.joints[0], [(0.5, 5.5), (10.5, 5.5), (20.5, 5.5)]
    )  # pixel j's centre is j + 0.5
    assert people.labelled.tolist() == [[True] * 3, [False, True, True]]
    assert 200 * people.scale[0] == 40  # the longer side of the image
    assert str(data.protocol) == "PCK-image@0.02"
    assert "mirrored pairs: rightear-leftear" in data.summary
    assert "5 labelled points" in data.summary


def test_several_animals_of_one_image_have_a_box_each(tmp_path: Path) -> None:
    data = load_dataset(deeplabcut(tmp_path, ("a", "b")), "all")
    assert data.people.images == ("labeled-data/clip/img0.png",) * 2 + ("labeled-data/clip/img1.png",) * 2
    assert data.people.joints[:2, 1, 1].tolist() == [5.5, 6.5]
    assert 200 * data.people.scale[0] == pytest.approx(1.3 * 20)
    assert str(data.protocol) == "PCK-box@0.1"


def test_openfields_two_tables_agree(openfield: Path, tmp_path: Path) -> None:
    """The HDF5 file is pandas' own with pickled column names, which are read without unpickling."""
    (tmp_path / "labeled-data" / "m4s1").mkdir(parents=True)
    (tmp_path / "config.yaml").write_bytes((openfield / "config.yaml").read_bytes())
    for file in (openfield / "labeled-data" / "m4s1").glob("*"):
        if file.suffix != ".csv":
            (tmp_path / "labeled-data" / "m4s1" / file.name).symlink_to(file)
    by_h5, by_csv = load_dataset(tmp_path, "all"), load_dataset(openfield, "all")
    assert (len(by_csv), by_csv.people.skeleton.names) == (116, ("snout", "leftear", "rightear", "tailbase"))
    assert by_h5.people.images == by_csv.people.images
    np.testing.assert_allclose(by_h5.people.joints, by_csv.people.joints)
    np.testing.assert_array_equal(by_csv.people.joints[0, 0], [22.021, 265.928])  # its file's first row, plus 0.5
    held_out = load_dataset(openfield, "val")
    assert len(held_out) == 20
    assert [Path(name).name for name in held_out.people.images[:2]] == ["img0000.png", "img0006.png"]


def test_a_fixed_pandas_table_is_read_too(tmp_path: Path) -> None:
    deeplabcut(tmp_path)
    folder = tmp_path / "labeled-data" / "clip"
    (folder / "CollectedData_me.csv").unlink()
    with h5py.File(folder / "CollectedData_me.h5", "w") as file:
        group = file.create_group("df_with_missing")
        for level, (texts, codes) in enumerate(
            [([b"me"], [0] * 6), ([b"leftear", b"rightear", b"snout"], [2, 2, 0, 0, 1, 1]), ([b"x", b"y"], [0, 1] * 3)]
        ):
            group[f"block0_items_level{level}"], group[f"block0_items_label{level}"] = texts, codes
        for level, texts in enumerate([[b"labeled-data"], [b"clip"], [b"img0.png"]]):
            group[f"axis1_level{level}"], group[f"axis1_label{level}"] = texts, [0]
        group["block0_values"] = [[1.0, 2, 3, 4, 5, 6]]
    people = load_dataset(tmp_path, "all").people
    np.testing.assert_array_equal(people.joints[0], [(1.5, 2.5), (3.5, 4.5), (5.5, 6.5)])


def coco_document(categories: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> dict[str, Any]:
    images = [{"id": 7, "file_name": "a.png", "width": 40, "height": 30}, {"id": 8, "file_name": "b.png"}]
    return {"images": images, "annotations": annotations, "categories": categories}


CAT = {"id": 1, "name": "cat", "keypoints": ["nose", "ear_L", "ear_R"], "skeleton": [[1, 2], [1, 9]]}
BIRD = {"id": 2, "name": "bird", "keypoints": ["beak", "tail"], "skeleton": []}


def coco_project(folder: Path) -> Path:
    annotations = [
        {"image_id": 7, "category_id": 1, "bbox": [2, 4, 10, 20], "keypoints": [3, 5, 2, 0, 0, 0, 4, 6, 1]},
        {"image_id": 7, "category_id": 1, "bbox": [0, 0, 9, 9], "keypoints": [1] * 9, "iscrowd": 1},
        {"image_id": 8, "category_id": 1, "keypoints": [10, 10, 2, 20, 15, 2, 0, 0, 0]},
        {"image_id": 8, "category_id": 2, "bbox": [1, 1, 8, 8], "keypoints": [1, 1, 2, 5, 5, 2]},
        {"image_id": 8, "category_id": 1, "bbox": [1, 1, 8, 8], "keypoints": [0] * 9},
    ]
    for name in "ab":
        picture(folder / "images" / f"{name}.png")
    (folder / "labels.json").write_text(json.dumps(coco_document([CAT, BIRD], annotations)))
    return folder


def test_one_of_several_kinds_of_a_coco_file_is_chosen(tmp_path: Path) -> None:
    with pytest.raises(FasthgError, match="the categories cat, bird have different points; choose one with --category"):
        load_dataset(coco_project(tmp_path), "all")
    with pytest.raises(FasthgError, match="no category 'dog' with keypoints; choose one of cat, bird"):
        load_dataset(tmp_path, "all", reading=Reading("dog"))
    people = load_dataset(tmp_path, "all", reading=Reading("cat")).people
    assert (len(people), people.skeleton.pairs, people.skeleton.limbs) == (2, ((2, 1),), ((0, 1),))
    np.testing.assert_array_equal(people.joints[0], [(3.5, 5.5), (np.nan, np.nan), (4.5, 6.5)])
    assert people.visible[0].tolist() == [True, False, False]
    assert 200 * people.scale[0] == 20  # of its box; the second has none, and a square about its points
    assert 200 * people.scale[1] == pytest.approx(1.3 * 10)
    assert len(load_dataset(tmp_path, "all", reading=Reading("2")).people.skeleton) == 2


@pytest.mark.parametrize("turn", [5, 6, 7, 8])
def test_labels_of_a_photograph_as_it_is_stored_are_turned_with_it(tmp_path: Path, turn: int) -> None:
    """Pillow turns the pixels: one white pixel has to stay under its point."""
    stored = np.zeros((30, 40, 3), np.uint8)
    stored[7, 21] = 255
    exif = PIL.Image.Exif()
    exif[0x0112] = turn
    PIL.Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    row, column = np.argwhere(PIL.ImageOps.exif_transpose(PIL.Image.open(tmp_path / "a.png")).convert("L"))[0]
    annotation = {"image_id": 7, "category_id": 1, "bbox": [20, 5, 10, 4], "keypoints": [21, 7, 2, 0, 0, 0, 0, 0, 0]}
    (tmp_path / "labels.json").write_text(json.dumps(coco_document([CAT], [annotation])))
    people = load_dataset(tmp_path, "all").people
    assert people.joints[0, 0].tolist() == [column + 0.5, row + 0.5]
    x, y = people.center[0] + (0, 15 * people.scale[0])  # of the box
    assert (x - column, y - row) == {5: (0, 4), 6: (1, 4), 7: (1, -3), 8: (0, -3)}[turn]


def test_no_two_images_of_a_coco_file_have_one_number(tmp_path: Path) -> None:
    document = json.loads((coco_project(tmp_path) / "labels.json").read_text())
    document["images"].append({"id": 7, "file_name": "c.png"})
    (tmp_path / "labels.json").write_text(json.dumps(document))
    with pytest.raises(FasthgError, match=r"a\.png and c\.png are both image 7; number them anew"):
        load_dataset(tmp_path, "all", reading=Reading("cat"))


def test_a_coco_file_of_windows_finds_its_images(tmp_path: Path) -> None:
    text = (coco_project(tmp_path) / "labels.json").read_text()
    (tmp_path / "labels.json").write_text(text.replace('"a.png"', '"images\\\\a.png"'))
    assert load_dataset(tmp_path, "all", reading=Reading("cat"), check_files=False).people.images[0] == "images/a.png"


def test_pairs_can_be_given(tmp_path: Path) -> None:
    people = load_dataset(coco_project(tmp_path), "all", reading=Reading("bird", pairs="beak:tail")).people
    assert people.skeleton.pairs == ((0, 1),)
    assert load_dataset(tmp_path, "all", reading=Reading("cat", pairs="none")).people.skeleton.pairs == ()
    with pytest.raises(FasthgError, match=r"pair 'beak:wing': give right:left of the points beak, tail, or none"):
        load_dataset(tmp_path, "all", reading=Reading("bird", pairs="beak:wing"))


def test_two_coco_files_say_the_split(tmp_path: Path) -> None:
    annotation = {"image_id": 7, "category_id": 2, "bbox": [1, 1, 8, 8], "keypoints": [1, 1, 2, 5, 5, 2]}
    for split in ("train", "valid"):  # as Roboflow exports them
        picture(tmp_path / split / "a.png")
        (tmp_path / split / "_annotations.coco.json").write_text(json.dumps(coco_document([BIRD], [annotation])))
    assert load_dataset(tmp_path, "train").people.images == ("train/a.png",)
    assert load_dataset(tmp_path, "val").people.images == ("valid/a.png",)
    (tmp_path / "more.json").write_text(json.dumps(coco_document([BIRD], [annotation])))
    with pytest.raises(FasthgError, match="all have keypoints; give one of them, or name two train and val"):
        load_dataset(tmp_path, "all")


def yolo_project(folder: Path, yaml: str) -> Path:
    for split in ("train", "val"):
        picture(folder / split / "images" / "a.png")
        (folder / split / "labels").mkdir()
        (folder / split / "labels" / "a.txt").write_text(
            "0 0.5 0.5 0.5 0.4 0.25 0.5 2 0.75 0.5 1\n1 0.5 0.5 1 1 0 0 0 0 0 0\n"
        )
    (folder / "data.yaml").write_text(yaml)
    return folder


def test_a_yolo_folder_has_shares_of_the_image_and_its_own_split(tmp_path: Path) -> None:
    yaml = "train: train/images\nval: val/images\nkpt_shape: [2, 3]\nflip_idx: [1, 0]\nnames: {0: fish, 1: crab}\n"
    with pytest.raises(FasthgError, match="choose one of the classes fish, crab with --category"):
        load_dataset(yolo_project(tmp_path, yaml), "all")
    data = load_dataset(tmp_path, "val", reading=Reading("fish"))
    assert data.people.images == ("val/images/a.png",)
    np.testing.assert_array_equal(data.people.joints[0], [(10, 15), (30, 15)])  # of 40 x 30 pixels
    assert data.people.skeleton.pairs == ((1, 0),)
    assert 200 * data.people.scale[0] == pytest.approx(20)
    np.testing.assert_allclose(data.people.center[0] + (0, 15 * data.people.scale[0]), (20, 15))  # of the crop
    assert data.people.visible[0].tolist() == [True, False]


def test_coordinates_that_are_not_x_and_y_are_named(tmp_path: Path) -> None:
    table = deeplabcut(tmp_path) / "labeled-data" / "clip" / "CollectedData_me.csv"
    table.write_text(table.read_text().replace("coords,x,y,x,y,x,y", "coords,x,y,x,likelihood,x,y"))
    with pytest.raises(FasthgError, match=r"CollectedData_me\.csv: 'coords' are not x and y alone"):
        load_dataset(tmp_path, "all")


@pytest.mark.parametrize("number", ["nan", "0.5", "inf"])
def test_a_label_of_no_class_is_named(tmp_path: Path, number: str) -> None:
    folder = yolo_project(tmp_path, "train: train/images\nval: val/images\nkpt_shape: [2, 3]\nnames: {0: fish}\n")
    (folder / "val" / "labels" / "a.txt").write_text(f"{number} 0.5 0.5 0.5 0.4 0.25 0.5 2 0.75 0.5 1\n")
    with pytest.raises(FasthgError, match="line 1 has no number of a class"):
        load_dataset(folder, "all")


def test_a_folder_that_windows_and_a_mac_wrote_is_read(tmp_path: Path) -> None:
    """A mark before the text, and ._NAME beside NAME; a photograph that is damaged is left out."""
    folder = yolo_project(tmp_path, "train: train/images\nval: val/images\nkpt_shape: [2, 3]\n")
    before = load_dataset(folder, "all").people
    for file in [*folder.rglob("*.txt"), *folder.rglob("*.yaml")]:
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    image = folder / "train" / "images" / "a.png"
    image.with_name(f"._{image.name}").write_bytes(b"\0\5\x16\7")
    after = load_dataset(folder, "all").people
    np.testing.assert_array_equal(before.joints, after.joints)
    image.write_bytes(b"")
    assert load_dataset(folder, "all").people.images == ("val/images/a.png",)


def sleap_project(folder: Path) -> None:
    sio = pytest.importorskip("sleap_io")
    nodes = [sio.Node(name) for name in NAMES]
    skeleton = sio.Skeleton(nodes, edges=[(nodes[0], nodes[1])], symmetries=[sio.Symmetry([nodes[1], nodes[2]])])
    skeleton.name = "mouse"
    picture(folder / "clip" / "img0.png")
    video = sio.Video.from_filename([str(folder / "clip" / "img0.png")])
    instance = sio.Instance.from_numpy(np.array([(1.0, 2.0), (3.0, 4.0), (np.nan, np.nan)]), skeleton=skeleton)
    frame = sio.LabeledFrame(video=video, frame_idx=0, instances=[instance])
    sio.save_slp(sio.Labels([frame]), str(folder / "labels.slp"))


def test_sleaps_labels_bring_their_frames_and_symmetries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTHG_CACHE", str(tmp_path / "cache"))
    sleap_project(tmp_path)
    data = load_dataset(tmp_path, "all")
    assert (data.people.skeleton.names, data.people.skeleton.pairs) == (NAMES, ((2, 1),))
    np.testing.assert_array_equal(data.people.joints[0], [(1.5, 2.5), (3.5, 4.5), (np.nan, np.nan)])
    assert 200 * data.people.scale[0] == 40
    assert data.image_path(0).is_file()


def test_sleaps_frames_without_a_cache_are_written_once_and_go_with_the_process(tmp_path: Path) -> None:
    sleap_project(tmp_path)
    script = """
import sys
from fasthg.data.dataset import find_people, load_dataset
first, second = (load_dataset(sys.argv[1], "all") for _time in range(2))
assert find_people(first, second).all()
"""
    (tmp_path / "tmp").mkdir()
    environment = os.environ | {"FASTHG_CACHE": str(tmp_path / "labels.slp" / "cache"), "TMPDIR": str(tmp_path / "tmp")}
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=environment, check=True)
    assert not list((tmp_path / "tmp").iterdir())


def test_what_is_none_of_them_is_named_with_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(FasthgError, match=r"nor config.yaml with bodyparts \(DeepLabCut\); data.yaml .* \(COCO\)"):
        load_dataset(tmp_path, "all")


@pytest.mark.parametrize(
    ("rule", "expected"), [("every3", [0, 3]), ("0.5@1", None), ("LIST", [1, 2]), ("every1", [0, 1, 2, 3, 4])]
)
def test_images_are_held_out_by_step_share_or_list(rule: str, expected: list[int] | None, tmp_path: Path) -> None:
    images = [f"clip/{i}.png" for i in range(5)]
    (tmp_path / "list.txt").write_text("clip/1.png\n2.png\n", encoding="utf-8-sig")  # as Windows writes it
    held, _how = hold_out([*images, images[3]], rule.replace("LIST", str(tmp_path / "list.txt")))
    assert held[3] == held[5]  # subjects of one image stay together
    if expected is None:
        assert held[:5].sum() == 2
        assert (held == hold_out([*images, images[3]], rule)[0]).all()
    else:
        assert np.flatnonzero(held[:5]).tolist() == expected


@pytest.mark.parametrize(
    "rule",
    [
        "every0",
        "every0.5",
        "everyinf",
        "every" + 5000 * "9",
        "0.0",
        "0.x",
        "0.2e999",
        "0.2@inf",
        "0.2@1.5",
        "nowhere.txt",
    ],
)
def test_a_rule_that_is_none_is_named(rule: str) -> None:
    with pytest.raises(FasthgError, match="holdout"):
        hold_out(["a.png"], rule)


def counted(path: Path) -> tuple[int, int, int]:
    """Subjects and labelled points of a COCO file, and its points in a subject, counted from the JSON alone."""
    document = json.loads(path.read_text())
    flags = [
        a["keypoints"][2::3] for a in document["annotations"] if not a.get("iscrowd") and any(a["keypoints"][2::3])
    ]
    return len(flags), sum(flag > 0 for row in flags for flag in row), len(flags[0])


@pytest.mark.parametrize(
    "name",
    [
        *("coco/test_coco", "coco/test_coco_wholebody", "coco/test_keypoint_partition_metric"),
        *("crowdpose/test_crowdpose", "ap10k/test_ap10k", "animalpose/test_animalpose"),
        *("horse10/test_horse10", "fly/test_fly"),
    ],
)
def test_every_real_file_has_what_its_json_says(keypoints: Path, name: str) -> None:
    file = keypoints / f"{name}.json"
    people = load_dataset(file, "all").people
    assert (len(people), int(people.labelled.sum()), len(people.skeleton)) == counted(file)
    known: dict[str, Any] = {"coco": COCO, "crowdpose": CROWDPOSE}
    if len(people.skeleton) < 133:  # which names the first 17 alone
        assert people.skeleton == known.get(name.partition("/")[0], people.skeleton)


@pytest.mark.parametrize("make", [deeplabcut, coco_project])
def test_the_format_of_a_path_is_told_by_content(make: Callable[[Path], Path], tmp_path: Path) -> None:
    found = find_format(make(tmp_path))
    assert found is not None
    assert make.__name__.partition("_")[0] in found.looked_for.lower()
