"""LSP and its extended set: 14 joints into MPII's places, a square about them, and everybody's splits."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io

from fasthg.data.annotations import read_annotations
from fasthg.data.dataset import load_dataset
from fasthg.data.matlab import read_mat
from fasthg.data.protocols import LSP_PROTOCOLS, PCKH
from fasthg.errors import FasthgError
from fasthg.pixels import geometry
from fasthg.pixels.skeleton import MPII

#: The order of the sets' own README, in MPII's names.
ORDER = ["rank", "rkne", "rhip", "lhip", "lkne", "lank", "rwri", "relb", "rsho", "lsho", "lelb", "lwri", "neck", "head"]


def write_extended(folder: Path, count: int = 9_000) -> Path:
    """People in a row: joint j of person i at (10 i + 3 j, 5 j + 2), 0-based, all labelled."""
    person, joint = np.meshgrid(np.arange(count), np.arange(14))
    joints = np.stack([10.0 * person + 3 * joint, 5.0 * joint + 2, np.ones(person.shape)], axis=1)
    scipy.io.savemat(folder / "joints.mat", {"joints": joints})
    return folder / "joints.mat"


def spoil(path: Path, person: int, labelled: list[str]) -> None:
    """Leave a person these joints; the others get the places outside the photograph that the real file has."""
    joints = scipy.io.loadmat(path)["joints"]
    for i, name in enumerate(ORDER):
        if name not in labelled:
            joints[i, :, person] = [-40.0, -30.0, 0.0]
    scipy.io.savemat(path, {"joints": joints})


def test_joints_go_to_their_places_in_mpii_and_pelvis_and_thorax_stay_unlabelled(tmp_path: Path) -> None:
    people = read_annotations(write_extended(tmp_path), "all")
    assert len(people) == 9_000
    for j, name in enumerate(ORDER):
        place = people.joints[2, MPII.names.index(name)]
        np.testing.assert_allclose(place, [20 + 3 * j + 0.5, 5 * j + 2.5], err_msg=name)
    missing = [MPII.names.index("pelv"), MPII.names.index("thor")]
    assert not people.labelled[:, missing].any()
    assert np.isnan(people.joints[:, missing]).all()
    assert people.labelled.sum() == 14 * 9_000
    assert np.isnan(people.head_size).all(), "there are no head boxes"


@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_that_ends_scipys_parser_is_refused(compressed: bool, tmp_path: Path) -> None:
    """The type of its numbers is none that there is; compressed, the checksum does not fit either."""
    path = write_extended(tmp_path, 3)
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, content.index(b"joints") + 8, 100)
    if compressed:
        packed = zlib.compress(content[128:])[:-4] + b"else"
        content[128:] = struct.pack("<II", 15, len(packed)) + packed
    path.write_bytes(content)
    read = "import pathlib, sys, fasthg.data.annotations as a; a.read_annotations(pathlib.Path(sys.argv[1]))"
    ended = subprocess.run([sys.executable, "-c", read, path], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1
    assert "not a whole MATLAB file" in ended.stderr


def test_a_whole_file_is_read_alike_with_and_without_compression(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "a.mat", {"joints": np.arange(84.0).reshape(14, 3, 2)})
    scipy.io.savemat(tmp_path / "b.mat", {"joints": np.arange(84.0).reshape(14, 3, 2)}, do_compression=True)
    first, second = (read_mat(tmp_path / name)["joints"] for name in ("a.mat", "b.mat"))
    np.testing.assert_array_equal(first, second)


def test_the_crop_is_a_square_about_the_labelled_joints(tmp_path: Path) -> None:
    path = write_extended(tmp_path)
    spoil(path, 3, ["rwri", "relb", "rsho", "lsho", "lelb", "lwri", "neck", "head"])
    people = read_annotations(path, "all").select([3])
    # x from 30 + 18 to 30 + 39, y from 32 to 67 in 0-based pixels: the side is 1.3 x 35, about (68.5 - 30 ..., 49.5).
    corners = geometry.apply(geometry.invert(geometry.crop_matrix(people.center[0], people.scale[0], 256)), [[0, 0]])
    side = 1.3 * 35
    np.testing.assert_allclose(corners[0], [30 + 28.5 + 0.5 - side / 2, 49.5 + 0.5 - side / 2])


def test_splits_of_the_extended_set_leave_sparse_people_out_of_training_alone(tmp_path: Path) -> None:
    path = write_extended(tmp_path, 10_000)
    seven, eight = ORDER[:7], ORDER[:8]
    for person, labelled in ((0, seven), (1, eight), (8_500, seven)):
        spoil(path, person, labelled)
    train, val = read_annotations(path, "train"), read_annotations(path, "val")
    assert train.images[:2] == ("im00002.jpg", "im00003.jpg")
    assert (len(train), train.images[-1]) == (8_499, "im08500.jpg")
    assert (len(val), val.images[0], val.images[-1]) == (500, "im08501.jpg", "im09000.jpg")
    assert len(read_annotations(path, "all")) == 10_000


def test_lsp_has_its_own_layout_splits_and_names(tmp_path: Path) -> None:
    person, joint = np.meshgrid(np.arange(2_000), np.arange(14))
    hidden = (joint == 6) & (person == 1_000)
    joints = np.stack([10.0 * person + 3 * joint, 5.0 * joint + 2, hidden]).astype(float)
    scipy.io.savemat(tmp_path / "joints.mat", {"joints": joints})
    train, val = (read_annotations(tmp_path / "joints.mat", split) for split in ("train", "val"))
    assert (len(train), train.images[0]) == (1_000, "im0001.jpg")
    assert (len(val), val.images[0], val.images[-1]) == (1_000, "im1001.jpg", "im2000.jpg")
    wrist = MPII.names.index("rwri")
    assert val.labelled[0, wrist], "a hidden joint is labelled"
    assert (bool(val.visible[0, wrist]), bool(val.visible[1, wrist])) == (False, True)
    np.testing.assert_allclose(val.joints[0, wrist], [10_000 + 18.5, 32.5])


def test_a_dataset_of_that_format_is_scored_by_its_own_protocols_and_keeps_its_digest(tmp_path: Path) -> None:
    path = write_extended(tmp_path)
    (tmp_path / "images").mkdir()
    for number in range(8_501, 9_001):
        (tmp_path / "images" / f"im{number:05d}.jpg").touch()
    dataset = load_dataset(tmp_path, "val")
    assert dataset.protocols == LSP_PROTOCOLS
    assert str(dataset.protocol) == "PCK@0.2"
    digest = dataset.digest
    assert load_dataset(path, "val").digest == digest
    spoil(path, 8_600, ORDER[:9])
    assert load_dataset(path, "val").digest != digest
    (tmp_path / "images" / "im08700.jpg").unlink()
    with pytest.raises(FasthgError, match=r"1 of 500 photographs are missing, the first is im08700\.jpg"):
        load_dataset(tmp_path, "val")


def test_what_is_wrong_with_the_file_is_said(tmp_path: Path) -> None:
    path = write_extended(tmp_path, 37)
    assert len(read_annotations(path, "all")) == 37
    with pytest.raises(FasthgError, match=r"37 people; splits are known for 2,000, 9,000, 10,000"):
        read_annotations(path, "val")
    spoil(path, 4, ["neck"])
    with pytest.raises(FasthgError, match="row 4 has fewer than two labelled joints"):
        read_annotations(path, "all")
    joints = scipy.io.loadmat(write_extended(tmp_path, 37))["joints"]
    joints[3, 0, 5] = np.nan
    scipy.io.savemat(path, {"joints": joints})
    with pytest.raises(FasthgError, match="person 6 has a joint at NaN"):
        read_annotations(path, "all")


def test_other_matlab_files_are_not_taken_for_it(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "joints.mat", {"joints": np.zeros((17, 3, 5))})
    with pytest.raises(FasthgError, match=r"no RELEASE\.annolist"):
        read_annotations(tmp_path / "joints.mat")


def test_the_real_set_has_the_numbers_of_its_file(lspet_dir: Path) -> None:
    flags = scipy.io.loadmat(lspet_dir / "joints.mat")["joints"][:, 2]
    train, val = load_dataset(lspet_dir, "train", check_files=False), load_dataset(lspet_dir, "val", check_files=False)
    assert (len(train), len(val)) == (8_500 - int((flags[:, :8_500].sum(axis=0) < 8).sum()), 500)
    assert val.people.labelled.sum() == flags[:, 8_500:].sum()
    assert (~np.isnan(val.lengths)).sum() == 416, "people whose torso is labelled"
    assert val.protocol is not PCKH


def test_real_labels_lie_on_the_photographs(lspet_dir: Path) -> None:
    """All but the few that were placed beside it by hand, after every step from the file to the crop."""
    dataset = load_dataset(lspet_dir, "val")
    inside, count = 0, 0
    for row in range(0, len(dataset), 25):
        image = cv2.imread(str(dataset.image_path(row)))
        joints = dataset.people.joints[row][dataset.people.labelled[row]]
        inside += int(((joints >= 0) & (joints <= image.shape[1::-1])).all(axis=-1).sum())
        count += len(joints)
    assert inside >= 0.99 * count
