"""Where a project's files name points differently, points are placed by name, or the difference is said."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

from fasthg.data.dataset import load_dataset
from fasthg.errors import FasthgError

PLACES = {"nose": (1.0, 2.0), "tail": (30.0, 4.0), "ear": (5.0, 20.0), "paw": (9.0, 9.0)}


def sleap_project(folder: Path, *skeletons: list[str]) -> None:
    """One frame for each skeleton, whose points are at PLACES; the first skeleton of the file labels nothing."""
    sio = pytest.importorskip("sleap_io")
    video = folder / "frames"
    video.mkdir()
    pictures = [str(video / f"{i}.png") for i in range(len(skeletons))]
    for path in pictures:
        cv2.imwrite(path, np.zeros((30, 40, 3), np.uint8))
    clip = sio.Video.from_filename(pictures)
    made = [sio.Skeleton(nodes=list(names), name=f"kind{i}") for i, names in enumerate(skeletons)]
    frames = [
        sio.LabeledFrame(
            video=clip,
            frame_idx=i,
            instances=[sio.Instance.from_numpy(np.array([PLACES[n] for n in kind.node_names]), skeleton=kind)],
        )
        for i, kind in enumerate(made)
    ]
    unused = sio.Skeleton(nodes=["unused"], name="unused")
    labels = sio.Labels(videos=[clip], skeletons=[unused, *made], labeled_frames=frames)
    sio.save_slp(labels, str(folder / "labels.slp"))


@pytest.mark.parametrize("second", [["ear", "nose", "tail"], ["tail", "nose"], ["nose", "tail", "ear", "paw"]])
def test_sleaps_points_are_placed_by_their_own_skeletons_names(
    second: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTHG_CACHE", str(tmp_path / "cache"))
    first = ["nose", "tail", "ear"]
    sleap_project(tmp_path, first, second)
    people = load_dataset(tmp_path, "all").people
    assert people.skeleton.names == tuple(second if len(second) > len(first) else first)
    for row, names in enumerate((first, second)):
        for column, name in enumerate(people.skeleton.names):
            expected = np.add(PLACES[name], 0.5) if name in names else (np.nan, np.nan)
            np.testing.assert_array_equal(people.joints[row, column], expected)


def test_sleaps_skeletons_that_do_not_fit_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTHG_CACHE", str(tmp_path / "cache"))
    sleap_project(tmp_path, ["nose", "tail", "ear"], ["nose", "paw"])
    with pytest.raises(FasthgError, match=r"skeleton kind1 has paw, which kind0 lacks; give labels of one skeleton"):
        load_dataset(tmp_path, "all")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("kpt_names: {0: [head]}", r"kpt_names has 1 names, kpt_shape 2 points"),
        ("kpt_names: [head, fin, tail]", r"kpt_names has 3 names, kpt_shape 2 points"),
        ("flip_idx: [1, 1]", r"flip_idx is no order of 2 points"),
        ("flip_idx: [1, 0, 2]", r"flip_idx is no order of 2 points"),
    ],
)
def test_a_yolo_list_of_another_length_is_named(line: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), np.zeros((30, 40, 3), np.uint8))
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 0.5 0.4 0.25 0.5 2 0.75 0.5 1\n")
    (tmp_path / "data.yaml").write_text(f"train: images\nkpt_shape: [2, 3]\n{line}\n")
    with pytest.raises(FasthgError, match=message):
        load_dataset(tmp_path, "all")


def test_deeplabcuts_config_and_tables_that_name_different_parts_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "labeled-data" / "clip"
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "a.png"), np.zeros((30, 40, 3), np.uint8))
    (folder / "CollectedData_me.csv").write_text(
        "scorer,me,me,me,me\nbodyparts,nose,nose,tail,tail\ncoords,x,y,x,y\nlabeled-data/clip/a.png,1,2,3,4\n"
    )
    for parts, expected in (("nose, tail", []), ("snout, tail", ["nose", "snout"])):
        (tmp_path / "config.yaml").write_text(f"Task: mouse\nscorer: me\nbodyparts: [{parts}]\n")
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="fasthg"):
            load_dataset(tmp_path, "all")
        assert len(caplog.messages) == bool(expected)
        assert all(name in caplog.text for name in expected)
    assert "it lacks the tables' nose, no" in caplog.text
    assert "no table has its snout; correct" in caplog.text
