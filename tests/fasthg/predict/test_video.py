"""Videos that are whole are not called cut off, whatever their containers announce, and no frame is given twice."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from fasthg.errors import FasthgError
from fasthg.predict.photo import LeftOut
from fasthg.predict.video import count_packets, frames

RATE = 25


def write(path: Path, codec: str, times: list[int], sound: float = 0, **options: str) -> None:
    """A picture at each of the times, in frames, and so many seconds of sound."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        heard: Any = container.add_stream("mp2", rate=48000) if sound else None
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), 40 + number, np.uint8), "rgb24")
            frame.pts, frame.time_base = time, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        for block in range(int(sound * 48000 / 1152)):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 2 * 1152), np.int16), "s16", "stereo")
            silence.sample_rate, silence.pts, silence.time_base = 48000, block * 1152, Fraction(1, 48000)
            container.mux(heard.encode(silence))
        for one in filter(None, (stream, heard)):
            container.mux(one.encode())


def copy(source: Path, target: Path, by: int = 0, **options: str) -> None:
    """The pictures of a video in another container, each shown so many frames earlier."""
    with av.open(str(source)) as held, av.open(str(target), "w", options=options) as container:
        stream = container.add_stream_from_template(held.streams.video[0])
        for packet in held.demux(video=0):
            if packet.size:
                shift = round(by / RATE / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                container.mux(packet)


def numbers(path: Path, start: int = 0, stop: int | None = None) -> list[int | None]:
    return [photo.frame for photo in frames(path, LeftOut(strict=True), start, stop)]


def test_a_video_that_was_trimmed_without_encoding_is_whole(tmp_path: Path) -> None:
    """Its first frames are there to be decoded, and are not shown."""
    write(tmp_path / "a.mp4", "libx264", list(range(50)), g="50", bf="0")
    copy(tmp_path / "a.mp4", tmp_path / "b.mp4", 20, avoid_negative_ts="disabled", use_editlist="1")
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert container.streams.video[0].frames == 50
    assert numbers(tmp_path / "b.mp4") == list(range(30))
    assert count_packets(tmp_path / "b.mp4") == 30


@pytest.mark.parametrize("suffix", [".mkv", ".ts", ".mp4", ".mpg"])
def test_sound_may_last_longer_than_the_pictures(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / f"a{suffix}", "mpeg2video" if suffix == ".mpg" else "mpeg4", list(range(20)), sound=3)
    assert numbers(tmp_path / f"a{suffix}") == list(range(20))


@pytest.mark.parametrize("suffix", [".mkv", ".ts", ".mp4"])
def test_a_variable_frame_rate_is_no_cut(tmp_path: Path, suffix: str) -> None:
    times = [*range(30), *range(30, 130, 10)]
    write(tmp_path / "a.mkv", "libx264", times, bf="0")
    copy(tmp_path / "a.mkv", tmp_path / f"b{suffix}")
    assert numbers(tmp_path / f"b{suffix}") == list(range(40))


def test_pictures_that_a_recorder_dropped_are_no_cut(tmp_path: Path) -> None:
    """AVI has no times: a picture that is not there takes a place."""
    write(tmp_path / "a.avi", "mpeg4", list(range(0, 60, 3)))
    with av.open(str(tmp_path / "a.avi")) as container:
        assert container.streams.video[0].frames > 50
    assert numbers(tmp_path / "a.avi") == list(range(20))


@pytest.mark.parametrize(("suffix", "sound"), [(".mkv", 0), (".mkv", 2), (".flv", 0)])
def test_a_file_that_ends_before_its_duration_is_cut_off(tmp_path: Path, suffix: str, sound: float) -> None:
    path = tmp_path / f"a{suffix}"
    write(path, "flv1" if suffix == ".flv" else "mpeg4", list(range(100)), sound)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(FasthgError, match=r"is cut off: the first [0-9]+ frames are kept"):
        numbers(path)
    start = count_packets(path) - 2
    with pytest.raises(FasthgError, match=f"is cut off: the first {start + 2} frames are kept"):
        numbers(path, start)


def write_mixed(path: Path, frames: int) -> None:
    """Progressive pictures, and as many interlaced ones behind them."""
    parts = []
    for flags in ({}, {"flags": "+ilme+ildct"}):
        part = path.with_name(f"part{len(parts)}.ts")
        with av.open(str(part), "w") as container:
            stream: Any = container.add_stream("mpeg2video", rate=RATE, options={"g": "10", "bf": "0"} | flags)
            stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
            graph = av.filter.Graph()
            graph.link_nodes(
                graph.add_buffer(width=96, height=64, format="yuv420p", time_base=Fraction(1, RATE)),
                graph.add("setfield", "tff" if flags else "prog"),
                graph.add("buffersink"),
            ).configure()
            for number in range(frames):
                frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), 40 + number, np.uint8), "rgb24")
                frame = frame.reformat(format="yuv420p")
                frame.pts, frame.time_base = number + len(parts) * (frames + 1), Fraction(1, RATE)
                graph.push(frame)
                container.mux(stream.encode(graph.pull()))
            container.mux(stream.encode())
        parts.append(part)
    both = path.with_name("both.ts")
    both.write_bytes(b"".join(part.read_bytes() for part in parts))
    copy(both, path)


def test_no_frame_is_given_twice_where_interlaced_pictures_begin(tmp_path: Path) -> None:
    write_mixed(tmp_path / "a.mp4", 30)
    found = [
        photo for start in (0, 20, 40) for photo in frames(tmp_path / "a.mp4", LeftOut(strict=True), start, start + 20)
    ]
    assert [photo.frame for photo in found] == list(range(60))
    assert [round(float(photo.load().mean())) for photo in found] == pytest.approx(
        [40 + n % 30 for n in range(60)], abs=2
    )
