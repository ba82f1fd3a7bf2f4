"""Labels of videos by ranges of their frames: each once, however long they are, cut off or growing."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fasthg.label import worker
from fasthg.predict.photo import LeftOut, Photo
from fasthg.predict.video import frames, length

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
from fasthg.label.items import Block, Item, list_items  # noqa: E402  they need pyarrow
from fasthg.label.run import label  # noqa: E402
from tests.fasthg.label.running import SIZE, options, rows  # noqa: E402


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
