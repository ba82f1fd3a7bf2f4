"""What a prediction writes reads back as what was found."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io

import fasthg
from fasthg.errors import FasthgError
from fasthg.metrics.prediction_files import read_predictions
from fasthg.network.variants import HourglassConfig
from fasthg.pixels.skeleton import COCO, MPII, Skeleton
from fasthg.predict.command import predict_to_folder
from fasthg.predict.formats import write_poses
from fasthg.predict.predictor import Pose, Predictor
from tests.fasthg.predict.dots import SIZE, dotted, write_video


@pytest.fixture
def poses(predictor: Predictor) -> list[Pose]:
    return predictor([dotted(40, 60), dotted(150, 90)])


def test_json_and_mat_read_back_as_the_same_joints(poses: list[Pose], tmp_path: Path) -> None:
    json_file, mat_file = write_poses(tmp_path, poses, ["json", "mat"], MPII, {"path": "eager"})
    joints = np.stack([pose.joints for pose in poses])
    assert np.allclose(read_predictions(json_file), joints, atol=1e-4)
    assert np.allclose(scipy.io.loadmat(mat_file)["preds"], joints + 0.5)  # MATLAB counts pixels from one
    assert np.allclose(read_predictions(mat_file), joints)
    document = json.loads(json_file.read_text())
    assert document["path"] == "eager"
    assert document["predictions"][1]["box"] == [0, 0, 200, 150]


def test_csv_has_a_row_for_each_person(poses: list[Pose], tmp_path: Path) -> None:
    (path,) = write_poses(tmp_path, poses, ["csv"], MPII, {})
    rows = list(csv.DictReader(path.open()))
    assert [row["image"] for row in rows] == ["array 0", "array 1"]
    assert float(rows[1]["head_x"]) == pytest.approx(poses[1].joints[9, 0], abs=1e-4)
    assert float(rows[1]["lwri_score"]) == pytest.approx(poses[1].scores[15], abs=1e-4)


def test_coco_keypoints_follow_the_format(poses: list[Pose], tmp_path: Path) -> None:
    """https://cocodataset.org/#format-data: x, y, v for each joint, joints of the skeleton counted from one."""
    (path,) = write_poses(tmp_path, poses, ["coco"], MPII, {})
    document = json.loads(path.read_text())
    second = document["annotations"][1]
    assert len(second["keypoints"]) == 3 * 16
    assert second["num_keypoints"] == 16
    assert second["keypoints"][:3] == pytest.approx([*(poses[1].joints[0] - 0.5), 2])
    assert document["images"][second["image_id"] - 1]["file_name"] == "array 1"
    (person,) = document["categories"]
    assert person["keypoints"][9] == "head"
    assert [9, 10] in person["skeleton"]  # neck to head
    assert min(min(limb) for limb in person["skeleton"]) == 1


@pytest.mark.parametrize("skeleton", [COCO, Skeleton("mouse", ("snout", "leftear", "rightear"), pairs=((2, 1),))])
def test_a_network_of_any_skeleton_answers_and_is_written(
    tiny_config: HourglassConfig, skeleton: Skeleton, tmp_path: Path
) -> None:
    predictor = Predictor(fasthg.HourglassNet(replace(tiny_config, skeleton=skeleton)).eval(), size=64, flip=True)
    poses = predictor(dotted(50, 50))
    assert predictor.skeleton == skeleton
    assert poses[0].joints.shape == (len(skeleton), 2)
    json_file, csv_file, coco_file, _mat = write_poses(tmp_path, poses, ["json", "csv", "coco", "mat"], skeleton, {})
    assert json.loads(json_file.read_text())["joint_names"] == list(skeleton.names)
    assert (
        csv_file.read_text()
        .splitlines()[0]
        .endswith(",".join(f"{skeleton.names[-1]}_{v}" for v in ("x", "y", "score")))
    )
    category = json.loads(coco_file.read_text())["categories"][0]
    assert (category["keypoints"], category["name"]) == (
        list(skeleton.names),
        "person" if skeleton is COCO else "mouse",
    )


def test_a_run_writes_predictions_and_overlays(net: fasthg.HourglassNet, tmp_path: Path) -> None:
    (tmp_path / "in" / "more").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "in" / "a.png"), dotted(40, 60))
    cv2.imwrite(str(tmp_path / "in" / "more" / "a.jpg"), dotted(40, 60))
    write_video(tmp_path / "walk.avi", [(40.0, 70.0)] * 5)
    inputs = [tmp_path / "in", tmp_path / "in" / "more", tmp_path / "walk.avi"]
    written = predict_to_folder(inputs, tmp_path / "out", formats=["json", "csv"], weights=net, size=SIZE)
    names = ["a-2.png", "a.png", "predictions.csv", "predictions.json", "walk.mp4"]
    assert sorted(path.name for path in written.files) == names
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    assert cv2.imread(str(tmp_path / "out" / "a-2.png")).shape == (150, 200, 3)
    video = cv2.VideoCapture(str(tmp_path / "out" / "walk.mp4"))
    assert video.get(cv2.CAP_PROP_FPS) == 10
    assert sum(video.read()[0] for _ in range(9)) == 5
    assert len(json.loads((tmp_path / "out" / "predictions.json").read_text())["predictions"]) == 7


def test_strict_stops_at_a_damaged_photograph_and_leaves_nothing(net: fasthg.HourglassNet, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(9):
        cv2.imwrite(str(folder / f"{i}.jpg"), dotted(40, 60))
    content = (folder / "7.jpg").read_bytes()
    (folder / "7.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(FasthgError, match=r"7\.jpg: the file is cut short"):
        predict_to_folder([folder], tmp_path / "out", weights=net, size=SIZE, batch_size=2, strict=True)
    assert not (tmp_path / "out").exists()
