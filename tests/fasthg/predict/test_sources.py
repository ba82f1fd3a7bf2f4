"""Whatever people hand over becomes photographs: every picture, every frame with its number and time, none swapped."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL.Image
import pytest
import torch
from numpy.typing import NDArray

from fasthg.errors import FasthgError
from fasthg.predict.photo import LeftOut, Photo
from fasthg.predict.sources import count_photos, expand, flatten, photos

SIZE = (96, 64)  # width, height


def picture(shade: int) -> NDArray[np.uint8]:
    """A picture that is told by its brightness, with a bright corner by which a turn is told."""
    pixels = np.full((SIZE[1], SIZE[0], 3), shade, np.uint8)
    pixels[:16, :32] = 255
    return pixels


def of(images: object, left_out: LeftOut | None = None) -> list[Photo]:
    return list(photos(list(flatten(images)), None, left_out))


def shades(found: list[Photo]) -> list[int]:
    """The brightness of each photograph's middle, to the next ten."""
    return [round(float(photo.load()[40, 60].mean()), -1).__int__() for photo in found]


def encoded(kind: str, image: PIL.Image.Image | None = None, **options: Any) -> bytes:
    buffer = io.BytesIO()
    (image or PIL.Image.fromarray(picture(100))).save(buffer, kind, **options)
    return buffer.getvalue()


def write_video(path: Path, codec: str, times: list[int], **options: str) -> None:
    """Frames of shade 40, 50, 60, ... shown at `times` in milliseconds."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=25 if str(path).endswith(".mxf") else 10, options=options)
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if codec not in ("mjpeg", "mpeg4", "mpeg1video", "mpeg2video", "flv1"):
            stream.codec_context.time_base = Fraction(1, 1000)
        for i, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(40 + 10 * (i % 20)), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            if stream.codec_context.time_base is not None:
                frame.pts = round(Fraction(time, 1000) / stream.codec_context.time_base)
                frame.time_base = stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_every_picture_of_a_file_is_given(tmp_path: Path, kind: str) -> None:
    frames = [PIL.Image.fromarray(picture(40 + 20 * i)) for i in range(4)]
    options = {} if kind == "TIFF" else {"duration": 250}
    frames[0].save(tmp_path / "a.dat", kind, save_all=True, append_images=frames[1:], **options)
    os.link(tmp_path / "a.dat", tmp_path / "a.jpg")  # as pages serve them
    assert [len(of(tmp_path / "a.jpg")), count_photos([tmp_path / "a.jpg"])] == [4, 4]
    found = of(tmp_path / "a.dat")
    assert [photo.frame for photo in found] == [0, 1, 2, 3]
    assert shades(found) == pytest.approx([40, 60, 80, 100], abs=10)
    assert [photo.time for photo in found] == ([None] * 4 if kind == "TIFF" else pytest.approx([0, 0.25, 0.5, 0.75]))
    for held in ((tmp_path / "a.dat").read_bytes(), (tmp_path / "a.dat").open("rb")):
        assert [(photo.frame, photo.time) for photo in of(held)] == [(photo.frame, photo.time) for photo in found]


def test_large_pages_are_decoded_when_their_turn_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fasthg.pixels.pictures._LARGE", 1)
    pages = [PIL.Image.fromarray(picture(40 + 20 * i)) for i in range(4)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    found = of(tmp_path / "a.tif")
    assert [photo.held for photo in found] == [0] * 4
    assert shades(found[::-1]) == [100, 80, 60, 40]


def test_a_thumbnail_in_a_tiff_and_the_other_pictures_of_a_jpeg_are_no_photographs(tmp_path: Path) -> None:
    page, small = PIL.Image.fromarray(picture(80)), PIL.Image.fromarray(picture(20)[::4, ::4])
    small.encoderinfo = {"tiffinfo": {254: 1}}
    page.save(tmp_path / "a.tif", save_all=True, append_images=[small])
    page.save(tmp_path / "b.jpg", "MPO", save_all=True, append_images=[small])
    assert shades(of(tmp_path / "a.tif")) == [80]
    assert shades(of(tmp_path / "b.jpg")) == [80]


@pytest.mark.parametrize("kind", ["ICO", "ICNS", "SGI", "PPM", "BMP", "DDS", "JPEG2000", "QOI"])
def test_a_picture_that_a_video_reader_opens_too_is_a_photograph(tmp_path: Path, kind: str) -> None:
    shown = PIL.Image.fromarray(picture(100)).resize((256, 256))
    (tmp_path / "a").write_bytes(encoded(kind, shown, **({"sizes": [(16, 16), (256, 256)]} if kind == "ICO" else {})))
    (photo,) = of(tmp_path / "a")
    assert photo.frame is None
    assert photo.load().shape[0] >= 256  # an icon's largest size


CONTAINERS = {
    "libx264": (".mp4", ".mkv", ".ts", ".mov"),
    "mpeg4": (".avi", ".nut", ".asf", ".3gp"),
    "mpeg2video": (".mpg", ".mxf"),
    "mjpeg": (".avi",),
    "flv1": (".flv",),
    "libvpx": (".webm",),
    "libvpx-vp9": (".webm",),
}


@pytest.mark.parametrize(("suffix", "codec"), [(end, codec) for codec, ends in CONTAINERS.items() for end in ends])
def test_a_container_is_told_by_its_content(tmp_path: Path, suffix: str, codec: str) -> None:
    write_video(tmp_path / f"a{suffix}", codec, [100 * i for i in range(8)])
    for name in ("film", "film.jpg", "film.txt"):
        os.replace(next(tmp_path.iterdir()), tmp_path / name)
        found = of(tmp_path / name)
        assert [photo.frame for photo in found] == list(range(8))
        assert found[0].time == pytest.approx(0, abs=1e-3)  # also where a stream's clock begins elsewhere
        assert shades(found) == pytest.approx([40 + 10 * i for i in range(8)], abs=12)


def test_a_variable_frame_rate_keeps_its_times(tmp_path: Path) -> None:
    times = [0, 100, 200, 1100, 2000, 2040, 5000]
    write_video(tmp_path / "a.mp4", "libx264", times)
    assert [photo.time for photo in of(tmp_path / "a.mp4")] == pytest.approx([time / 1000 for time in times])


@pytest.mark.parametrize(("suffix", "codec"), [(".avi", "mjpeg"), (".mp4", "libx264"), (".mkv", "mpeg4")])
@pytest.mark.parametrize("damaged", [0, 6, 11])
def test_a_damaged_packet_is_counted_and_the_other_frames_keep_their_numbers(
    tmp_path: Path, suffix: str, codec: str, damaged: int
) -> None:
    """Each frame is a key frame here, so that exactly the damaged one is missing."""
    path, options = tmp_path / f"a{suffix}", {"x264-params": "keyint=1"} if codec == "libx264" else {"g": "1"}
    write_video(path, codec, [100 * i for i in range(12)], **options)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        content = bytearray(path.read_bytes())
        for packet in packets[damaged : damaged + 1]:
            start = content.index(bytes(packet))
            content[start : start + packet.size] = (b"\xff" if codec == "libx264" else b"\0") * packet.size
    path.write_bytes(content)
    left_out = LeftOut()
    found = of(path, left_out)
    kept = [number for number in range(12) if number != damaged]
    assert [photo.frame for photo in found] == kept
    assert shades(found) == pytest.approx([40 + 10 * number for number in kept], abs=12)
    assert left_out.count == 1
    with pytest.raises(FasthgError, match="1 of 12 frames"):
        of(path, LeftOut(strict=True))


def test_frames_that_come_out_of_order_behind_damage_are_put_in_order(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", "libx264", [100 * i for i in range(30)], g="5")
    with av.open(str(tmp_path / "a.mp4")) as container:
        keys = [packet for packet in container.demux(video=0) if packet.size and packet.is_keyframe]
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    content[keys[2].pos : keys[2].pos + keys[2].size] = b"\xff" * keys[2].size
    (tmp_path / "a.mp4").write_bytes(content)
    left_out = LeftOut()
    found = of(tmp_path / "a.mp4", left_out)
    assert [photo.frame for photo in found] == [number for number in range(30) if number not in (10, 11, 12)]
    assert left_out.count == 3


def test_names_need_not_be_utf8(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", "libx264", [0, 100])
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/f\xffilm \xc3\xbc.mp4"))
    os.replace(tmp_path / "a.mp4", odd)
    assert len(of(odd)) == 2


def test_text_playlists_and_music_are_no_videos(tmp_path: Path) -> None:
    """A playlist names files and addresses, which FFmpeg would open."""
    (tmp_path / "secret.ts").write_bytes(b"G" * 188)
    (tmp_path / "notes.txt").write_text("hello, world\n" * 40)
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9.0,\nsecret.ts\n#EXT-X-ENDLIST\n")
    (tmp_path / "list.ffconcat").write_text("ffconcat version 1.0\nfile secret.ts\n")
    for name in ("notes.txt", "list.m3u8", "list.ffconcat"):
        (photo,) = of(tmp_path / name)
        with pytest.raises(FasthgError, match=f"{name} is neither a photograph nor a video"):
            photo.load()


def turned(number: int) -> PIL.Image.Image:
    image = PIL.Image.fromarray(picture(100))
    exif = PIL.Image.Exif()
    exif[0x0112] = number
    return PIL.Image.open(io.BytesIO(encoded("TIFF" if number == 8 else "PNG", image, exif=exif)))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "I", "F", "I;16"])
def test_pillow_images_of_every_mode_are_taken(mode: str) -> None:
    grey = PIL.Image.fromarray(picture(0 if mode == "1" else 100)[..., 0])
    if mode == "I;16":
        image = PIL.Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    else:
        image = (grey if mode in ("1", "L", "LA", "I", "F") else grey.convert("RGB")).convert(mode)
    assert shades(of(image)) == [0 if mode == "1" else 100]


@pytest.mark.parametrize("number", [3, 6, 8])
def test_a_pillow_image_is_turned_as_its_file_is(tmp_path: Path, number: int) -> None:
    image = turned(number)
    image.fp.seek(0)
    (tmp_path / "a.dat").write_bytes(image.fp.read())
    (by_file,), (by_image,) = of(tmp_path / "a.dat"), of(turned(number))
    assert np.array_equal(by_file.load(), by_image.load())
    corner = {3: (-1, -1), 6: (0, -1), 8: (-1, 0)}[number]
    assert by_image.load()[corner].min() == 255


JPEG = encoded("JPEG", quality=95)
FORMS: dict[str, tuple[Callable[[Path], object], int]] = {
    "bytes": (lambda path: JPEG, 1),
    "open file": (lambda path: path.open("rb"), 1),
    "BytesIO": (lambda path: io.BytesIO(JPEG), 1),
    "generator": (lambda path: (p for p in (path, path)), 2),
    "set": (lambda path: {path}, 1),
    "array of names": (lambda path: np.array([str(path)] * 3), 3),
    "mixed list": (lambda path: [path, JPEG, picture(100), PIL.Image.open(path)], 4),
    "[H, W]": (lambda path: picture(100)[..., 0] * 0 + 100, 1),
    "[H, W, 4]": (lambda path: np.dstack([picture(100), picture(9)[..., 0]]), 1),
    "[N, H, W, 3]": (lambda path: np.stack([picture(100)] * 3), 3),
    "uint16": (lambda path: picture(100).astype(np.uint16) * 257, 1),
    "uint16, big-endian": (lambda path: (picture(100).astype(np.uint16) * 257).astype(">u2"), 1),
    "float64": (lambda path: picture(100) / 255, 1),
    "tensor [N, 3, H, W]": (lambda path: torch.from_numpy(np.stack([picture(100)] * 2)).permute(0, 3, 1, 2), 2),
    "bfloat16": (lambda path: torch.full((3, *SIZE[::-1]), 100 / 255, dtype=torch.bfloat16), 1),
    "negative strides": (lambda path: picture(100)[:, ::-1][:, ::-1], 1),
}


@pytest.mark.parametrize("form", FORMS)
def test_whatever_holds_photographs_is_taken(tmp_path: Path, form: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(JPEG)
    make, count = FORMS[form]
    assert shades(of(make(path))) == [100] * count


def test_a_video_in_memory_or_an_open_one_gives_what_its_file_gives(tmp_path: Path) -> None:
    write_video(path := tmp_path / "a.mp4", "libx264", [0, 100, 200])
    wanted = [(photo.frame, photo.time, photo.load().mean()) for photo in of(path)]
    for held in (path.read_bytes(), path.open("rb")):
        assert [(photo.frame, photo.time, photo.load().mean()) for photo in of(held)] == wanted


def test_a_file_that_was_closed_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(JPEG)
    with (tmp_path / "a.jpg").open("rb") as file:
        pass
    (photo,) = of(file)
    with pytest.raises(FasthgError, match="closed file; open it again"):
        photo.load()


@pytest.mark.parametrize("thing", [None, 0, 1.5, {"a": 1}, [None], object()])
def test_what_is_no_image_is_named(thing: object) -> None:
    with pytest.raises(FasthgError, match="is no image; give photographs"):
        of(thing)


@pytest.mark.parametrize("form", ["sparse", "meta", "complex"])
def test_a_tensor_without_pixels_is_named(form: str) -> None:
    pixels = torch.rand(3, 8, 8)
    tensor = {"sparse": pixels.to_sparse(), "meta": pixels.to("meta"), "complex": pixels.to(torch.complex64)}[form]
    (photo,) = of([tensor])
    with pytest.raises(FasthgError, match="tensor is "):
        photo.load()


@pytest.mark.parametrize("name", ["https://example.com/a.jpg", "a\0b.jpg", "x" * 300 + ".jpg", "*.jpg", "~/a.jpg"])
def test_names_that_lead_nowhere_are_one_clear_error(name: str) -> None:
    with pytest.raises(FasthgError, match=r"download it first|give photographs"):
        of(name)


def test_hidden_files_of_a_folder_are_no_photographs_and_a_dead_link_is_one(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.gif", "c.HEIC", "._a.jpg", ".d.png", "notes.txt"):
        (tmp_path / name).write_bytes(JPEG)
    (tmp_path / "e.jpg").symlink_to(tmp_path / "absent.jpg")
    assert [path.name for path in expand([tmp_path])] == ["a.jpg", "b.gif", "c.HEIC", "e.jpg"]


def test_a_pipe_or_a_device_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    for path in (tmp_path / "a.jpg", Path("/dev/zero")):
        (photo,) = of(path)
        with pytest.raises(FasthgError, match="not a file"):
            photo.load()


def test_heic_is_read_upright(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    (tmp_path / "a.jpg").write_bytes(encoded("HEIF", quality=90))  # phones rename them
    assert shades(of(tmp_path / "a.jpg")) == [100]


def test_heic_names_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    (photo,) = of(tmp_path / "a.heic")
    with pytest.raises(FasthgError, match=r"HEIC needs pillow-heif; pip install 'fasthg\[heic\]'"):
        photo.load()
