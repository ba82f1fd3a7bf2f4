"""Protocols by name: the length that each divides by, who is left out, and that none is printed as another."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from rich.console import Console

from fasthg.cli.app import main
from fasthg.data.annotations import People
from fasthg.data.protocols import LSP_PROTOCOLS, PCK, PCKH, PCKH_SEGMENT
from fasthg.errors import FasthgError
from fasthg.metrics.pck import score_people
from fasthg.metrics.prediction_files import predictions_document
from fasthg.pixels.skeleton import MPII

PLACES = {"rhip": (0, 40), "lhip": (10, 40), "rsho": (-20, 0), "lsho": (30, 0), "neck": (5, -2), "head": (5, -22)}


def athletes(count: int = 3) -> People:
    """Torsos of 50 pixels (30 across and 40 up), heads of 20; every other joint is at (100, 100)."""
    joints = np.full((count, 16, 2), 100.0)
    for name, place in PLACES.items():
        joints[:, MPII.names.index(name)] = place
    joints[:, [6, 7]] = np.nan
    labelled = ~np.isnan(joints[..., 0])
    nothing = np.full(count, np.nan)
    return People(("a.jpg",) * count, np.zeros((count, 2)), np.ones(count), joints, labelled, labelled, nothing)


def unlabel(people: People, row: int, *names: str) -> None:
    for name in names:
        joint = MPII.names.index(name)
        people.joints[row, joint], people.labelled[row, joint] = np.nan, False


def test_lengths_are_the_torsos_other_diagonal_where_one_end_is_missing() -> None:
    people = athletes(4)
    unlabel(people, 1, "lsho")  # left hip (10, 40) to right shoulder (-20, 0)
    unlabel(people, 2, "rhip", "rsho")
    people.joints[3, MPII.names.index("lsho")] = (9, 0)  # 9 across and 40 up: 41
    np.testing.assert_allclose(PCK.measure(people), [50, 50, np.nan, 41])
    unlabel(people, 0, "head")
    np.testing.assert_allclose(PCKH_SEGMENT.measure(people), [np.nan, 20, 20, 20])


def test_a_fifth_of_the_torso_counts_and_more_does_not() -> None:
    people = athletes()
    for offset, percent in ((10.0, 100.0), (10.001, 0.0)):  # a fifth of a torso of 50 is half of a head of 20
        across = score_people(people.joints + np.array([offset, 0]), people, PCK)
        down = score_people(people.joints + np.array([0, offset]), people, PCKH_SEGMENT)
        assert across.at.means["weighted14"] == down.at.means["weighted14"] == percent
    assert score_people(people.joints + 4.0, people, PCK).to_dict()["pck@0.1"]["mean14"] == 0.0


def test_people_without_a_torso_are_left_out_and_counted() -> None:
    people = athletes()
    unlabel(people, 1, "lsho", "lhip")
    wrong = people.joints.copy()
    wrong[1] += 1000
    scores = score_people(wrong, people, PCK)
    assert (scores.num_people, scores.unscaled, scores.num_joints) == (2, 1, 28)
    assert scores.at.means["pooled16"] == 100.0
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(scores.table())
    text = console.export_text()
    assert "1 people left out" in text
    assert "PCK@0.2" in text
    assert "PCKh" not in text


def test_nobody_with_the_length_is_an_error_that_names_it() -> None:
    people = athletes(1)
    unlabel(people, 0, "lsho", "rsho")
    with pytest.raises(FasthgError, match=r"PCK@0\.2 divides by the torso, .* labelled for none of the 1 people"):
        score_people(people.joints, people, PCK)
    with pytest.raises(FasthgError, match="head size is not known for 1 of 1 people"):
        score_people(people.joints, people, PCKH)


def test_names_of_protocols_are_their_own() -> None:
    keys = [protocol.key() for protocol in (PCKH, *LSP_PROTOCOLS)]
    assert keys == ["pckh@0.5", "pck@0.2", "pckh-segment@0.5"]


def test_scores_of_a_file_against_lsp_name_both_protocols(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    people = athletes(37)
    right, left = ("rank", "rkne", "rhip"), ("lhip", "lkne", "lank")
    arms = ("rwri", "relb", "rsho", "lsho", "lelb", "lwri")
    order = [MPII.names.index(name) for name in (*right, *left, *arms, "neck", "head")]
    flagged = np.concatenate([people.joints[:, order] - 0.5, np.ones((37, 14, 1))], axis=-1)
    scipy.io.savemat(tmp_path / "joints.mat", {"joints": flagged.transpose(1, 2, 0)})
    found = np.nan_to_num(people.joints + np.array([9.0, 0.0]))  # within a fifth of the torso, not of half a head
    found[:, MPII.names.index("head"), 0] += 3
    names = [f"im{row + 1:05}.jpg" for row in range(37)]
    document = predictions_document(names, found, np.ones((37, 16)), MPII)
    (tmp_path / "found.json").write_text(json.dumps(document))
    files = [str(tmp_path / "found.json"), "--truth", str(tmp_path / "joints.mat")]
    assert main(["score", *files, "--split", "all", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["protocol"] == "pck@0.2"
    assert scores["pck@0.2"]["weighted14"] == pytest.approx(100 * 13 / 14)
    assert [other["protocol"] for other in scores["others"]] == ["pckh-segment@0.5"]
    assert "pckh@0.5" not in json.dumps(scores)
