"""The frames of a video, whatever its container: with their numbers and times, and without those that are damaged."""

from __future__ import annotations

import bisect
import io
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fasthg.errors import FasthgError
from fasthg.pixels.image import Image
from fasthg.predict.photo import LeftOut, Photo

if TYPE_CHECKING:
    import av

_WAITING = 4  # frames held back, since a decoder puts frames behind a damaged one out of order
_RATE = 25  # frames a second of a video that does not say
_BLOCK = 1 << 20  # bytes that are read at a time
_SURELY = 1.0  # seconds by which a stated duration may be off


@dataclass(frozen=True)
class Held:
    """A video in memory, under the name that records and errors give it."""

    name: str
    data: bytes

    def __str__(self) -> str:
        return self.name


Video = Path | Held


def opens(path: Video) -> bool:
    """Whether a file is a video."""
    try:
        _open(path).close()
    except FasthgError:
        return False
    return True


def length(path: Video) -> int:
    """Frames that a video says it has, or that its duration amounts to; 0 where it says neither."""
    with _open(path) as container:
        return _announced(container, _stream(container))


def count_packets(path: Video) -> int:
    """Packets of a video, which has to be read for it; as many frames, where none is damaged."""
    return len(_packets(path))


def frames(path: Video, left_out: LeftOut, start: int = 0, stop: int | None = None) -> Iterator[Photo]:
    """The frames of a video in the order of their times, up to where it ends or is cut off.

    A frame's number is its place among the packets, so that it stays the same where others are damaged. Those are named
    to `left_out`. From `start` on and up to `stop`, which is not among them, where that is asked for; they are decoded
    from the key frame before. Raises FasthgError where no frame can be had; a video of more packets than frames, as
    some interlaced ones are, may have none from `start` on.
    """
    yield from _frames(path, left_out, start, stop, _key_packet(path, start) if start else 0)


def _frames(path: Video, left_out: LeftOut, start: int, stop: int | None, skipped: int) -> Iterator[Photo]:
    """Frames, the first `skipped` packets not decoded."""
    count, last, decoder = 0, -1, _Decoder(skipped)
    with _open(path) as container:
        stream = _stream(container)
        begins = max(0, container.start_time or 0) / 1e6  # broadcasts count from elsewhere; players show this as 0
        rate = stream.average_rate or stream.guessed_rate or _RATE
        stream.thread_type = "AUTO"
        for number, frame in decoder.run(container, stream):
            if stop is not None and number >= stop:
                break
            if skipped and not decoder.by_time:  # its frames are counted, so that none may be skipped
                yield from _frames(path, left_out, max(start, last + 1), stop, 0)  # what was given is not given again
                return
            if number < start:
                continue
            time = float(number / rate) if frame.time is None else max(0.0, frame.time - begins)
            held = sum(plane.buffer_size for plane in frame.planes)
            yield Photo(str(path), _loader(path, number, frame), number, time, held=held)
            count, last = count + 1, number
        _tell(path, left_out, count, start, stop, decoder)
        kept = max(start, last + 1) if start else count
        if stop is None and (missing := decoder.missing(container, stream, kept)):
            known = f" of {max(decoder.packets, kept) + missing}" if stream.frames else ""
            left_out(f"{path} is cut off: the first {kept} frames{known} are kept", missing)


def _tell(path: Video, left_out: LeftOut, count: int, start: int, stop: int | None, decoder: _Decoder) -> None:
    """Name what is damaged among the frames that were asked for, of which there were `count`."""
    if count == 0 and (not start or decoder.by_time or decoder.problem):
        where = f" from {start} on" if start else ""
        raise FasthgError(f"{path} holds no whole frame{where} ({decoder.problem or 'empty'}); copy the video again")
    if start or stop is not None:
        wanted = (decoder.packets if stop is None else min(stop, decoder.packets)) - start
        if decoder.problem and wanted > count:
            lost = wanted - count
            left_out(f"{path}: {lost} of {wanted} frames from {start} on are damaged ({decoder.problem})", lost)
    elif lost := decoder.lost(count):
        known = max(decoder.packets, count)
        left_out(f"{path}: {lost} of {known} frames are damaged ({decoder.problem or 'no picture'})", lost)


class _Decoder:
    """Takes packets to frames, and counts those that give none."""

    def __init__(self, skipped: int = 0) -> None:
        self.skipped = skipped  # packets that are not decoded
        self.problem = ""  # what the last damaged packet was refused for
        self.packets = 0
        self._discarded = 0  # packets before the cut of an edited video, which are decoded and not shown
        self._broken = False  # whether the file ended in the middle of a packet
        self._ends = 0.0  # seconds at which the last packet of pictures ends, and the last of anything
        self._all_ends = 0.0
        self._errors = 0
        self._times: list[int] = []  # of packets, ascending
        self.by_time = True
        self._shown = -(1 << 63)  # the time of the last frame

    def lost(self, frames: int) -> int:
        """How many frames are missing of a video that gave `frames`; none where no packet was refused.

        A decoder that works on several packets at a time says nothing of the last ones.
        """
        if not self.by_time:
            return self._errors
        behind = len(self._times) - bisect.bisect_right(self._times, self._shown)
        return max(self._errors, self.packets - frames) if self._errors or behind else 0

    def missing(self, container: av.container.InputContainer, stream: Any, frames: int) -> int:
        """How many frames there would be beside `frames`, had the file not been cut off; 1 where it does not say.

        Sound may last longer than pictures, a last picture as long as any before, and an edit or a recorder that drops
        pictures leaves fewer than are announced: so it takes an end that is too early, too.
        """
        gaps = [float((after - before) * stream.time_base) for before, after in itertools.pairwise(self._times)]
        if not stream.frames:
            early = (container.duration or 0) / 1e6 - self._all_ends  # a container's duration is in microseconds
            return int(self._broken or early > max([_SURELY, *gaps]))
        missing = stream.frames - self._discarded - max(self.packets, frames)
        begins = float((stream.start_time or 0) * stream.time_base)
        early = float((stream.duration or 0) * stream.time_base) - (self._ends - begins)
        is_early = self._broken or stream.duration is None or early > 1.5 * max(gaps[-_WAITING:], default=0)
        return missing if missing > 1 and is_early else 0

    def run(self, container: av.container.InputContainer, stream: Any) -> Iterator[tuple[int, av.VideoFrame]]:
        """Each whole frame with its number from 0."""
        last = -1
        for frame in self._in_order(self._decoded(container, stream)):
            last = max(last + 1, self._place(frame) if self.by_time else 0)
            yield last, frame

    def _place(self, frame: av.VideoFrame) -> int:
        """How many packets are shown before a frame; -1 where the packets' times do not say."""
        if frame.pts is None or frame.interlaced_frame:  # a packet may be half a frame
            self.by_time = False
            return -1
        self._shown = max(self._shown, frame.pts)
        return bisect.bisect_left(self._times, frame.pts)

    def _decoded(self, container: av.container.InputContainer, stream: Any) -> Iterator[av.VideoFrame]:
        import av

        self.by_time = stream.codec_context.name not in ("vp8", "libvpx")  # has packets that are never shown
        packets = iter(container.demux())
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.error.FFmpegError as error:  # the file ends in the middle
                self.problem, self._broken = error.strerror or "cut off", True
                return
            shown = packet.dts if packet.pts is None else packet.pts
            ends = 0.0
            if shown is not None and packet.time_base:
                ends = float((shown + (packet.duration or 0)) * packet.time_base)
            self._all_ends = max(self._all_ends, ends)
            if packet.stream_index != stream.index:
                continue
            self._ends = max(self._ends, ends)
            self._discarded += packet.is_discard
            if packet.size and not packet.is_discard:
                self.packets += 1
                if packet.pts is not None:
                    bisect.insort(self._times, packet.pts)
                if self.packets <= self.skipped:
                    continue
            try:
                yield from packet.decode()  # type: ignore[misc]
            except av.error.EOFError:
                return
            except av.error.FFmpegError as error:
                self._errors += 1
                self.problem = error.strerror or "damaged"

    @staticmethod
    def _in_order(found: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        """The frames by their times, each held back for a few others; a clock that is set back starts anew."""
        waiting: list[tuple[int, int, av.VideoFrame]] = []
        last = None
        for arrival, frame in enumerate(found):
            if frame.pts is None or (last is not None and frame.pts < last):
                yield from (held for _pts, _arrival, held in waiting)
                waiting, last = [], frame.pts
            if frame.pts is None:
                yield frame
                continue
            bisect.insort(waiting, (frame.pts, arrival, frame))
            if len(waiting) > _WAITING:
                last, _arrival, held = waiting.pop(0)
                yield held
        yield from (held for _pts, _arrival, held in waiting)


def _key_packet(path: Video, start: int) -> int:
    """How many packets lie before the one to begin with, so that frame `start` is decoded whole; 0 to decode all."""
    packets = _packets(path)
    times = sorted(time for time, _key in packets if time is not None)
    if start >= len(times) or len(times) < len(packets):
        return 0
    return max((i for i, (time, key) in enumerate(packets) if key and time <= times[start]), default=0)  # type: ignore[operator]


def _packets(path: Video) -> list[tuple[int | None, bool]]:
    """The time of each packet, and whether it is a key frame."""
    import av

    packets: list[tuple[int | None, bool]] = []
    with _open(path) as container:
        try:
            for packet in container.demux(_stream(container)):
                if packet.size and not packet.is_discard:
                    packets.append((packet.pts, packet.is_keyframe))
        except av.error.FFmpegError:  # the file ends in the middle
            pass
    return packets


class _Nameless:
    """An open file for FFmpeg, which then goes by the content alone, takes any name, and opens nothing else."""

    def __init__(self, path: Video) -> None:
        self._file = io.BytesIO(path.data) if isinstance(path, Held) else open(path, "rb")  # noqa: SIM115
        self.read, self.seek, self.tell, self.close = (
            self._file.read,
            self._file.seek,
            self._file.tell,
            self._file.close,
        )


def _open(path: Video) -> av.container.InputContainer:
    import av

    file = _Nameless(path)
    try:
        # A playlist names other files and addresses: none is opened.
        container: av.container.InputContainer = av.open(  # type: ignore[assignment]
            file, "r", options={"protocol_whitelist": "file"}, buffer_size=_BLOCK
        )
    except (av.error.FFmpegError, ValueError) as error:
        file.close()
        reason = getattr(error, "strerror", None) or error
        raise FasthgError(
            f"{path} is neither a photograph nor a video that can be read ({reason}); give another, or copy it again"
        ) from None
    if not _streams(container):
        container.close()
        file.close()
        raise FasthgError(f"{path} has no pictures; give a video")
    return container


def _streams(container: av.container.InputContainer) -> list[Any]:
    """The streams of moving pictures that can be decoded; the cover of a piece of music is none."""
    from av.stream import Disposition

    moving = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    return [stream for stream in moving if stream.codec_context is not None]


def _stream(container: av.container.InputContainer) -> Any:
    return _streams(container)[0]


def _announced(container: av.container.InputContainer, stream: Any) -> int:
    if stream.frames or not container.duration or not stream.average_rate:
        return stream.frames
    return round(container.duration / 1e6 * stream.average_rate)  # a container's duration is in microseconds


def _loader(path: Video, number: int, frame: av.VideoFrame) -> Callable[[], Image]:
    """Gives a frame's pixels, upright: as decoded they take half the room of RGB, and threads convert them."""

    def load() -> Image:
        try:
            pixels = np.rot90(frame.to_ndarray(format="rgb24"), k=round(frame.rotation / 90) % 4)
        except (OSError, ValueError, MemoryError) as error:  # FFmpeg's errors are of these kinds
            raise FasthgError(f"{path}: frame {number} cannot be converted ({error})") from None
        return np.ascontiguousarray(pixels)

    return load
