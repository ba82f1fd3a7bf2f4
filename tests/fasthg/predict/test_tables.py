"""DeepLabCut's tables and SLEAP's file hold the poses that were found, as those tools' own readers see them."""

from __future__ import annotations

import csv
from pathlib import Path

import h5py
import numpy as np
import pytest

from fasthg.errors import FasthgError
from fasthg.pixels.skeleton import Skeleton
from fasthg.predict.formats import write_poses
from fasthg.predict.predictor import Pose

MOUSE = Skeleton("mouse", ("snout", "tail"), limbs=((0, 1),))


def pose(frame: int | None, x: float, image: str = "clip.mp4") -> Pose:
    """The snout at (x, 2.5) and the tail at (x + 1, 3.5), continuous pixels."""
    joints, scores = np.array([(x, 2.5), (x + 1, 3.5)]), np.array([0.9, 0.8], np.float32)
    return Pose(image, frame, (0.0, 0.0, 9.0, 9.0), True, joints, scores, None if frame is None else frame / 25)


POSES = [pose(0, 10.5), pose(2, 20.5)]  # nobody in frame 1
TWO = [pose(0, 10.5), pose(0, 30.5), pose(1, 20.5)]


def test_the_wide_csv_is_deeplabcuts(tmp_path: Path) -> None:
    (path,) = write_poses(tmp_path, POSES, ["dlc"], MOUSE, {})
    rows = list(csv.reader(path.open()))
    assert [row[0] for row in rows] == ["scorer", "bodyparts", "coords", "0", "1", "2"]
    assert rows[1][1:] == ["snout"] * 3 + ["tail"] * 3
    assert [float(v) for v in rows[3][1:3]] == [10.0, 2.0]  # pixel centres are whole numbers there
    assert all(np.isnan(float(value)) for value in rows[4][1:])
    assert rows[5][3] == "0.9000"


def test_pandas_and_sleap_io_read_deeplabcuts_files(tmp_path: Path) -> None:
    pandas, _tables = pytest.importorskip("pandas"), pytest.importorskip("tables")
    h5, table = write_poses(tmp_path, TWO, ["dlc-h5", "dlc"], MOUSE, {})
    frame = pandas.read_hdf(h5)
    assert frame.columns.names == ["scorer", "individuals", "bodyparts", "coords"]
    assert frame[("fasthg", "individual2", "tail", "x")].tolist()[0] == 31.0
    assert np.isnan(frame[("fasthg", "individual2", "tail", "x")].tolist()[1])
    again = pandas.read_csv(table, header=[0, 1, 2, 3], index_col=0)
    np.testing.assert_allclose(again.to_numpy(float), frame.to_numpy(float), atol=1e-4)


@pytest.mark.parametrize("poses", [[pose(2, 10.5)], [pose(2, 10.5), pose(2, 30.5)]])
def test_a_first_frame_without_anybody_is_a_row_too(tmp_path: Path, poses: list[Pose]) -> None:
    pandas = pytest.importorskip("pandas")
    (path,) = write_poses(tmp_path, poses, ["dlc"], MOUSE, {})
    frame = pandas.read_csv(path, header=[0, 1, 2, 3][: 2 + len(poses)], index_col=0)
    assert frame.index.tolist() == [0, 1, 2]
    assert frame.isna().all(axis=1).tolist() == [True, True, False]


def test_sleaps_own_reader_finds_the_points(tmp_path: Path) -> None:
    sio = pytest.importorskip("sleap_io")
    (path,) = write_poses(tmp_path, TWO, ["sleap"], MOUSE, {})
    labels = sio.load_analysis_h5(str(path))
    assert [node.name for node in labels.skeletons[0].nodes] == list(MOUSE.names)
    assert labels.skeletons[0].edge_inds == [(0, 1)]
    np.testing.assert_array_equal(labels.numpy()[0, :, 0], [(10.0, 2.0), (30.0, 2.0)])
    assert np.isnan(labels.numpy()[1, 1]).all()


def test_names_of_points_may_be_in_any_script(tmp_path: Path) -> None:
    (path,) = write_poses(tmp_path, POSES, ["sleap"], Skeleton("Maus", ("Öhrchen", "尾"), limbs=((0, 1),)), {})
    with h5py.File(path) as file:
        names, edges = (file[name][()].tolist() for name in ("node_names", "edge_names"))
    assert [name.decode() for name in names] == [name.decode() for name in edges[0]] == ["Öhrchen", "尾"]


def test_frame_times_stand_beside(tmp_path: Path) -> None:
    (path,) = write_poses(tmp_path, POSES, ["sleap"], MOUSE, {})
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["frame_times"][()], [0.0, np.nan, 0.08])
        assert file["tracks"].shape == (1, 2, 2, 3)
        assert file["track_occupancy"][()].ravel().tolist() == [1, 0, 1]


def test_photographs_are_rows_by_name(tmp_path: Path) -> None:
    (path,) = write_poses(tmp_path, [pose(None, 1.5, "a.jpg"), pose(None, 2.5, "b.jpg")], ["dlc"], MOUSE, {})
    assert [row[0] for row in csv.reader(path.open())][3:] == ["a.jpg", "b.jpg"]


def test_two_videos_need_a_table_each(tmp_path: Path) -> None:
    with pytest.raises(FasthgError, match=r"a.mp4 and others in one table.*; predict one video at a time"):
        write_poses(tmp_path, [pose(0, 1.5, "a.mp4"), pose(0, 1.5, "b.mp4")], ["dlc"], MOUSE, {})
