"""Poses land on the right pixels, whatever the image comes from, and bad input is named."""

from __future__ import annotations

import logging
import pickle
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
import torch
from numpy.typing import NDArray

import fasthg
from fasthg.errors import BackendUnavailable, FasthgError
from fasthg.network.checkpoint import save
from fasthg.network.variants import HourglassConfig
from fasthg.pixels.skeleton import Skeleton
from fasthg.predict import predictor as predictor_module
from fasthg.predict.photo import Photo
from fasthg.predict.predictor import Predictor
from fasthg.predict.sources import photos
from tests.fasthg.predict.dots import assert_on_the_dot, brightness, dotted, write_video


def test_joints_are_found_in_pixels_of_the_photograph(predictor: Predictor, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), dotted(130.5, 60.25))
    (pose,) = predictor(tmp_path / "a.png")
    assert_on_the_dot(pose, 130.5, 60.25, 200)
    assert pose.whole_image
    assert pose.box == (0, 0, 200, 150)


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
