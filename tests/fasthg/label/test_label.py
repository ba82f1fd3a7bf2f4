"""Labels by blocks: everything once, whatever is damaged or interrupted, and the joints that `predict` gives."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
import torch

import fasthg
from fasthg.cli.app import main
from fasthg.cli.label import with_address
from fasthg.errors import FasthgError
from fasthg.export.artefact import read_artefact, write_metadata
from fasthg.label import worker
from fasthg.network.checkpoint import save
from fasthg.network.variants import HourglassConfig
from fasthg.predict.photo import LeftOut, Photo
from fasthg.predict.sources import photos as predicted
from fasthg.predict.video import frames, length

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
from fasthg.label.items import Block, Item, cut_blocks, list_items  # noqa: E402  they need pyarrow
from fasthg.label.places import Place  # noqa: E402
from fasthg.label.rows import Row, read_rows  # noqa: E402
from fasthg.label.run import LabelOptions, label  # noqa: E402

SIZE = 64


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Seven photographs, one of which is damaged."""
    folder, rng = tmp_path / "photos", np.random.default_rng(0)
    folder.mkdir()
    for number in range(7):
        cv2.imwrite(str(folder / f"{number}.jpg"), rng.integers(0, 256, (50 + number, 60, 3), np.uint8))
    (folder / "3.jpg").write_bytes((folder / "3.jpg").read_bytes()[:40])
    return folder


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Thirty frames that differ, with a key frame every eight and frames that refer to later ones."""
    import av

    rng = np.random.default_rng(1)
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "8", "bf": "2", "sc_threshold": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(30):
            picture = cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (64, 48))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())
    return tmp_path / "clip.mp4"


def options(network: Path, **changes) -> LabelOptions:
    fixed = {"weights": network, "path": "eager", "device": "cpu", "size": SIZE, "batch_size": 2, "block": 3}
    return LabelOptions(**fixed | changes)


def rows(out: Path) -> list[Row]:
    return sorted(read_rows(Place(out)), key=lambda row: (row.image, row.pose.frame or 0 if row.pose else -1))


def test_every_photograph_has_the_joints_of_predict_or_a_reason(weights: Path, photos: Path, tmp_path: Path) -> None:
    counts = label([str(photos)], str(tmp_path / "out"), options(weights))
    assert (counts.images, counts.people, counts.left_out) == (6, 6, 1)
    found = rows(tmp_path / "out")
    assert [Path(row.image).name for row in found] == [f"{number}.jpg" for number in range(7)]
    assert found[3].pose is None
    assert "3.jpg" in (found[3].reason or "")
    good = [row.image for row in found if row.pose]
    predictor = fasthg.Predictor(weights, runtime="eager", device="cpu", size=SIZE, batch_size=2)
    for row, pose in zip((row for row in found if row.pose), predictor(good)):
        assert (row.image, row.pose.box, row.pose.whole_image) == (pose.image, pose.box, pose.whole_image)
        assert np.array_equal(row.pose.joints, pose.joints)
        assert np.array_equal(row.pose.scores, pose.scores)


def test_a_restart_does_what_is_left_and_nothing_twice(
    weights: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended in the second block; a photograph more, and other blocks, when it goes on."""
    out, write, calls = str(tmp_path / "out"), worker.Place.write, []

    def second_fails(place: Place, content: bytes) -> None:
        if "part-" in place.where:
            calls.append(place.where)
            if len(calls) == 2:
                raise KeyboardInterrupt
        write(place, content)

    with monkeypatch.context() as patch:
        patch.setattr(worker.Place, "write", second_fails)
        with pytest.raises(KeyboardInterrupt):
            label([str(photos)], out, options(weights))
    assert len(rows(tmp_path / "out")) == 3
    before = {path: path.read_bytes() for path in (tmp_path / "out").glob("part-*")}
    cv2.imwrite(str(photos / "1b.jpg"), np.full((40, 40, 3), 9, np.uint8))
    counts = label([str(photos)], out, options(weights, block=2))
    assert counts.images + counts.left_out == 5
    assert sorted(Path(row.image).name for row in rows(tmp_path / "out")) == sorted(p.name for p in photos.iterdir())
    assert all(path.read_bytes() == content for path, content in before.items())
    assert label([str(photos)], out, options(weights)).images == 0


def test_a_killed_run_leaves_no_half_block(weights: Path, photos: Path, tmp_path: Path) -> None:
    """Killed, not ended: nothing of the process runs any more."""
    code = (
        "import sys, os, signal\nfrom fasthg.files import os as files_os\nfrom fasthg.cli.app import main\n"
        "replace, done = os.replace, []\n"
        "def kill(a, b):\n    done.append(str(b))\n"
        "    if sum('part-' in name for name in done) == 2: os.kill(os.getpid(), signal.SIGKILL)\n    replace(a, b)\n"
        "files_os.replace = kill\nmain(sys.argv[1:])\n"
    )
    argv = ["label", str(photos), "-o", str(tmp_path / "out"), "--weights", str(weights), "--path", "eager"]
    argv += ["--block", "2", "--device", "cpu"]
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, timeout=200, check=False)
    assert done.returncode == -9, done.stderr
    assert len(rows(tmp_path / "out")) == 2
    assert main(argv) == 5
    assert [Path(row.image).name for row in rows(tmp_path / "out")] == [f"{number}.jpg" for number in range(7)]


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more", None])
def test_rows_that_are_damaged_or_of_something_else_are_named(
    weights: Path, photos: Path, tmp_path: Path, content: bytes | None
) -> None:
    label([str(photos)], str(tmp_path / "out"), options(weights))
    part = next((tmp_path / "out").glob("part-*"))
    if content is None:
        pq.write_table(pa.table({"other": [1]}), part)
    else:
        part.write_bytes(content)
    with pytest.raises(FasthgError, match=f"{part.name} holds no rows .*; delete it, and they are made again"):
        label([str(photos)], str(tmp_path / "out"), options(weights))
    part.unlink()
    label([str(photos)], str(tmp_path / "out"), options(weights))
    assert len(rows(tmp_path / "out")) == 7


def test_names_that_are_not_utf8_are_labelled(weights: Path, photos: Path, tmp_path: Path) -> None:
    os.rename(photos / "1.jpg", name := os.fsencode(photos) + b"/\xff.jpg")
    label([str(photos), os.fsdecode(name)], str(tmp_path / "out"), options(weights))
    found = [row for row in rows(tmp_path / "out") if row.pose]
    assert [Path(row.image).name for row in found] == ["0.jpg", "2.jpg", "4.jpg", "5.jpg", "6.jpg", "\\udcff.jpg"]


def test_a_list_of_paths_gives_each_person_a_row(weights: Path, photos: Path, tmp_path: Path) -> None:
    """Two people, a box outside the photograph, and one without a box; rows of a photograph lie apart."""
    columns = {
        "path": [str(photos / name) for name in ("0.jpg", "1.jpg", "0.jpg", "2.jpg", "1.jpg", "absent.jpg")],
        "x": [1.0, 2, 5, None, 500, None],
        "y": [1.0, 2, 5, None, 5, None],
        "w": [20.0, 30, 20, None, 20, None],
        "h": [30.0, 30, 20, None, 20, None],
    }
    pq.write_table(pa.table(columns), tmp_path / "people.parquet")
    counts = label([str(tmp_path / "people.parquet")], str(tmp_path / "out"), options(weights))
    assert (counts.people, counts.left_out) == (4, 2)
    found = rows(tmp_path / "out")
    boxes = [(Path(row.image).name, row.pose.box) for row in found if row.pose]
    wanted = [("0.jpg", (1, 1, 20, 30)), ("0.jpg", (5, 5, 20, 20))]
    assert boxes == [*wanted, ("1.jpg", (2, 2, 30, 30)), ("2.jpg", (0, 0, 60, 52))]
    reasons = [row.reason or "" for row in found if not row.pose]
    assert any("box 500,5,20,20 lies outside" in reason for reason in reasons)
    assert any("absent.jpg" in reason for reason in reasons)


@pytest.mark.parametrize("size", [4, 7, 30])
def test_the_ranges_of_a_video_are_its_frames_each_once(clip: Path, size: int) -> None:
    whole = [(photo.frame, photo.time, photo.load()) for photo in frames(clip, LeftOut(strict=True))]
    assert len(whole) == 30
    cut = []
    for start in range(0, 30, size):
        cut += frames(clip, LeftOut(strict=True), start, start + size if start + size < 30 else None)
    assert [(photo.frame, photo.time) for photo in cut] == [(number, time) for number, time, _pixels in whole]
    assert all(np.array_equal(photo.load(), pixels) for photo, (_number, _time, pixels) in zip(cut, whole))


def test_a_range_decodes_from_the_key_frame_before_it(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fasthg.predict import video

    skipped = []
    monkeypatch.setattr(video, "_frames", lambda *given: skipped.append(given[-1]) or iter(()))
    list(frames(clip, LeftOut(), 20, 24))
    assert skipped == [16]


def test_a_video_is_labelled_in_ranges_and_what_is_none_has_a_reason(weights: Path, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"\0\0\0\x18ftypmp42 and nothing more")
    sources = [str(clip), str(tmp_path / "film.mp4")]
    assert [(item.start, item.stop) for item in list_items(sources, 12)] == [(0, 12), (12, 24), (24, 30), (0, None)]
    counts = label(sources, str(tmp_path / "out"), options(weights, block=12, format="coco"))
    assert (counts.people, counts.left_out) == (30, 1)
    assert [row.pose.frame for row in rows(tmp_path / "out") if row.pose] == list(range(30))
    document = json.loads((tmp_path / "out" / "keypoints.json").read_text())
    assert [image["frame"] for image in document["images"]] == list(range(30))
    assert len(document["annotations"]) == 30


def test_a_video_without_a_stated_length_is_cut_into_ranges(weights: Path, clip: Path, tmp_path: Path) -> None:
    """As a browser records it: nothing knows how long it will be when its head is written."""
    import av

    live = tmp_path / "live.mkv"
    with av.open(str(clip)) as source, av.open(str(live), "w", format="matroska", options={"live": "1"}) as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    assert length(live) == 0
    assert [(item.start, item.stop) for item in list_items([str(live)], 12)] == [(0, 12), (12, 24), (24, 30)]
    assert label([str(live)], str(tmp_path / "out"), options(weights, block=12)).people == 30
    assert [row.pose.frame for row in rows(tmp_path / "out") if row.pose] == list(range(30))


def write_video(path: Path, count: int) -> None:
    """Frames that are key frames each, in a container that can be cut anywhere."""
    import av

    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream("mpeg2video", rate=25, options={"g": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(count):
            shade = np.full((48, 64, 3), 40 + 4 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shade, "rgb24")))
        container.mux(stream.encode())


def test_a_video_is_done_once_whatever_the_block_and_however_it_grows(weights: Path, tmp_path: Path) -> None:
    """The second run has other blocks and two more frames, the third begins another range."""
    film, out = tmp_path / "film.ts", tmp_path / "out"
    for total, block, more in ((14, 4, 14), (14, 6, 0), (15, 6, 1), (22, 3, 7), (22, 4, 0)):
        write_video(film, total)
        assert label([str(film)], str(out), options(weights, block=block)).people == more
        assert [row.pose.frame for row in rows(out) if row.pose] == list(range(total))


def test_what_comes_while_a_video_is_labelled_is_not_done_again(weights: Path, tmp_path: Path) -> None:
    film, out = tmp_path / "film.ts", tmp_path / "out"
    write_video(film, 6)
    (item,) = list_items([str(film)], 8)
    write_video(film, 11)
    answers = label([str(film)], str(out), options(weights, block=8))
    assert answers.people == 11
    for part in out.glob("part-*"):
        part.unlink()
    predictor = {"weights": weights, "runtime": "eager", "device": "cpu", "size": SIZE, "batch_size": 2}
    worker.Labeller(str(out), predictor).label(Block((item,), "part-0.parquet"))
    assert [row.pose.frame for row in rows(out) if row.pose] == list(range(11))
    assert label([str(film)], str(out), options(weights, block=8)).people == 0


def test_coco_has_a_frame_once_though_two_items_hold_it(weights: Path, tmp_path: Path) -> None:
    film, out = tmp_path / "film.ts", tmp_path / "out"
    write_video(film, 12)
    label([str(film)], str(out), options(weights, block=12))
    part = next(out.glob("part-*"))
    table = pq.read_table(part)
    other = table.set_column(0, "item", pa.array(["other"] * len(table)))
    pq.write_table(other, out / "part-other.parquet")
    label([str(film)], str(out), options(weights, block=12, format="coco"))
    assert len(json.loads((out / "keypoints.json").read_text())["annotations"]) == 12


def test_the_ranges_of_a_video_that_is_cut_off_end_with_it_and_say_so(weights: Path, tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "whole.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for _ in range(20):
            picture = np.full((48, 64, 3), 90, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())
    content = (tmp_path / "whole.avi").read_bytes()
    begin, end = content.index(b"movi"), content.rindex(b"idx1")
    (tmp_path / "cut.avi").write_bytes(content[: begin + (end - begin) // 2])
    counts = label([str(tmp_path / "cut.avi")], str(tmp_path / "out"), options(weights, block=4))
    assert 8 <= counts.people <= 10
    (reason,) = [row.reason or "" for row in rows(tmp_path / "out") if not row.pose and "cut off" in (row.reason or "")]
    assert "frames of 20 are kept" in reason


@pytest.mark.parametrize("name", ["a", "a.ppm", "a.jp2", "a.pcx", "a.ico"])
def test_a_photograph_is_told_as_predict_tells_it(tmp_path: Path, name: str) -> None:
    kinds = {"a": "JPEG", "a.jp2": "JPEG2000"}
    picture = PIL.Image.fromarray(np.full((64, 64, 3), 90, np.uint8))
    picture.save(tmp_path / name, kinds.get(name))
    by_predict = [photo.frame for photo in predicted([tmp_path / name])]
    assert [item.start for item in list_items([str(tmp_path / name)], 8)] == by_predict


def test_labels_of_a_release_that_did_not_keep_the_range_go_on(weights: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels"
    first = label([str(photos)], str(out), options(weights))
    about = json.loads((out / "label.json").read_text())
    del about["range"]
    (out / "label.json").write_text(json.dumps(about))
    assert first.images > 0
    assert label([str(photos)], str(out), options(weights)).images == 0


def test_the_results_are_no_source(
    weights: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `label * -o labels` names them the second time."""
    monkeypatch.chdir(tmp_path)
    label(["photos"], "labels", options(weights))
    assert label(["labels", "photos"], "labels", options(weights)).images == 0
    assert (
        label(["labels/part-*", "./labels/label.json", "photos"], str(tmp_path / "labels"), options(weights)).images
        == 0
    )
    with pytest.raises(FasthgError, match="nothing to label"):
        label(["labels"], "labels", options(weights))


def test_frames_are_let_go_of_as_they_are_labelled(
    weights: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[weakref.ref] = []
    alive: list[int] = []

    def watched(*asked: Any) -> Iterator[Photo]:
        for photo in frames(*asked):
            given.append(weakref.ref(photo))
            alive.append(sum(photo() is not None for photo in given))
            yield photo

    monkeypatch.setattr(worker, "frames", watched)
    predictor = {"weights": weights, "runtime": "eager", "device": "cpu", "size": SIZE, "batch_size": 2}
    found = worker.Labeller(str(tmp_path), predictor).rows(Block((Item(str(clip), None, 0, None),), "part"))
    assert [row.pose.frame for row in found if row.pose] == list(range(30))
    assert max(alive) < 20


def test_blocks_keep_their_names_while_nothing_of_them_is_done() -> None:
    items = [Item(f"{number}.jpg") for number in range(10)]
    blocks = list(cut_blocks(items, 4))
    assert [len(block.items) for block in blocks] == [4, 4, 2]
    left = list(cut_blocks(items, 4, frozenset({items[0].key})))
    assert [block.name for block in left[1:]] == [block.name for block in blocks[1:]]
    assert left[0].items == tuple(items[1:4])
    assert len({item.key for item in [*items, Item("0.jpg", ((1, 2, 3, 4),)), Item("0.jpg", None, 0, 4)]}) == 12


def test_what_does_not_fit_is_refused(weights: Path, photos: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    label([str(photos)], out, options(weights))
    torch.manual_seed(1)
    other = tmp_path / "other.safetensors"
    save(fasthg.HourglassNet(HourglassConfig(num_stacks=1, num_feats=8, depths=1, stem_feats=(8, 8))), other)
    for changes, message in (
        ({"weights": other}, "holds labels by other weights"),
        ({"flip": True}, "holds labels by other flip"),
        ({"path": "channels_last"}, "path, which was eager:fp32"),
    ):
        with pytest.raises(FasthgError, match=message):
            label([str(photos)], out, options(weights, **changes))
    with pytest.raises(FasthgError, match=r"holds other files and no label\.json"):
        label([str(photos)], str(photos), options(weights))
    for source in ("nowhere", str(tmp_path / "*.gif")):
        with pytest.raises(FasthgError, match=r"does not exist|nothing to label"):
            label([source], str(tmp_path / "new"), options(weights))
    pq.write_table(pa.table({"file": ["a.jpg"]}), tmp_path / "list.parquet")
    with pytest.raises(FasthgError, match="has columns file; give path"):
        label([str(tmp_path / "list.parquet")], str(tmp_path / "new2"), options(weights))


@pytest.mark.parametrize("alias", [False, True])
def test_nothing_of_the_output_folder_is_labelled_whatever_its_name(alias: bool, photos: Path) -> None:
    """`label *` finds the folder of a run before too, and a link to it."""
    out = photos / "labels"
    out.mkdir()
    shutil.copy(photos / "0.jpg", out / "overlay.jpg")
    (photos / "again").symlink_to(out)
    chosen = Place(photos / ("again" if alias else "labels"))
    for sources in ([str(photos)], [str(photos / name) for name in ("0.jpg", "labels", "again")]):
        assert not [item for item in list_items(sources, 10, chosen) if "overlay" in item.path]


def test_links_into_and_out_of_the_output_folder_are_what_they_are_called(photos: Path, tmp_path: Path) -> None:
    subset, out = tmp_path / "subset", photos / "labels"
    subset.mkdir()
    out.mkdir()
    (subset / "a.jpg").symlink_to(photos / "0.jpg")  # a photograph, though the results go to where it lies
    for source in (subset, subset / "*.jpg", subset / "a.jpg"):
        assert [item.path for item in list_items([str(source)], 10, Place(photos))] == [str(subset / "a.jpg")]
    (out / "o.jpg").symlink_to(subset / "a.jpg")  # a result, wherever it leads
    assert not [item for item in list_items([str(photos / "**" / "*.jpg")], 10, Place(out)) if "o.jpg" in item.path]


def test_an_exported_network_is_all_of_its_files_and_runs_by_its_own_path(photos: Path, tmp_path: Path) -> None:
    """OpenVINO's weights lie beside the model, which is the same for every network of one shape."""
    pytest.importorskip("openvino")
    net, one, other = tmp_path / "net.safetensors", tmp_path / "one", tmp_path / "other"
    save(fasthg.HourglassNet(HourglassConfig(num_stacks=1, num_feats=8, depths=1, stem_feats=(8, 8))), net)
    assert main(["export", "--openvino", "--fp32", "--size", "64", "--weights", str(net), "-o", str(one)]) == 0
    shutil.copytree(one, other)
    (other / "model.bin").write_bytes((one / "model.bin").read_bytes()[::-1])
    write_metadata(replace(read_artefact(one), folder=other, model=other / "model.xml"))
    changes = {"path": "auto", "size": None, "batch_size": 1}
    with pytest.raises(FasthgError, match="is run by openvino, not eager; leave the path out"):
        label([str(photos)], str(tmp_path / "out"), options(one, **changes | {"path": "eager"}))
    assert not (tmp_path / "out").exists()
    assert label([str(photos)], str(tmp_path / "out"), options(one, **changes)).people == 6
    with pytest.raises(FasthgError, match="holds labels by other weights"):
        label([str(photos)], str(tmp_path / "out"), options(other, **changes))


def test_ray_without_an_address_is_this_machine() -> None:
    assert with_address(["label", "a", "--ray", "-o", "b"]) == ["label", "a", "--ray", "local", "-o", "b"]
    assert with_address(["label", "a", "--ray"]) == ["label", "a", "--ray", "local"]
    assert with_address(["label", "a", "--ray", "h:1"]) == ["label", "a", "--ray", "h:1"]
    assert with_address(["predict", "--ray"]) == ["predict", "--ray"]
