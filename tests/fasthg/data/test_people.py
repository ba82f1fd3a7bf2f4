"""People under another skeleton's points."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fasthg.cli.app import main
from fasthg.data.dataset import load_dataset
from fasthg.errors import FasthgError
from fasthg.pixels.skeleton import COCO, MPII


def test_coco_s_people_keep_each_limb_joint_under_mpii_s_name(keypoints: Path) -> None:
    theirs = load_dataset(keypoints / "coco" / "test_coco.json", "all", check_files=False)
    ours = theirs.under(MPII)
    assert (ours.people.skeleton, ours.annotations) == (MPII, theirs.annotations)
    kept = theirs.people.labelled[:, 5:].any(axis=1)  # nose, eyes and ears have no name among MPII's
    for long, short in (
        ("right_ankle", "rank"),
        ("left_hip", "lhip"),
        ("left_wrist", "lwri"),
        ("right_shoulder", "rsho"),
    ):
        a, b = COCO.names.index(long), MPII.names.index(short)
        np.testing.assert_array_equal(ours.people.joints[:, b], theirs.people.joints[kept, a])
        np.testing.assert_array_equal(ours.people.labelled[:, b], theirs.people.labelled[kept, a])
    nameless = [MPII.names.index(name) for name in ("pelv", "thor", "neck", "head")]
    assert not ours.people.labelled[:, nameless].any()
    assert np.isnan(ours.people.joints[:, nameless]).all()
    assert theirs.under(COCO) is theirs


def test_animals_are_no_people(keypoints: Path) -> None:
    horses = load_dataset(keypoints / "horse10" / "test_horse10.json", "all", check_files=False)
    with pytest.raises(FasthgError, match=r"horse \(22 points\) where mpii"):
        horses.under(MPII)


def test_eval_compares_the_points_that_both_name_and_says_so(
    keypoints: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["eval", "--data", str(keypoints / "coco" / "test_coco.json"), "--split", "all", "--path", "eager"]
    assert main([*command, "--size", "64", "--json"]) == 0
    said = capsys.readouterr()
    assert "another skeleton; compared are rank, rkne, rhip, lhip, lkne, lank, rwri, relb, rsho, lsho, lelb, lwri" in (
        " ".join(said.err.split())
    )
    assert json.loads(said.out)["protocol"] == "pck-box@0.1"
