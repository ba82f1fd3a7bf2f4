"""What `predict` writes: never an input, nothing over an earlier result unasked, everything but what cannot be read."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import sys
import unicodedata
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest

import fasthg
from fasthg.errors import FasthgError
from fasthg.network.variants import HourglassConfig
from fasthg.predict import command
from fasthg.predict.boxes import read_coco_boxes
from fasthg.predict.command import Written, predict_to_folder


@pytest.fixture(scope="module")
def net(tiny_config: HourglassConfig) -> fasthg.HourglassNet:
    return fasthg.HourglassNet(tiny_config).eval()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    path = tmp_path / "photos" / "a.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (80, 60, 3), dtype=np.uint8))
    return path


def contents(folder: Path) -> dict[Path, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def run(net: fasthg.HourglassNet, inputs: list[Path], folder: Path, **options: Any) -> Written:
    return predict_to_folder(inputs, folder, weights=net, size=64, runtime="eager", **options)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("link", ["none", "symbolic", "hard", "folder"])
def test_an_input_is_never_written_to(
    net: fasthg.HourglassNet, photo: Path, tmp_path: Path, link: str, overwrite: bool
) -> None:
    """The overlay of a.png is called a.png: in its own folder, or where a link by that name leads back to it."""
    out = {"none": photo.parent, "folder": tmp_path / "other"}.get(link, tmp_path / "out")
    if link == "folder":
        out.symlink_to(photo.parent, target_is_directory=True)
    elif link != "none":
        out.mkdir()
        (os.symlink if link == "symbolic" else os.link)(photo, out / "a.png")
    before = contents(photo.parent)
    written = run(net, [photo.parent], out, overwrite=overwrite)
    assert contents(photo.parent).items() >= before.items()
    assert sorted(path.name for path in written.files) == ["a-2.png", "predictions.json"]


@pytest.mark.parametrize("name", ["keypoints.json", "predictions.json"])
def test_the_boxes_that_are_read_are_not_written_to_either(
    net: fasthg.HourglassNet, photo: Path, tmp_path: Path, name: str
) -> None:
    boxes = tmp_path / name
    boxes.write_text('[{"image_id": "a.png", "bbox": [0, 0, 50, 50]}]')
    with pytest.raises(FasthgError, match=f"cannot write .*{name}: this command reads it"):
        run(net, [photo], tmp_path, formats=["json", "coco"], keep=[boxes], overwrite=True)
    assert json.loads(boxes.read_text())[0]["image_id"] == "a.png"


def test_an_earlier_result_is_replaced_only_where_that_is_asked_for(
    net: fasthg.HourglassNet, photo: Path, tmp_path: Path
) -> None:
    run(net, [photo], tmp_path / "out")
    before = contents(tmp_path / "out")
    for number in (2, 3):
        assert {file.parent for file in run(net, [photo], tmp_path / "out").files} == {tmp_path / f"out-{number}"}
    assert contents(tmp_path / "out") == before
    (tmp_path / "out" / "notes.txt").write_text("mine")
    run(net, [photo], tmp_path / "out", overwrite=True, flip=True)
    after = contents(tmp_path / "out")
    assert after.keys() == before.keys() | {tmp_path / "out" / "notes.txt"}
    assert after[tmp_path / "out" / "predictions.json"] != before[tmp_path / "out" / "predictions.json"]


@pytest.mark.parametrize("name", ["n" * 251 + ".png", "ü" * 126 + ".x"])
def test_a_name_that_is_too_long_for_an_overlay_is_cut(
    net: fasthg.HourglassNet, photo: Path, tmp_path: Path, name: str
) -> None:
    os.replace(photo, photo.with_name(name))
    for _again in range(2):
        written = run(net, [photo.with_name(name)], photo.parent, formats=[" JSON", "json"], overwrite=True)
    assert len(os.fsencode(written.files[1].name)) <= 255
    assert all(file.is_file() for file in written.files)
    assert written.files[1].name[:20] == name[:20]


def test_a_result_that_appears_meanwhile_is_not_replaced(
    net: fasthg.HourglassNet, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when `xargs -P` starts several commands with one output."""
    write_poses = command.write_poses

    def beside_another(*given: Any) -> list[Path]:
        (tmp_path / "out" / "predictions.json").write_text("of another process")
        return write_poses(*given)

    monkeypatch.setattr(command, "write_poses", beside_another)
    written = run(net, [photo], tmp_path / "out")
    assert {file.parent for file in written.files} == {tmp_path / "out-2"}
    assert all(file.is_file() for file in written.files)
    assert (tmp_path / "out" / "predictions.json").read_text() == "of another process"
    assert sorted(os.listdir(tmp_path / "out")) == ["predictions.json"]


def test_a_photograph_that_goes_away_keeps_its_pose(
    net: fasthg.HourglassNet, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = command.Overlays.add
    monkeypatch.setattr(command.Overlays, "add", lambda *given: (photo.unlink(), add(*given)))
    written = run(net, [photo], tmp_path / "out")
    assert ([file.name for file in written.files], written.left_out) == (["predictions.json"], 1)


def test_a_box_of_any_size_is_drawn(net: fasthg.HourglassNet, photo: Path, tmp_path: Path) -> None:
    for size in (1e-9, 1e9, 1e300):
        assert run(net, [photo], tmp_path / "out", boxes=np.array([[0, 0, size, size]])).left_out == 0


def test_overlays_that_would_share_a_name_get_their_own(net: fasthg.HourglassNet, photo: Path, tmp_path: Path) -> None:
    shutil.copy(photo, photo.with_name("A.PNG"))  # one file where case does not count
    shutil.copy(photo, photo.with_name("a.bmp"))
    for form in ("NFC", "NFD"):  # one name on a Mac
        shutil.copy(photo, photo.with_name(unicodedata.normalize(form, "ü.png")))
    written = run(net, [photo.parent], tmp_path / "out")
    names = [unicodedata.normalize("NFC", path.name.lower()) for path in written.files]
    assert len(set(names)) == len(names) == 6


def test_what_cannot_be_read_is_left_out_and_the_rest_is_kept(
    net: fasthg.HourglassNet, photo: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = photo.parent
    (folder / "cut.png").write_bytes(photo.read_bytes()[:2000])
    (folder / "text.jpg").write_text("not an image")
    (folder / "empty.gif").write_bytes(b"")
    (folder / "dead.jpg").symlink_to(folder / "absent.jpg")
    (folder / "._a.png").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        ")
    (folder / "film.mp4").write_bytes(b"\0\0\0\x18ftypmp42 and nothing more")
    with caplog.at_level("WARNING", "fasthg"):
        written = run(net, [folder, folder / "film.mp4"], tmp_path / "out", batch_size=3)
    assert written.left_out == 5
    for name in ("cut.png", "text.jpg", "empty.gif", "dead.jpg", "film.mp4"):
        assert sum(name in line for line in caplog.messages) == 1
    assert sorted(path.name for path in written.files) == ["a.png", "predictions.json"]
    with pytest.raises(FasthgError, match=r"cut\.png"):
        run(net, [folder], tmp_path / "strict", strict=True)
    assert not (tmp_path / "strict").exists()


def test_one_box_of_several_outside_the_only_photograph_is_left_out(
    net: fasthg.HourglassNet, photo: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    boxes = np.array([[5.0, 5, 30, 40], [9000, 0, 10, 10]])
    with caplog.at_level("WARNING", "fasthg"):
        written = run(net, [photo], tmp_path / "out", boxes=boxes)
    assert (written.left_out, len(json.loads(written.files[0].read_text())["predictions"])) == (1, 1)
    assert any("box 9000,0,10,10 lies outside" in line for line in caplog.messages)
    with pytest.raises(FasthgError, match="box 9000,0,10,10 lies outside"):
        run(net, [photo], tmp_path / "alone", boxes=boxes[1:])


def test_the_people_of_a_films_frames_are_predicted_again_in_them(
    net: fasthg.HourglassNet, photo: Path, tmp_path: Path
) -> None:
    pages = [PIL.Image.fromarray(np.full((40, 50, 3), shade, np.uint8)) for shade in (10, 90, 200)]
    pages[0].save(tmp_path / "film.gif", save_all=True, append_images=pages[1:], duration=40)
    film = [tmp_path / "film.gif"]
    options: dict[str, Any] = {"formats": ["coco"], "overlays": False}
    (first,) = run(net, film, tmp_path / "first", boxes=np.array([[5.0, 5, 30, 30]]), **options).files
    (again,) = run(net, film, tmp_path / "again", boxes=read_coco_boxes(first), **options).files
    for file in (first, again):
        assert [row["image_id"] for row in json.loads(file.read_text())["annotations"]] == [1, 2, 3]


def test_a_raw_photographs_reduced_copy_is_left_out(
    net: fasthg.HourglassNet, photo: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    PIL.Image.open(photo).save(photo.with_name("raw.tif"), tiffinfo={254: 1})
    with caplog.at_level("WARNING", "fasthg"):
        assert run(net, [photo.parent], tmp_path / "out").left_out == 1
    assert "holds only a reduced copy; convert the raw photograph" in caplog.text


def test_nothing_is_written_where_nothing_can_be_read(net: fasthg.HourglassNet, photo: Path, tmp_path: Path) -> None:
    photo.write_bytes(b"")
    shutil.copy(photo, photo.with_name("b.png"))
    with pytest.raises(FasthgError, match=r"nothing could be predicted: all .* left out \(2, named above\)"):
        run(net, [photo.parent], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_times_of_an_animation_are_in_every_format_and_in_its_overlay(
    net: fasthg.HourglassNet, tmp_path: Path
) -> None:
    import av

    frames = [PIL.Image.fromarray(np.full((61, 83, 3), shade, np.uint8)) for shade in (10, 200, 90)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=[100, 1500, 300])
    run(net, [tmp_path / "a.gif"], tmp_path / "out", formats=["json", "csv", "coco", "mat"])
    records = json.loads((tmp_path / "out" / "predictions.json").read_text())["predictions"]
    assert [(record["frame"], record["time"]) for record in records] == [(0, 0), (1, 0.1), (2, 1.6)]
    rows = list(csv.DictReader((tmp_path / "out" / "predictions.csv").open()))
    assert [float(row["time"]) for row in rows] == [0, 0.1, 1.6]
    images = json.loads((tmp_path / "out" / "keypoints.json").read_text())["images"]
    assert [image["time"] for image in images] == [0, 0.1, 1.6]
    with av.open(str(tmp_path / "out" / "a.mp4")) as container:
        assert [frame.time for frame in container.decode(video=0)] == pytest.approx([0, 0.1, 1.6])


def test_a_stack_of_pages_gets_an_overlay_each(net: fasthg.HourglassNet, tmp_path: Path) -> None:
    pages = [PIL.Image.fromarray(np.full((40 + 9 * i, 50, 3), 90, np.uint8)) for i in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    written = run(net, [tmp_path / "a.tif"], tmp_path / "out")
    assert [path.name for path in written.files] == ["predictions.json", "a-0.png", "a-1.png", "a-2.png"]
    assert cv2.imread(str(written.files[3])).shape == (58, 50, 3)


def test_names_that_are_not_utf8_are_kept(net: fasthg.HourglassNet, photo: Path, tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(photo.parent) + b"/f\xff\xc3\xbc .png"))
    os.replace(photo, odd)
    written = run(net, [odd.parent], tmp_path / "out", formats=["json", "csv", "coco", "mat", "dlc", "sleap"])
    assert json.loads(written.files[0].read_text())["predictions"][0]["image"] == str(odd)
    assert written.files[-1].name == odd.name
    assert "f\\udcffü .png" in (tmp_path / "out" / "predictions.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize(("format", "library"), [("mat", "scipy"), ("dlc-h5", "tables"), ("sleap", "h5py")])
def test_a_library_that_a_format_needs_is_missed_before_the_work(
    format: str, library: str, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights are missing, too, and are looked for later."""
    if library == "tables":
        pytest.importorskip("pandas")  # asked for before
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ModuleNotFoundError, match=library):
        predict_to_folder([photo], tmp_path / "out", formats=["json", format], weights=tmp_path / "absent.safetensors")


@pytest.mark.parametrize("format", ["dlc", "dlc-h5", "sleap"])
def test_a_video_among_others_is_refused_for_a_table_before_the_work(format: str, photo: Path, tmp_path: Path) -> None:
    pages = [PIL.Image.fromarray(np.full((40, 50, 3), shade, np.uint8)) for shade in (10, 200)]
    pages[0].save(tmp_path / "film.gif", save_all=True, append_images=pages[1:], duration=40)
    for others in ([photo], [tmp_path / "film.gif"]):
        with pytest.raises(FasthgError, match=r"film\.gif and others in one table.*predict one video at a time"):
            predict_to_folder(
                [*others, tmp_path / "film.gif"],
                tmp_path / "out",
                formats=["json", format],
                weights=tmp_path / "absent.safetensors",
            )


def test_why_there_is_nobody_is_the_true_reason(net: fasthg.HourglassNet, photo: Path, tmp_path: Path) -> None:
    person = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 50, 50]}
    for change, message in (
        ({"iscrowd": 1}, "the file's boxes are 1 of a crowd"),
        ({"category_id": 2}, "the file's boxes are 1 of another category"),
        ({"bbox": [5, 5, 0, 9]}, "the file's boxes are 1 without an area"),
        ({"bbox": [500, 5, 10, 9]}, r"all that was given is left out \(1, named above\)"),
    ):
        document = {
            "images": [{"id": 1, "file_name": "a.png"}],
            "annotations": [person | change],
            "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}],
        }
        (tmp_path / "boxes.json").write_text(json.dumps(document))
        with pytest.raises(FasthgError, match=message):
            run(net, [photo], tmp_path / "out", boxes=read_coco_boxes(tmp_path / "boxes.json"))
        assert not (tmp_path / "out").exists()
