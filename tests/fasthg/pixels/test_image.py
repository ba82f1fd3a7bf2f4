"""Photographs that can be read, and those that must not pass for one."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
import torch
from numpy.typing import NDArray

from fasthg.errors import FasthgError
from fasthg.pixels.image import normalise, read_crop, read_image
from fasthg.pixels.pictures import picture_size


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint8]:
    """Smooth RGB picture [60, 90, 3], red growing to the right and blue downwards."""
    columns, rows = np.meshgrid(np.linspace(0, 255, 90), np.linspace(0, 255, 60))
    return np.stack([columns, np.full_like(rows, 40), rows], axis=-1).astype(np.uint8)


def encode(picture: NDArray[np.uint8], kind: str, *options: int) -> bytes:
    return cv2.imencode(kind, np.ascontiguousarray(picture[..., ::-1]), list(options))[1].tobytes()


@pytest.mark.parametrize("kind", [".png", ".jpg", ".webp", ".bmp"])
def test_channels_are_red_green_blue(tmp_path: Path, picture: NDArray[np.uint8], kind: str) -> None:
    path = tmp_path / f"picture{kind}"
    path.write_bytes(encode(picture, kind))
    image = read_image(path)
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - picture).max() <= (0 if kind in (".png", ".bmp") else 40)
    assert np.abs(image.astype(int) - picture).mean() < 4


def test_grey_and_transparent_pictures_become_three_channels(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    cv2.imwrite(str(tmp_path / "grey.png"), picture[..., 0])
    cv2.imwrite(str(tmp_path / "alpha.png"), np.dstack([picture[..., ::-1], picture[..., 0]]))
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), np.repeat(picture[..., :1], 3, axis=2))
    np.testing.assert_array_equal(read_image(tmp_path / "alpha.png"), picture)


def test_a_photograph_taken_upright_is_read_upright(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # turn clockwise to show
    PIL.Image.fromarray(picture).save(tmp_path / "upright.jpg", exif=exif, quality=95)
    image = read_image(tmp_path / "upright.jpg")
    assert np.abs(image.astype(int) - np.rot90(picture, -1)).mean() < 4


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_the_size_of_a_header_is_that_of_the_photograph_as_it_is_read(
    tmp_path: Path, picture: NDArray[np.uint8], kind: str, turn: int
) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = turn
    PIL.Image.fromarray(picture).save(tmp_path / "a", kind, exif=exif)
    height, width = read_image(tmp_path / "a").shape[:2]
    assert picture_size(tmp_path / "a") == (width, height) == ((60, 90) if turn >= 5 else (90, 60))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_the_opacity_of_a_tiff_does_not_darken_it(tmp_path: Path, picture: NDArray[np.uint8], mode: str) -> None:
    image = PIL.Image.fromarray(np.dstack([picture, picture[..., 0]])).convert(mode)
    image.save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), np.asarray(image.convert("RGB")))


def test_the_reduced_copy_in_a_tiff_is_not_taken_for_the_photograph(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    full, small = PIL.Image.fromarray(picture), PIL.Image.fromarray(np.ascontiguousarray(picture[::4, ::4]))
    full.encoderinfo = {"tiffinfo": {254: 0}}
    small.save(tmp_path / "first.tif", tiffinfo={254: 1}, save_all=True, append_images=[full])
    np.testing.assert_array_equal(read_image(tmp_path / "first.tif"), picture)
    assert picture_size(tmp_path / "first.tif") == (90, 60)
    small.save(tmp_path / "raw.nef", "TIFF", tiffinfo={254: 1})
    for read in (read_image, picture_size):
        with pytest.raises(FasthgError, match=r"raw\.nef: holds only a reduced copy; convert the raw photograph"):
            read(tmp_path / "raw.nef")


@pytest.mark.parametrize("progressive", [0, 1])
def test_jpegs_cut_short_anywhere_are_refused(tmp_path: Path, picture: NDArray[np.uint8], progressive: int) -> None:
    data = encode(picture, ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)
    for share in (0.999, 0.9, 0.6, 0.3, 0.02):
        path = tmp_path / "cut.jpg"
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(FasthgError, match=r"cut\.jpg: (the file is cut short|not an image)"):
            read_image(path)


def test_a_cut_jpeg_is_refused_though_its_thumbnail_is_whole(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    thumbnail, data = encode(picture[::4, ::4], ".jpg"), encode(picture, ".jpg")
    segment = b"Exif\0\0" + thumbnail
    whole = data[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + data[2:]
    path = tmp_path / "photo.jpg"
    path.write_bytes(whole + b"\0" * 16)  # some cameras pad the file
    assert read_image(path).shape == (60, 90, 3)
    path.write_bytes(whole[:-40])
    with pytest.raises(FasthgError, match="cut short"):
        read_image(path)


def test_real_photographs_are_read_whole_and_refused_cut(tmp_path: Path, mpii_dir: Path) -> None:
    for photograph in sorted((mpii_dir / "images").glob("*.jpg"))[:3]:
        assert read_image(photograph).shape[2] == 3
        cut = tmp_path / photograph.name
        cut.write_bytes(photograph.read_bytes()[:-1000])
        with pytest.raises(FasthgError, match=f"{photograph.name}: the file is cut short"):
            read_image(cut)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "not an image"), (b"hello, world", "not an image"), (b"\x89PNG\r\n\x1a\n1234", "cut short")],
)
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "notes.jpg"
    path.write_bytes(content)
    with pytest.raises(FasthgError, match=rf"notes\.jpg: .*{message}"):
        read_image(path)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(FasthgError, match=r"absent\.jpg: No such file"):
        read_image(tmp_path / "absent.jpg")
    with pytest.raises(FasthgError, match="Is a directory"):
        read_image(tmp_path)


def test_crop_holds_the_person_and_its_map_leads_there(tmp_path: Path) -> None:
    photograph = np.zeros((300, 400, 3), np.uint8)
    photograph[148:152, 248:252] = 255  # a white dot about (250, 150)
    cv2.imwrite(str(tmp_path / "dot.png"), photograph)
    crop, matrix = read_crop(tmp_path / "dot.png", [240.0, 140.0], 0.8, size=128)
    assert crop.shape == (128, 128, 3)
    rows, columns = np.nonzero(crop[..., 0] > 100)
    expected = matrix @ [250, 150, 1]
    assert [columns.mean() + 0.5, rows.mean() + 0.5] == pytest.approx(list(expected), abs=0.5)


@pytest.mark.parametrize("as_tensor", [False, True])
def test_network_input_is_colour_in_0_to_1_less_the_mean(as_tensor: bool) -> None:
    crops = np.zeros((2, 4, 6, 3), np.uint8)
    crops[1, 2, 3] = (255, 51, 102)
    images = normalise(torch.tensor(crops) if as_tensor else crops)
    assert images.shape == (2, 3, 4, 6)
    assert images.dtype == torch.float32
    assert images.is_contiguous()
    assert images[1, :, 2, 3].tolist() == pytest.approx([1 - 0.4404, 0.2 - 0.4440, 0.4 - 0.4327], abs=1e-6)
    assert images[0, :, 0, 0].tolist() == pytest.approx([-0.4404, -0.4440, -0.4327], abs=1e-6)
    assert crops[1, 2, 3, 0] == 255, "the crops themselves stay as they are"


@pytest.mark.parametrize("behind", [b"\0" * 16, bytes(range(256)) * 40, b"\xff\xda\xff", b"\xff\xd8\xff\xda"])
@pytest.mark.parametrize("kind", [".jpg", ".png"])
def test_what_stands_behind_a_whole_picture_does_not_matter(
    tmp_path: Path, picture: NDArray[np.uint8], kind: str, behind: bytes
) -> None:
    """Phones append a video to a photograph, editors leave what a screenshot held before it was cropped."""
    data, path = encode(picture, kind), tmp_path / f"a{kind}"
    path.write_bytes(data)
    whole = read_image(path)
    path.write_bytes(data + behind)
    np.testing.assert_array_equal(read_image(path), whole)
    path.write_bytes(data[: len(data) // 2] + behind)
    if b"\xff\xd9" not in behind:
        with pytest.raises(FasthgError, match=r"cut short|not an image"):
            read_image(path)


@pytest.mark.parametrize(("width", "height"), [(16320, 12240), (50000, 4000)])
def test_two_hundred_megapixels_are_read_and_cropped(tmp_path: Path, width: int, height: int) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    image[3000:3600, width - 900 : width - 300] = 255
    cv2.imwrite(str(tmp_path / "big.jpg"), image)
    crop, matrix = read_crop(tmp_path / "big.jpg", [width - 600.0, 3300 - 15 * 8], 8.0, size=100)
    x, y = matrix @ [width - 600, 3300, 1]
    assert (x, y) == pytest.approx((50, 50))
    rows, columns = np.nonzero(crop[..., 0] > 128)
    assert (columns.mean() + 0.5, rows.mean() + 0.5) == pytest.approx((x, y), abs=0.6)
