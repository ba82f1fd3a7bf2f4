"""What OpenCV does not do: several pictures in one file, HEIC, Pillow's images, and a photograph's stored turn."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import PIL.Image
import PIL.ImageOps
from numpy.typing import NDArray

from fasthg.errors import FasthgError

Image = NDArray[np.uint8]  # [H, W, 3] RGB

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
#: How files of pictures begin; RIFF and ISO files say further on what they hold.
_SIGNATURES = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"BM", *_TIFF),
    *(b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"P7", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51", b"#?RADIANCE"),
    *(b"v/1\x01", b"\x59\xa6\x6a\x95", b"qoif", b"8BPS", b"DDS ", b"icns", b"\x01\xda"),
)
_ICONS = (b"\0\0\1\0", b"\0\0\2\0")  # of Windows; MPEG-4 without a container may begin so, too
_HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_AVIF = {b"avif", b"avis"}
_ONE = (b"\xff\xd8", b"BM")  # how files begin that hold one picture, whatever their name says
_SEVERAL = {"GIF", "PNG", "WEBP", "TIFF", "AVIF"}  # whose pictures are all wanted; a JPEG's others are depth and gain
_TIFF_KIND, _NOT_A_PAGE = 254, 0b101  # the tag NewSubfileType; bits for a reduced copy and for a mask of another page
_EXTRA, _OPACITY = 338, {1, 2}  # the tag ExtraSamples; its kinds that are opacity, multiplied in or not
_STORED = (256, 257)  # the tags of a TIFF's width and height
_PAUSE = 0.1  # seconds that browsers show a picture of an animation that gives it none
_LARGE = 1 << 22  # pixels of a page from which on it is decoded when its turn comes
_MOST_PIXELS = 1 << 30  # OpenCV's limit, for every reader; Pillow's own refuses phones' 200 megapixels
_TURN = 0x0112  # the EXIF tag Orientation
_opening = threading.Lock()
_few_large = threading.Semaphore(2)  # pages that are decoded at a time: Pillow takes several times their pixels


def is_picture(start: bytes) -> bool:
    """Whether a file that begins with `start` (32 bytes) is a picture, whatever its name says."""
    is_icon = start.startswith(_ICONS) and start[4:5] != b"\0" and start[5:6] == b"\0"  # how many sizes it holds
    is_webp = start[:4] == b"RIFF" and start[8:12] == b"WEBP"
    return start.startswith(_SIGNATURES) or is_icon or is_webp or is_heif(start)


def holds_one(start: bytes) -> bool:
    """Whether a picture that begins with `start` is of a kind that has no others."""
    return start.startswith(_ONE)


def is_tiff(start: bytes) -> bool:
    """Whether a file that begins with `start` is a TIFF, as most raw photographs are."""
    return start.startswith(_TIFF)


def is_heif(start: bytes) -> bool:
    """Whether a file that begins with `start` is HEIC or AVIF."""
    return start[4:8] == b"ftyp" and start[8:12] in _HEIC | _AVIF


def holds_several(data: bytes) -> int:
    """How many pictures a file's content holds that are all wanted; 1 where Pillow cannot tell."""
    try:
        image = open_picture(data)
        return max(1, len(_pages(image))) if image.format in _SEVERAL else 1
    except Exception:  # Pillow raises whatever its parsers meet; who decodes the file will say it
        return 1


def read_several(data: bytes, name: str | Path) -> Iterator[tuple[Callable[[], Image], float | None, int]]:
    """What gives each picture of a GIF, WebP, PNG, AVIF or TIFF [H, W, 3] uint8 RGB, upright, the second at which it is
    shown, and the bytes that it keeps in memory.

    A TIFF's pages have no time (None); its thumbnails and masks are left out. Large ones are decoded by whoever asks
    for them, so that they do not pile up. Raises FasthgError that names the file and the first picture that is damaged.
    """
    image, time = open_picture(data), 0.0
    animated = image.format != "TIFF"
    for number, page in enumerate(_pages(image)):
        load = partial(_page, data, name, number, page)
        try:
            image.seek(page)
            is_large = image.width * image.height >= _LARGE
        except Exception as error:
            raise _damaged(name, number, error) from None
        held = 0
        if animated or not is_large:
            pixels = load(image)
            load, held = partial(_same, pixels), pixels.nbytes
        yield load, time if animated else None, held
        time += float(image.info.get("duration") or 0) / 1e3 or _PAUSE


def _page(data: bytes, name: str | Path, number: int, page: int, image: Any = None) -> Image:
    """Picture `number` of a file, which Pillow counts as `page`; of `image`, where that stands there already."""
    try:
        if image is not None:
            return from_pillow(image)
        with _few_large:
            image = open_picture(data)
            image.seek(page)
            return from_pillow(image)
    except Exception as error:
        raise _damaged(name, number, error) from None


def _damaged(name: str | Path, number: int, error: Exception) -> FasthgError:
    return FasthgError(f"image {name}: picture {number} is damaged ({error}); copy the file again")


def _same(image: Image) -> Image:
    return image


def decode_with_pillow(data: bytes, name: str | Path) -> Image:
    """The first picture of a file's content [H, W, 3] uint8 RGB, upright; raises FasthgError that names the file."""
    if is_heif(data) and data[8:12] in _HEIC:
        _register_heic(name)
    try:
        return from_pillow(open_picture(data))
    except Exception as error:
        reason = f"{len(data)} bytes" if isinstance(error, PIL.UnidentifiedImageError) else str(error)
        raise FasthgError(f"image {name}: not an image that can be read ({reason}); give a JPEG or PNG") from None


def decode_tiff(data: bytes, name: str | Path) -> Image | None:
    """The first page of a TIFF's content as `decode_with_pillow` gives pictures; None where OpenCV reads it as well.

    OpenCV takes a reduced copy that stands before the page, and darkens a page by its opacity. Raises FasthgError where
    the page is damaged, or there is none.
    """
    try:
        image: Any = open_picture(data)
        _seek_page(image, name)
        if image.tell() == 0 and _OPACITY.isdisjoint(image.tag_v2.get(_EXTRA, ())):
            return None
    except FasthgError:
        raise
    except Exception:  # Pillow knows fewer kinds than OpenCV
        return None
    try:
        return from_pillow(image)
    except Exception as error:
        if image.tell() == 0:
            return None
        raise _damaged(name, image.tell(), error) from None


def from_pillow(image: PIL.Image.Image) -> Image:
    """A Pillow image of any mode as [H, W, 3] uint8 RGB, turned upright by its EXIF orientation; opacity is dropped."""
    if image.getexif().get(_TURN, 1) != 1:  # else Pillow would copy it
        image = PIL.ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):  # 16-bit grey and wider, which Pillow would cut off at 255
        grey = np.asarray(image).astype(np.float64)
        top = 1.0 if image.mode == "F" and grey.max(initial=0) <= 1 else 65535.0 if grey.max(initial=0) > 255 else 255.0
        grey = np.nan_to_num(grey / top).clip(0, 1) * 255
        return np.repeat(grey.round().astype(np.uint8)[..., None], 3, axis=2)
    if image.mode in ("La", "RGBa"):  # opacity multiplied in, which has one way out
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def picture_size(path: str | Path) -> tuple[int, int]:
    """Width and height of a photograph as `read_image` gives it, upright, of its header alone.

    Raises FasthgError that names a file that is missing or no image.
    """
    try:
        with open(path, "rb") as file:
            if (start := file.read(12))[8:] in _HEIC and is_heif(start):
                _register_heic(path)
            file.seek(0)
            image: Any = open_picture(file)
            _seek_page(image, path)
            stored = [image.tag_v2[tag] for tag in _STORED] if image.format == "TIFF" else image.size
            width, height = stored[::-1] if image.getexif().get(_TURN, 1) >= 5 else stored
            return width, height
    except FasthgError:
        raise
    except Exception as error:  # Pillow raises whatever its parsers meet
        reason = getattr(error, "strerror", None) or "not an image that can be read"
        raise FasthgError(f"image {path}: {reason}; check the name and the folder") from None


def stored_turn(data: bytes) -> int:
    """The EXIF orientation, 1 to 8, by which a photograph is turned upright when it is read; 1 where there is none."""
    try:
        image = open_picture(data)
        _seek_page(image, "")
        return int(image.getexif().get(_TURN, 1))
    except Exception:
        return 1


def open_picture(source: bytes | BinaryIO) -> PIL.Image.Image:
    """A file's content, or an open file, as a Pillow image that is decoded later."""
    with _opening:
        limit, PIL.Image.MAX_IMAGE_PIXELS = PIL.Image.MAX_IMAGE_PIXELS, None
        try:
            image: Any = PIL.Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
        finally:
            PIL.Image.MAX_IMAGE_PIXELS = limit
    if image.width * image.height > _MOST_PIXELS:
        raise ValueError(f"{image.width}x{image.height} pixels, {_MOST_PIXELS} at most")
    return image


def _pages(image: Any) -> list[int]:
    """The numbers by which Pillow finds the pictures of a file that are pages of their own; a TIFF may have none."""
    kept = []
    for page in range(getattr(image, "n_frames", 1)):
        if image.format == "TIFF":
            image.seek(page)
        if _is_page(image):
            kept.append(page)
    return kept


def _is_page(image: Any) -> bool:
    """Whether a file stands at a page, not at a reduced copy or a mask of another one, which only TIFFs have."""
    return image.format != "TIFF" or not int(image.tag_v2.get(_TIFF_KIND, 0)) & _NOT_A_PAGE


def _seek_page(image: Any, name: str | Path) -> None:
    """Have a file that was opened stand at its first page; raises FasthgError where it has none."""
    if not _is_page(image):
        if not (pages := _pages(image)):
            raise FasthgError(f"image {name}: holds only a reduced copy; convert the raw photograph to TIFF or JPEG")
        image.seek(pages[0])


def _register_heic(name: str | Path) -> None:
    try:
        import pillow_heif
    except ImportError:
        raise FasthgError(f"image {name}: HEIC needs pillow-heif; pip install 'fasthg[heic]'") from None
    pillow_heif.register_heif_opener()
