"""Poses land on the right pixels, whatever the image comes from, and bad input is named.

The network of these tests is a stand-in whose answer is known: its heatmaps are the crop's brightness, so that every
joint is where a white dot was painted.
"""

from __future__ import annotations

import csv
import json
import logging
import pickle
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
import scipy.io
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

import fasthg
from fasthg.errors import BackendUnavailable, FasthgError
from fasthg.metrics.prediction_files import read_predictions
from fasthg.network.checkpoint import save
from fasthg.network.variants import HourglassConfig
from fasthg.pixels.skeleton import COCO, MPII, Skeleton
from fasthg.predict import predictor as predictor_module
from fasthg.predict.boxes import parse_boxes, read_coco_boxes
from fasthg.predict.command import predict_to_folder
from fasthg.predict.formats import write_poses
from fasthg.predict.photo import Photo
from fasthg.predict.predictor import Pose, Predictor
from fasthg.predict.sources import photos

SIZE = 64  # of crops; their heatmaps have 16 x 16 pixels


def brightness(images: Tensor) -> Tensor:
    """Crops [N, 3, 64, 64] -> 16 equal heatmaps [N, 16, 16, 16]."""
    return F.avg_pool2d(images.mean(1, keepdim=True), 4).expand(-1, 16, -1, -1)


@pytest.fixture
def net(tiny_config: HourglassConfig) -> fasthg.HourglassNet:
    return fasthg.HourglassNet(tiny_config).eval()


@pytest.fixture
def predictor(net: fasthg.HourglassNet) -> Predictor:
    predictor = Predictor(net, size=SIZE, batch_size=3, runtime="eager")
    predictor.runner = replace(predictor.runner, run=brightness)
    return predictor


def dotted(x: float, y: float, width: int = 200, height: int = 150, radius: int = 4) -> NDArray[np.uint8]:
    """A black photograph with a white dot about (x, y), continuous pixels."""
    image = np.zeros((height, width, 3), np.uint8)
    centre = round((x - 0.5) * 16), round((y - 0.5) * 16)  # OpenCV: pixel 0's centre is 0, four bits of fraction
    cv2.circle(image, centre, radius * 16, (255, 255, 255), cv2.FILLED, cv2.LINE_AA, 4)
    return image


def write_video(path: Path, positions: list[tuple[float, float]], codec: str = "mpeg4") -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(10), options={"g": "3"})
        stream.width, stream.height, stream.pix_fmt = 200, 150, "yuv420p"
        for x, y in positions:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(dotted(x, y), format="rgb24")))
        container.mux(stream.encode())


def assert_on_the_dot(pose: Pose, x: float, y: float, side: float) -> None:
    """Within a heatmap pixel, of which the crop of 1.25 x `side` has 16."""
    assert np.abs(pose.joints - [x, y]).max() < 1.25 * side / 16


def test_joints_are_found_in_pixels_of_the_photograph(predictor: Predictor, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), dotted(130.5, 60.25))
    (pose,) = predictor(tmp_path / "a.png")
    assert_on_the_dot(pose, 130.5, 60.25, 200)
    assert pose.whole_image
    assert pose.box == (0, 0, 200, 150)


def test_a_box_makes_the_answer_finer_and_keeps_its_pixels(predictor: Predictor) -> None:
    (pose,) = predictor(dotted(130.5, 60.25, radius=2), boxes=[110, 40, 40, 40])
    assert_on_the_dot(pose, 130.5, 60.25, 40)
    assert not pose.whole_image


@pytest.fixture
def two_dots() -> np.ndarray:
    """A red dot for half of the joints, a green one for the others, which `colours` finds."""
    across, down = np.meshgrid(np.arange(800) + 0.5, np.arange(600) + 0.5)
    spots = [255 * np.exp(-((across - x) ** 2 + (down - y) ** 2) / (2 * 30**2)) for x, y in DOTS[::8]]
    return np.stack([*spots, np.zeros_like(across)], axis=-1).round().astype(np.uint8)


DOTS = np.array([[301.0, 203.0]] * 8 + [[427.0, 361.0]] * 8)


def colours(images: torch.Tensor, mean: tuple[float, ...]) -> torch.Tensor:
    seen = torch.nn.functional.avg_pool2d(images, 4) + torch.tensor(mean).view(1, 3, 1, 1)
    return seen[:, :2].repeat_interleave(8, dim=1)


def test_a_small_person_on_a_whole_image_is_looked_at_again_closely(predictor: Predictor, two_dots: np.ndarray) -> None:
    predictor.runner = replace(predictor.runner, run=lambda images: colours(images, predictor.mean))
    errors = []
    for predictor.second_pass in (False, True):
        (pose,) = predictor(two_dots)
        errors.append(np.abs(pose.joints - DOTS).max())
        assert (pose.box, pose.whole_image) == ((0, 0, 800, 600), True)
    assert errors[1] < errors[0] / 2


def test_a_photograph_that_goes_away_before_the_second_look_keeps_the_pose_of_the_first(
    predictor: Predictor, two_dots: np.ndarray, tmp_path: Path
) -> None:
    def run(images: torch.Tensor) -> torch.Tensor:
        (tmp_path / "a.png").unlink(missing_ok=True)
        return colours(images, predictor.mean)

    cv2.imwrite(str(tmp_path / "a.png"), two_dots[..., ::-1])
    predictor.runner = replace(predictor.runner, run=run)
    (pose,) = predictor(tmp_path / "a.png")
    predictor.second_pass = False
    (first,) = predictor(two_dots)
    np.testing.assert_array_equal(pose.joints, first.joints)


def test_the_network_sees_rgb_in_0_to_1_less_the_mean_of_mpii(predictor: Predictor) -> None:
    predictor.runner = replace(predictor.runner, run=lambda images: images[:, :1, ::4, ::4].expand(-1, 16, -1, -1))
    red = np.zeros((50, 50, 3), np.uint8)
    red[..., 0] = 255
    assert predictor(red)[0].scores == pytest.approx([1 - 0.4404] * 16, abs=1e-6)


def test_flipping_agrees_with_the_image_itself(predictor: Predictor) -> None:
    plain = predictor(dotted(130.5, 60.25))[0].joints
    predictor.flip = True
    assert np.abs(predictor(dotted(130.5, 60.25))[0].joints - plain).max() < 0.5


def test_arrays_tensors_floats_and_files_give_the_same(predictor: Predictor, tmp_path: Path) -> None:
    image = dotted(90, 70)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    poses = predictor([tmp_path / "a.png", image, tensor, tensor / 255])
    assert len(poses) == 4
    for pose in poses:
        assert np.array_equal(pose.joints, poses[0].joints)


def test_people_of_one_photograph_keep_their_order_over_several_batches(predictor: Predictor) -> None:
    centres = [(20.0 + 20 * i, 30.0 + 10 * i) for i in range(8)]  # batches of 3, 3 and 2
    image = np.max([dotted(x, y, radius=2) for x, y in centres], axis=0)
    boxes = np.array([[x - 8, y - 8, 16, 16] for x, y in centres])
    poses = predictor(image, boxes)
    assert len(poses) == 8
    for pose, (x, y) in zip(poses, centres):
        assert_on_the_dot(pose, x, y, 16)
    assert predictor.timing.people == 8


def test_every_batch_after_the_first_has_its_shape(predictor: Predictor) -> None:
    shapes = []
    run = predictor.runner.run
    predictor.runner = replace(predictor.runner, run=lambda images: shapes.append(len(images)) or run(images))
    predictor([dotted(50, 50)] * 7)
    assert shapes == [3, 3, 3]  # a compiled path would compile again for a last batch of one
    shapes.clear()
    predictor(dotted(50, 50))
    assert shapes == [1]


def test_a_folder_is_read_in_the_order_of_its_names(predictor: Predictor, tmp_path: Path) -> None:
    for i, name in enumerate(("b.png", "a.jpg", "c.PNG")):
        cv2.imwrite(str(tmp_path / name), dotted(40 + 40 * i, 70))
    (tmp_path / "notes.txt").write_text("not a photograph")
    poses = predictor(tmp_path)
    assert [Path(pose.image).name for pose in poses] == ["a.jpg", "b.png", "c.PNG"]
    for pose, x in zip(poses, (80, 40, 120)):
        assert_on_the_dot(pose, x, 70, 200)


def test_photographs_are_read_while_the_network_runs(predictor: Predictor, tmp_path: Path) -> None:
    for i in range(6):
        cv2.imwrite(str(tmp_path / f"{i}.png"), dotted(50, 50))
    readers = set()
    found = [
        replace(photo, load=lambda load=photo.load: readers.add(threading.current_thread()) or load())
        for photo in photos(sorted(tmp_path.iterdir()), None)
    ]
    assert len(list(predictor.stream(found))) == 6
    assert threading.main_thread() not in readers


def test_video_frames_are_followed(predictor: Predictor, tmp_path: Path) -> None:
    positions = [(40.0 + 12 * i, 70.0) for i in range(10)]
    write_video(tmp_path / "walk.mp4", positions)
    poses = predictor(tmp_path / "walk.mp4")
    assert [pose.frame for pose in poses] == list(range(10))
    for pose, (x, y) in zip(poses, positions):
        assert_on_the_dot(pose, x, y, 200)


def test_a_video_that_is_cut_off_keeps_what_was_read(
    predictor: Predictor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_video(tmp_path / "whole.avi", [(40.0 + 12 * i, 70.0) for i in range(10)])
    content = (tmp_path / "whole.avi").read_bytes()
    frames, index = content.index(b"movi"), content.rindex(b"idx1")
    (tmp_path / "cut.avi").write_bytes(content[: frames + int((index - frames) * 0.6)])
    with caplog.at_level(logging.WARNING, "fasthg"):
        poses = predictor(tmp_path / "cut.avi")
    assert 2 <= len(poses) < 10
    assert f"cut off: the first {len(poses)} frames of 10 are kept" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is neither a photograph nor a video"),
        (b"\x00\x00\x00\x18ftypmp42 and nothing more", "is neither a photograph nor a video"),
    ],
)
def test_a_video_without_a_frame_is_named(predictor: Predictor, tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(FasthgError, match=message):
        predictor(tmp_path / "a.mp4")


def test_coco_boxes_pick_the_people_of_the_photographs_they_name(predictor: Predictor, tmp_path: Path) -> None:
    document = {
        "images": [{"id": 7, "file_name": "b.png"}, {"id": 9, "file_name": "elsewhere.png"}],
        "annotations": [
            {"image_id": 7, "bbox": [110, 40, 40, 40], "category_id": 1},
            {"image_id": 7, "bbox": [10, 10, 40, 40], "category_id": 1},
            {"image_id": 7, "bbox": [0, 0, 9, 9], "category_id": 3},
        ],
        "categories": [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(document))
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), dotted(130, 60, radius=2))
    poses = predictor(tmp_path, tmp_path / "boxes.json")
    assert [pose.box for pose in poses] == [(110, 40, 40, 40), (10, 10, 40, 40)]
    assert_on_the_dot(poses[0], 130, 60, 40)


def test_coco_boxes_of_a_videos_frames_stay_with_them(predictor: Predictor, tmp_path: Path) -> None:
    """As `predict --format coco` writes them; one file name stands for every frame."""
    pages = [PIL.Image.fromarray(dotted(30 + 30 * number, 60)) for number in range(4)]
    pages[0].save(tmp_path / "film.gif", save_all=True, append_images=pages[1:], duration=40)
    first = predictor(tmp_path / "film.gif", [10, 10, 60, 80])
    moved = [replace(pose, box=(10.0 + (pose.frame or 0), 10, 60, 80)) for pose in first if pose.frame != 1]
    (file,) = write_poses(tmp_path, [*moved, moved[2]], ["coco"], MPII, {})
    again = predictor(tmp_path / "film.gif", file)
    assert [(pose.frame, pose.box[0]) for pose in again] == [(0, 10), (2, 12), (3, 13), (3, 13)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": 3}, "no lists 'images' and 'annotations'"),
        ({"images": [{"id": 1}]}, r"images\[0\] has no 'file_name'"),
        ({"annotations": [{"image_id": 5, "bbox": [0, 0, 1, 1]}]}, "of image 5, which 'images' does not list"),
        ({"categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "dog"}]}, r"is called person \(car, dog\)"),
    ],
)
def test_box_files_with_missing_or_wrong_fields_are_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    document = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": []} | change
    (tmp_path / "boxes.json").write_text(json.dumps(document))
    with pytest.raises(FasthgError, match=message):
        read_coco_boxes(tmp_path / "boxes.json")


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([1, 2, 3], r"shape \(3,\)"),
        ([1, 2, float("nan"), 4], "box 1,2,nan,4 is not finite"),
        ([1, 2, 0, 4], "box 1,2,0,4 has no area"),
        ([500, 2, 30, 40], r"box 500,2,30,40 lies outside array 0 \(200x150 pixels\)"),
        (["a", 2, 3, 4], "not numbers"),
    ],
)
def test_boxes_that_are_none_are_named(predictor: Predictor, boxes: Any, message: str) -> None:
    with pytest.raises(FasthgError, match=message):
        predictor(dotted(50, 50), boxes)


def test_a_list_of_one_image_may_have_a_list_of_its_boxes(predictor: Predictor) -> None:
    image, two = dotted(50, 50), np.array([[10, 10, 60, 80], [20, 20, 60, 80]])
    for listed in (two, two.tolist()):
        assert [pose.box for pose in predictor([image], [listed])] == [tuple(box) for box in two]
    assert [pose.whole_image for pose in predictor([image], [None])] == [True]
    assert [pose.box for pose in predictor([image], [two[0].tolist()])] == [tuple(two[0])]


def test_boxes_of_the_command_line() -> None:
    assert np.array_equal(parse_boxes(["1,2,3,4", "5.5, 6,7,8"]), [[1, 2, 3, 4], [5.5, 6, 7, 8]])
    for text in ("1,2,3", "1,2,3,x", "1,2,3,4,5", ""):
        with pytest.raises(FasthgError, match="give x,y,w,h in pixels"):
            parse_boxes([text])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((10, 10, 5), np.uint8), r"array has shape \(10, 10, 5\); give RGB as \[H, W, 3\]"),
        (torch.zeros(10, 10, 3), r"tensor has shape \(10, 10, 3\); give RGB as \[3, H, W\]"),
        (np.full((10, 10, 3), np.nan), "values outside 0..1"),
        (np.zeros((10, 10, 3), np.int64), "array is int64; give uint8"),
    ],
)
def test_images_of_a_wrong_shape_or_kind_are_named(predictor: Predictor, image: Any, message: str) -> None:
    with pytest.raises(FasthgError, match=message):
        predictor(image)


def test_a_generator_is_drawn_from_as_the_pictures_are_needed(predictor: Predictor) -> None:
    alive: list[weakref.ref[Any]] = []
    most = 0

    def pictures() -> Iterator[NDArray[np.uint8]]:
        nonlocal most
        for i in range(60):
            picture = dotted(100 + i, 60)
            alive.append(weakref.ref(picture))
            most = max(most, sum(known() is not None for known in alive))
            yield picture

    assert len(predictor(pictures())) == 60
    assert most < 25
    with pytest.raises(FasthgError, match="nothing to predict on"):
        predictor(iter(()))


def test_large_pictures_do_not_wait_for_a_batch(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [PIL.Image.fromarray(dotted(90 + 9 * i, 60)) for i in range(7)]
    whole = predictor(pictures)
    asked: list[int] = []
    run = predictor.runner.run
    predictor.runner = replace(predictor.runner, run=lambda images: (asked.append(len(images)), run(images))[1])
    monkeypatch.setattr(predictor_module, "_HELD", 0)
    alone = predictor(pictures)
    assert asked == [3] * len(asked)  # filled up, so that no path meets another shape
    assert len(asked) == 7
    assert [pose.joints.tolist() for pose in alone] == [pose.joints.tolist() for pose in whole]


def test_a_predictor_cannot_be_sent_to_another_process(predictor: Predictor) -> None:
    with pytest.raises(FasthgError, match="eager cannot be sent to another process; make it ready there"):
        pickle.dumps(predictor)


def test_an_answer_that_is_not_a_number_is_an_error(predictor: Predictor) -> None:
    predictor.runner = replace(predictor.runner, run=lambda images: brightness(images) * float("inf"))
    with pytest.raises(FasthgError, match=r"eager \(fp32\) answered NaN or infinity"):
        predictor(dotted(50, 50))


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


def test_mirrored_answers_change_sides_by_the_skeletons_own_pairs(tiny_config: HourglassConfig) -> None:
    """A network that answers the right ear left of the middle: in the mirrored image the left ear is there."""
    skeleton = Skeleton("mouse", ("rightear", "leftear", "tail"), pairs=((0, 1),))
    predictor = Predictor(fasthg.HourglassNet(replace(tiny_config, skeleton=skeleton)).eval(), size=64, flip=True)

    def answer(images: torch.Tensor) -> torch.Tensor:
        maps = torch.zeros(len(images), 3, 16, 16)
        maps[:, 0, 8, 2] = maps[:, 1, 8, 13] = maps[:, 2, 8, 7] = 1.0  # the same for an image and its mirror image
        return maps

    predictor.runner = replace(predictor.runner, run=answer)
    (pose,) = predictor(np.zeros((64, 64, 3), np.uint8))
    assert pose.scores[:2].tolist() == [1.0, 1.0]  # both answers of an ear meet in one place
    assert pose.scores[2] == 0.5


def test_weights_must_be_of_the_variant_that_was_asked_for(net: fasthg.HourglassNet, tmp_path: Path) -> None:
    save(net, tmp_path / "a.safetensors")
    with pytest.raises(FasthgError, match="holds another network, not feats64"):
        Predictor(tmp_path / "a.safetensors", variant="feats64")


def test_a_path_that_cannot_run_here_says_why(net: fasthg.HourglassNet) -> None:
    with pytest.raises(BackendUnavailable, match="tensorrt: runs on cuda only"):
        Predictor(net, runtime="tensorrt", device="cpu")


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


def test_photographs_are_not_held_while_the_batch_fills(predictor: Predictor) -> None:
    """A phone's photograph takes 72 MB and its crop 0.2 MB: only crops wait for a batch of 16 to be full."""
    alive = most = 0

    def load() -> NDArray[np.uint8]:
        nonlocal alive, most
        image, alive = dotted(50, 50).view(type("Watched", (np.ndarray,), {})), alive + 1
        most = max(most, alive)

        def gone() -> None:
            nonlocal alive
            alive -= 1

        weakref.finalize(image, gone)
        return image

    predictor.batch_size = 16
    found = [Photo(f"{i}.png", load) for i in range(40)]
    assert len(list(predictor.stream(found))) == 40
    assert most <= 4, "one for each thread that reads"


def test_eight_callers_of_one_predictor_get_their_own_poses(predictor: Predictor) -> None:
    places = [(20.0 + 20 * i, 75.0) for i in range(8)]
    images = [dotted(x, y) for x, y in places]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            for (pose,), (x, y) in zip(pool.map(predictor, images), places):
                assert_on_the_dot(pose, x, y, 200)


def test_boxes_of_the_stored_photograph_are_turned_with_it(predictor: Predictor, tmp_path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # shown turned clockwise: (x, y) of the stored 200 x 150 is shown at (150 - y, x)
    PIL.Image.fromarray(dotted(130, 60, radius=2)).save(tmp_path / "a.png", exif=exif)
    for size, box in (((200, 150), [110, 40, 40, 40]), ((150, 200), [70, 110, 40, 40])):
        image = {"id": 1, "file_name": "a.png", "width": size[0], "height": size[1]}
        document = {"images": [image], "annotations": [{"image_id": 1, "bbox": box}]}
        (tmp_path / "boxes.json").write_text(json.dumps(document))
        (pose,) = predictor(tmp_path / "a.png", tmp_path / "boxes.json")
        assert_on_the_dot(pose, 90, 130, 40)
        assert pose.box == (70, 110, 40, 40)
