"""Scores: the published figures, each protocol by hand, and files that cannot be scored."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
from rich.console import Console

from fasthg.data.people import People
from fasthg.errors import FasthgError
from fasthg.metrics.pck import score
from fasthg.metrics.prediction_files import predictions_document, read_predictions, read_truth
from fasthg.pixels.skeleton import MPII


def test_other_truths_change_the_published_score_by_little(mpii_dir: Path, mpii_people: People) -> None:
    """83.927 against detections_our_format.mat, as `fasthg score` prints it."""
    predictions = read_predictions(mpii_dir / "preds-valid-example.h5")
    for truth, allowed in ((read_truth(mpii_dir / "valid.h5"), 0.02), (mpii_people, 0.005)):
        scores = score(predictions, truth.joints, truth.labelled, truth.head_size)
        assert scores.at.means["weighted14"] == pytest.approx(83.927, abs=allowed)


def case() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Two people with a head size of 10: predictions, truth, labels."""
    joints = np.random.default_rng(0).uniform(0, 100, (2, 16, 2))
    return joints.copy(), joints, np.ones((2, 16), bool), np.array([10.0, 10.0])


def test_protocols_differ_as_they_are_defined() -> None:
    predictions, joints, labelled, head_size = case()
    wrong_wrist, unlabelled = MPII.names.index("rwri"), MPII.names.index("lank")
    predictions[0, wrong_wrist] += 100
    predictions[0, MPII.names.index("pelv")] += 100
    labelled[1, unlabelled] = labelled[1, wrong_wrist] = False
    scores = score(predictions, joints, labelled, head_size)
    assert scores.at.means["mean14"] == pytest.approx(100 * 13 / 14)  # the only right wrist is wrong, of 14 joints
    assert scores.at.means["weighted14"] == pytest.approx(100 * 25 / 26)  # two of 28 labels are missing, one is wrong
    assert scores.at.means["pooled16"] == pytest.approx(100 * 28 / 30)  # pelvis counts here
    assert (scores.at.per_joint["rwri"], scores.at.per_joint["pelv"]) == (0.0, 50.0)
    assert scores.at.per_group["wrist"] == 50.0


def test_a_distance_of_exactly_half_a_head_counts_as_found() -> None:
    _, joints, labelled, head_size = case()
    joints = joints.round()
    for offset, expected in ((5.0, 100.0), (5.001, 0.0)):
        assert score(joints + np.array([offset, 0.0]), joints, labelled, head_size).at.means["pooled16"] == expected
    assert score(joints + np.array([0.0, 1.0]), joints, labelled, head_size).strict.means["pooled16"] == 100.0


def test_area_under_the_curve_of_one_distance() -> None:
    # All joints are off by 0.252 heads: found from 0.26 on, so trapezoids make (0.5 - 0.26 + 0.005) / 0.5 of the area.
    _, joints, labelled, head_size = case()
    scores = score(joints + np.array([2.52, 0.0]), joints, labelled, head_size)
    assert scores.auc.means["pooled16"] == scores.auc.means["mean14"] == pytest.approx(49.0)


def test_unlabelled_joints_do_not_count_and_nan_predictions_are_wrong() -> None:
    predictions, joints, labelled, head_size = case()
    labelled[:, 3] = False
    joints[:, 3] = np.nan
    predictions[0, 4] = np.nan
    scores = score(predictions, joints, labelled, head_size)
    assert np.isnan(scores.at.per_joint["lhip"])
    assert scores.at.per_group["hip"] == 100.0, "the other hip stands for both"
    assert scores.at.per_joint["lkne"] == 50.0
    assert scores.num_joints == 30
    document = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert document["pckh@0.5"]["per_joint"]["lhip"] is None


def test_table_fits_a_terminal_and_names_every_protocol() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(score(*case()).table())
    lines = console.export_text().splitlines()
    assert any(line.count("100.000") == 3 and "pooled16: all joints pooled" in line for line in lines)
    for name in ("head", "ankle", "mean14", "weighted14"):
        assert any(name in line for line in lines)


def test_what_cannot_be_scored_is_refused() -> None:
    predictions, joints, labelled, head_size = case()
    with pytest.raises(FasthgError, match=r"predictions have shape \(1, 16, 2\), the truth \(2, 16, 2\)"):
        score(predictions[:1], joints, labelled, head_size)
    with pytest.raises(FasthgError, match="nothing to score: none of the 2 people"):
        score(predictions, joints, np.zeros_like(labelled), head_size)
    with pytest.raises(FasthgError, match="head size is not known for 1 of 2 people"):
        score(predictions, joints, labelled, np.array([10.0, np.nan]))


def test_prediction_files_of_every_kind_hold_the_same_joints(tmp_path: Path) -> None:
    joints = np.random.default_rng(1).uniform(0, 500, (3, 16, 2)).round(2)
    with h5py.File(tmp_path / "preds.h5", "w") as file:
        file["preds"] = joints + 0.5  # the formats of others count pixels from 1
    scipy.io.savemat(tmp_path / "preds.mat", {"preds": joints + 0.5})
    names = ["a.jpg", "b.jpg", "c.jpg"]
    order = [2, 0, 1]
    document = predictions_document(names, joints[order], np.ones((3, 16)), MPII)
    for record, row in zip(document["predictions"], order):
        record["row"] = row
    (tmp_path / "rows.json").write_text(json.dumps(document))
    (tmp_path / "plain.json").write_text(json.dumps(predictions_document(names, joints, np.ones((3, 16)), MPII)))
    for name in ("preds.h5", "preds.mat", "rows.json", "plain.json"):
        np.testing.assert_allclose(read_predictions(tmp_path / name), joints, atol=1e-9)


@pytest.mark.parametrize("given", ["people/{}", "{}"])
def test_records_without_a_row_are_told_by_their_image(given: str, tmp_path: Path) -> None:
    joints = np.random.default_rng(1).uniform(0, 500, (4, 16, 2)).round(2)
    images, order = ["people/a.jpg", "b.jpg", "people/a.jpg", "c.jpg"], [3, 0, 1, 2]
    names = [given.format(Path(images[row]).name) for row in order]
    file = write_json(tmp_path / "preds.json", predictions_document(names, joints[order], np.ones((4, 16)), MPII))
    np.testing.assert_allclose(read_predictions(file, MPII, images), joints)
    for other, message in ((["d.jpg", *images[1:]], "has 1 people in the truth"), (["d.jpg"] * 4, "is none of the")):
        with pytest.raises(FasthgError, match=message):
            read_predictions(file, MPII, other)


def test_a_truths_images_find_whom_a_record_is_of(tiny_dataset: Path, tmp_path: Path) -> None:
    truth = read_truth(tiny_dataset / "annotations.json", "val")
    joints, images = np.nan_to_num(truth.joints)[::-1], truth.images
    assert images is not None
    document = predictions_document(images[::-1], joints, np.ones(joints.shape[:2]), MPII)
    found = read_predictions(write_json(tmp_path / "preds.json", document), MPII, images)
    np.testing.assert_allclose(found, joints[::-1], atol=1e-4)


def write_json(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_prediction_files_that_are_wrong_are_named(tmp_path: Path) -> None:
    joint = [1.0, 2.0, 0.5]
    record = {"image": "a.jpg", "row": 0, "joints": [joint] * 16}
    cases = {
        "no list 'predictions'": {"joints": []},
        r"shape is \(1, 15, 2\), expected \(people, 16, 2\)": {"predictions": [record | {"joints": [joint] * 15}]},
        "NaN or infinite in row 1": {"predictions": [record, record | {"row": 1, "joints": [[1e999, 0, 0]] * 16}]},
        "are not 0 to 1, once each": {"predictions": [record, record]},
        "records are not 0 to 1": {"predictions": [record | {"row": None}] * 2},
        "'joint_names' is 5, no list of names": {"joint_names": 5, "predictions": [record]},
        "a record lacks 'joints'": {"predictions": [{"image": "a.jpg"}]},
        r"'joints' have shape \(16,\)": {"predictions": [record | {"joints": [1.0] * 16}]},
    }
    for message, content in cases.items():
        with pytest.raises(FasthgError, match=rf"bad\.json: .*{message}"):
            read_predictions(write_json(tmp_path / "bad.json", content))


def test_prediction_arrays_that_are_wrong_are_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["heatmaps"] = np.zeros((2, 16, 2))
    with pytest.raises(FasthgError, match=r"other\.h5: no preds in the file"):
        read_predictions(tmp_path / "other.h5")
    scipy.io.savemat(tmp_path / "flat.mat", {"preds": np.zeros((2, 32))})
    with pytest.raises(FasthgError, match=r"flat\.mat: shape is \(2, 32\)"):
        read_predictions(tmp_path / "flat.mat")
    (tmp_path / "cut.h5").write_bytes(b"\x89HDF")
    (tmp_path / "cut.mat").write_bytes(b"MATLAB 5.0")
    for name in ("cut.h5", "cut.mat", "absent.h5", "absent.mat", "absent.json", "notes.txt"):
        with pytest.raises(FasthgError, match=name):
            read_predictions(tmp_path / name)


def test_truth_of_annotations_without_head_boxes_cannot_be_scored_and_says_why(tmp_path: Path, mpii_dir: Path) -> None:
    content = json.loads((mpii_dir / "test_mpii.json").read_text())
    truth = read_truth(write_json(tmp_path / "valid.json", content))
    with pytest.raises(FasthgError, match="head size is not known for 5 of 5 people"):
        score(np.nan_to_num(truth.joints), truth.joints, truth.labelled, truth.head_size)


def test_truth_without_its_arrays_is_named(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "truth.mat", {"jnt_missing": np.zeros((16, 2))})
    with pytest.raises(FasthgError, match=r"truth\.mat: no pos_gt_src, headboxes_src in the file"):
        read_truth(tmp_path / "truth.mat")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pos_gt_src": np.zeros((16, 2))}, r"pos_gt_src has shape \(16, 2\), expected \(16, 2, 3\)"),
        ({"headboxes_src": np.zeros((2, 2, 9))}, r"headboxes_src has shape \(2, 2, 9\), expected \(2, 2, 3\)"),
        ({"jnt_missing": np.array([["a", "b"]], object)}, "are not all numbers"),
    ],
)
def test_truth_of_another_shape_is_named(
    change: dict[str, np.ndarray], message: str, tmp_path: Path, refused: Callable[..., str]
) -> None:
    """Three people, in the published truth's arrays."""
    whole = {"pos_gt_src": np.ones((16, 2, 3)), "jnt_missing": np.zeros((16, 3)), "headboxes_src": np.ones((2, 2, 3))}
    scipy.io.savemat(tmp_path / "truth.mat", whole | change)
    predictions = write_json(tmp_path / "a.json", {"predictions": [{"joints": [[1.0, 2.0, 0.5]] * 16}] * 3})
    line = refused("score", predictions, "--truth", tmp_path / "truth.mat")
    assert re.search(rf"truth\.mat: .*{message}; copy it again", line)
