"""What a rendered person must be: human, where its labels say, and with its left on its left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from training.people.synthetic.cloth import color_image
from training.people.synthetic.lift import lift
from training.people.synthetic.look import sample_look
from training.people.synthetic.people import draw_person
from training.people.synthetic.pose import sample_angles, sample_figure
from training.people.synthetic.raster import Canvas, Ellipsoid, Light, Tube, draw
from training.people.synthetic.scene import record, render_scene
from training.people.synthetic.skeleton import (
    HEAD,
    LANK,
    LELB,
    LHIP,
    LKNE,
    LSHO,
    LWRI,
    NECK,
    PELV,
    RANK,
    RELB,
    RHIP,
    RKNE,
    RSHO,
    RWRI,
    THOR,
    Angles,
    Proportions,
    pose,
    project,
)

GREY = color_image((9, 9, 9))
FLAT_LIGHT = Light(np.array([0.0, 0.0, -1.0]), ambient=1.0, diffuse=0.0)
BONES = {
    (RHIP, RKNE): 0.275,
    (LKNE, LANK): 0.262,
    (RSHO, RELB): 0.180,
    (LELB, LWRI): 0.158,
    (PELV, THOR): 0.325,
    (RSHO, LSHO): 0.230,
    (RHIP, LHIP): 0.132,
}


def standing(**changes: list[float] | list[list[float]]) -> Angles:
    """Upright, arms hanging, facing the viewer; angles given in degrees."""
    shapes = {"root": 3, "spine": 3, "head": 3, "shoulder": (2, 3), "elbow": 2, "hip": (2, 3), "knee": 2, "ankle": 2}
    angles = {name: np.zeros(shape) for name, shape in shapes.items()}
    angles |= {name: np.deg2rad(value) for name, value in changes.items()}
    return Angles(**angles)


def blank_canvas(width: int = 300, height: int = 300) -> Canvas:
    return Canvas(np.zeros((height, width, 3), np.uint8))


class TestSkeleton:
    def test_a_person_who_faces_us_has_the_left_shoulder_on_our_right(self) -> None:
        joints = pose(standing(), Proportions()).joints
        assert joints[LSHO, 0] == pytest.approx(0.115)
        assert joints[RSHO, 0] == pytest.approx(-0.115)
        away = pose(standing(root=[180, 0, 0]), Proportions()).joints
        assert away[LSHO, 0] < 0 < away[RSHO, 0]

    def test_hanging_arms_and_straight_legs_end_where_their_lengths_say(self) -> None:
        joints = pose(standing(), Proportions()).joints
        np.testing.assert_allclose(joints[RANK], (-0.066, 0.275 + 0.262, 0), atol=1e-12)
        np.testing.assert_allclose(joints[LWRI], (0.115, -0.325 + 0.005 + 0.180 + 0.158, 0), atol=1e-12)

    def test_elbows_bend_forward_and_knees_backward(self) -> None:
        joints = pose(standing(elbow=[90, 90], knee=[90, 90]), Proportions()).joints
        np.testing.assert_allclose(joints[RWRI] - joints[RELB], (0, 0, -0.158), atol=1e-12)  # toward the viewer
        np.testing.assert_allclose(joints[LANK] - joints[LKNE], (0, 0, 0.262), atol=1e-12)

    def test_an_arm_raised_sideways_points_outward_on_either_side(self) -> None:
        joints = pose(standing(shoulder=[[0, 90, 0], [0, 90, 0]]), Proportions()).joints
        assert joints[RWRI, 0] == pytest.approx(-0.115 - 0.180 - 0.158)
        assert joints[LWRI, 0] == pytest.approx(0.115 + 0.180 + 0.158)

    def test_bones_keep_their_length_in_every_pose(self) -> None:
        rng = np.random.default_rng(0)
        for _ in range(30):
            joints = pose(sample_angles(rng), Proportions()).joints
            for (start, end), length in BONES.items():
                assert np.linalg.norm(joints[start] - joints[end]) == pytest.approx(length)

    def test_neck_and_head_top_lie_a_head_apart_as_in_mpii(self) -> None:
        """On all of MPII the two points are 0.8 diagonals of the head's box apart, around the box's centre."""
        rng = np.random.default_rng(1)
        for _ in range(20):
            figure = project(sample_figure(rng), 200.0, distance=5.0, tilt=0.1)
            box = figure.head_box()
            head, neck = figure.joints[HEAD, :2], figure.joints[NECK, :2]
            assert np.linalg.norm(head - neck) == pytest.approx(0.8 * np.hypot(*(box[2:] - box[:2])))
            np.testing.assert_allclose((head + neck) / 2, (box[:2] + box[2:]) / 2)

    def test_perspective_enlarges_what_is_near(self) -> None:
        body = pose(standing(elbow=[90, 90]), Proportions())
        seen = project(body, unit=100.0, distance=3.0, tilt=0.0)
        nearness = 3.0 / (3.0 - 0.158)
        assert seen.joints[LWRI, 0] == pytest.approx(11.5 * nearness)
        assert seen.joints[PELV].tolist() == [0, 0, 0]


class TestRaster:
    def test_a_ball_covers_the_area_of_its_circle(self) -> None:
        canvas = blank_canvas()
        ball = Ellipsoid(np.array([150.3, 149.6, 0.0]), np.eye(3), np.full(3, 60.0), color_image((200, 100, 50)))
        draw(canvas, ball, FLAT_LIGHT, 1)
        assert (canvas.owner == 1).sum() == pytest.approx(np.pi * 60**2, rel=0.01)
        assert canvas.depth.min() == pytest.approx(-60, abs=0.1)
        assert canvas.color[150, 150].tolist() == [200, 100, 50]

    def test_a_turned_ellipsoid_fills_its_bounding_box(self) -> None:
        canvas = blank_canvas()
        angle = np.deg2rad(30)
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        solid = Ellipsoid(np.array([150.0, 150.0, 0]), turn, np.array([80.0, 40.0, 30.0]), color_image((9, 9, 9)))
        draw(canvas, solid, FLAT_LIGHT, 1)
        columns = np.nonzero(canvas.owner)[1]
        half_width = np.hypot(80 * np.cos(angle), 40 * np.sin(angle))
        assert columns.max() - columns.min() + 1 == pytest.approx(2 * half_width, abs=2)
        assert (canvas.owner == 1).sum() == pytest.approx(np.pi * 80 * 40, rel=0.01)

    def test_a_tube_covers_a_rectangle_and_two_half_discs(self) -> None:
        canvas = blank_canvas()
        ends = np.array([60.0, 220.0, 0.0]), np.array([220.0, 80.0, 0.0])
        draw(canvas, Tube(*ends, 20.0, (1.0, 1.0), np.array([0, 0, -1.0]), color_image((9, 9, 9))), FLAT_LIGHT, 1)
        assert (canvas.owner == 1).sum() == pytest.approx(40 * np.hypot(160, 140) + np.pi * 20**2, rel=0.01)

    def test_a_flat_tube_looks_narrow_from_its_side(self) -> None:
        widths = []
        for front in ((0, 0, -1.0), (1.0, 0, 0)):
            canvas = blank_canvas()
            ends = np.array([150.0, 250.0, 0.0]), np.array([150.0, 50.0, 0.0])
            draw(canvas, Tube(*ends, 60.0, (1.0, 1.0), np.array(front), GREY, flatness=0.5), FLAT_LIGHT, 1)
            widths.append((canvas.owner[150] == 1).sum())
        assert widths == [120, 60]

    @pytest.mark.parametrize("reverse", [False, True])
    def test_the_nearer_of_two_limbs_is_seen_whichever_is_drawn_first(self, reverse: bool) -> None:
        canvas = blank_canvas()
        for owner, depth in sorted({1: 0.0, 2: 100.0}.items(), reverse=reverse):
            ends = np.array([50.0, 150.0, depth]), np.array([250.0, 150.0, depth])
            draw(canvas, Tube(*ends, 20.0, (1.0, 1.0), np.array([0, 0, -1.0]), GREY), FLAT_LIGHT, owner)
        assert canvas.owner[150, 150] == 1

    def test_what_lies_outside_the_image_is_not_drawn(self) -> None:
        canvas = blank_canvas(40, 30)
        ball = Ellipsoid(np.array([-90.0, 10, 0]), np.eye(3), np.full(3, 20.0), color_image((9, 9, 9)))
        draw(canvas, ball, FLAT_LIGHT, 1)
        assert not canvas.owner.any()


@pytest.mark.parametrize("yaw", [0, 35, -70, 180, 150])
def test_the_left_half_of_a_shirt_is_on_the_side_of_the_left_shoulder(yaw: float) -> None:
    rng = np.random.default_rng(3)
    shirt = color_image((0, 0, 200), 64, 96)
    shirt[:, 48:] = (200, 0, 0)
    look = sample_look(rng)
    look = type(look)(**{**vars(look), "shirt": shirt, "backpack": None})
    arms_out = standing(root=[yaw, 0, 0], shoulder=[[0, 100, 0], [0, 100, 0]])
    figure = project(pose(arms_out, Proportions()), 240.0, distance=6.0, tilt=0.0).moved(np.array([150.0, 190.0, 0]))
    canvas = blank_canvas()
    draw_person(canvas, figure, look, FLAT_LIGHT, 1)
    columns = np.arange(300) + 0.5
    chest = canvas.color[125:175].astype(int)
    left, right = (chest[..., channel] - chest[..., 2 - channel] > 150 for channel in (0, 2))
    assert min(left.sum(), right.sum()) > 40
    towards_left = (columns * left).sum() / left.sum() - (columns * right).sum() / right.sum()
    assert towards_left * (figure.joints[LSHO, 0] - figure.joints[RSHO, 0]) > 0


def test_the_face_is_seen_from_the_front_only() -> None:
    rng = np.random.default_rng(4)
    look = sample_look(rng)
    face = color_image((0, 200, 0), 64, 96)
    face[:, 30:66] = (200, 0, 0)
    look = type(look)(**{**vars(look), "head": face, "cap": None, "long_hair": False, "skin": (90, 90, 90)})
    seen = {}
    for yaw in (0, 180):
        canvas = blank_canvas()
        figure = project(pose(standing(root=[yaw, 0, 0]), Proportions()), 240.0, distance=6.0, tilt=0.0)
        draw_person(canvas, figure.moved(np.array([150.0, 190.0, 0])), look, FLAT_LIGHT, 1)
        above_chin = canvas.color[: int(figure.joints[NECK, 1] + 190)].astype(int)
        seen[yaw] = (above_chin[..., 0] - above_chin[..., 1] > 100).sum()
    assert seen[0] > 300
    assert seen[180] < 0.02 * seen[0]  # nothing but texels at the crown


class TestScenes:
    def test_visible_joints_lie_on_the_drawn_person(self) -> None:
        on, total = 0, 0
        for index in range(25):
            scene = render_scene(np.random.default_rng([11, index]))
            person = scene.people[0]
            for x, y in person.joints[person.visible]:
                around = scene.owner[max(int(y) - 2, 0) : int(y) + 3, max(int(x) - 2, 0) : int(x) + 3]
                on += bool((around == 1).any())
                total += 1
        assert total > 250
        assert on / total > 0.99

    def test_joints_behind_a_thing_are_labelled_but_not_visible(self) -> None:
        hidden = 0
        for index in range(25):
            scene = render_scene(np.random.default_rng([11, index]))
            person = scene.people[0]
            labelled = ~np.isnan(person.joints).any(axis=1)
            column, row = np.where(labelled[:, None], person.joints, 0).astype(int).T
            covered = labelled & (scene.owner[row, column] == 255)
            assert not person.visible[covered].any()
            hidden += covered.sum()
        assert hidden > 0

    def test_statistics_are_like_mpiis(self) -> None:
        """MPII's validation people: 23 % occluded, 72 % facing us, 0.4 % of joints outside the crop."""
        people = [render_scene(np.random.default_rng([12, index]), 240, 180).people[0] for index in range(150)]
        joints = np.stack([person.joints for person in people])
        visible = np.stack([person.visible for person in people])
        labelled = ~np.isnan(joints).any(axis=2)
        unit = np.array([200 * person.scale for person in people])
        centre = np.stack([person.center for person in people])
        assert 0.10 < 1 - visible.sum() / labelled.sum() < 0.25
        assert 0.62 < np.nanmean(joints[:, LSHO, 0] > joints[:, RSHO, 0]) < 0.82
        offset = (centre - joints[:, THOR])[:, 1] / unit
        assert np.nanmedian(offset) == pytest.approx(0.18, abs=0.08)
        crop = centre + np.stack([0 * unit, 0.075 * unit], axis=1)
        outside = (np.abs(joints - crop[:, None]) > 0.625 * unit[:, None, None]).any(axis=2) & labelled
        assert outside.sum() / labelled.sum() < 0.02
        assert labelled.sum(axis=1).min() >= 5

    def test_scale_is_head_size_as_in_mpii(self) -> None:
        """In every MPII record 200 * scale is 4.8 diagonals of the head's box."""
        for index in range(5):
            person = render_scene(np.random.default_rng([13, index]), 160, 120).people[0]
            diagonal = np.hypot(*(person.head_box[2:] - person.head_box[:2]))
            assert 200 * person.scale == pytest.approx(4.8 * diagonal)

    def test_a_record_is_in_mpiis_one_based_pixels(self) -> None:
        scene = render_scene(np.random.default_rng([14, 0]), 160, 120)
        written = record(scene, "a.jpg", 1, validation=True)
        labelled = ~np.isnan(scene.people[0].joints).any(axis=1)
        joints = np.array(written["joint_self"])
        np.testing.assert_allclose(joints[labelled, :2], scene.people[0].joints[labelled] + 0.5, atol=1e-3)
        assert (joints[~labelled] == 0).all()
        assert (written["isValidation"], written["img_width"], written["img_height"]) == (1.0, 160.0, 120.0)
        in_sight = [other for other in scene.people[1:] if not np.isnan(other.joints).all()]
        assert written["numOtherPeople"] == len(in_sight)

    def test_the_same_seed_draws_the_same_pixels_and_another_seed_another_person(self) -> None:
        first, again, other = (render_scene(np.random.default_rng(seed), 160, 120) for seed in (5, 5, 6))
        np.testing.assert_array_equal(first.image, again.image)
        assert (first.image != other.image).mean() > 0.5


class TestLift:
    def test_labelled_joints_stay_where_they_are(self) -> None:
        rng = np.random.default_rng(7)
        for _ in range(60):
            joints = project(sample_figure(rng), 200.0, distance=5.0, tilt=0.1).joints[:, :2] + 300
            missing = rng.random(16) < rng.uniform(0, 0.9)
            missing[rng.integers(16)] = False
            joints[missing] = np.nan
            figure = lift(rng, joints, rng.random(16) < 0.7, 200.0)
            np.testing.assert_array_equal(figure.joints[~missing, :2], joints[~missing])
            assert np.isfinite(figure.joints).all()
            assert np.isfinite(figure.head_rotation).all()

    @pytest.mark.parametrize(("yaw", "facing_us"), [(0, True), (30, True), (180, False), (150, False)])
    def test_the_order_of_the_shoulders_tells_front_from_back(self, yaw: float, facing_us: bool) -> None:
        seen = project(pose(standing(root=[yaw, 0, 0]), Proportions()), 200.0, distance=6.0, tilt=0.0)
        figure = lift(np.random.default_rng(0), seen.joints[:, :2], np.ones(16, bool), 200.0)
        assert (figure.chest_front[2] < 0) == facing_us

    @pytest.mark.parametrize("side", [1, -1])
    def test_the_bend_of_the_knees_tells_which_way_somebody_faces(self, side: int) -> None:
        sitting = standing(root=[side * 90, 0, 0], hip=[[85, 5, 0]] * 2, knee=[85, 85])
        seen = project(pose(sitting, Proportions()), 200.0, distance=6.0, tilt=0.0)
        figure = lift(np.random.default_rng(0), seen.joints[:, :2], np.ones(16, bool), 200.0)
        assert figure.chest_front[0] * side > 0.5

    def test_a_foreshortened_forearm_points_at_us_when_the_person_faces_us(self) -> None:
        seen = project(pose(standing(elbow=[90, 90]), Proportions()), 200.0, distance=50.0, tilt=0.0)
        figure = lift(np.random.default_rng(0), seen.joints[:, :2], np.ones(16, bool), 200.0)
        np.testing.assert_allclose((figure.joints - seen.joints)[[RWRI, LWRI], 2], 0, atol=8)

    def test_mpiis_own_people_become_figures(self, mpii_dir: Path) -> None:
        from fasthg.data.annotations import read_annotations

        people = read_annotations(mpii_dir / "valid.h5")
        rng = np.random.default_rng(8)
        for row in rng.choice(len(people), 300, replace=False):
            figure = lift(rng, people.joints[row], people.visible[row], 200 * people.scale[row])
            labelled = people.labelled[row]
            np.testing.assert_array_equal(figure.joints[labelled, :2], people.joints[row][labelled])
            assert np.isfinite(figure.joints).all()
