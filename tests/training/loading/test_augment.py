"""What the augmentation does to a person: in ranges, the same every time, with joints and colours that stay true."""

import numpy as np
import pytest

from fasthg.data.people import People
from fasthg.errors import FasthgError
from fasthg.pixels import geometry
from fasthg.pixels.skeleton import MPII
from training.loading.augment import (
    NO_AUGMENTATION,
    Augmentation,
    Draws,
    colour_table,
    crop_matrices,
    epoch_draws,
    place_joints,
    sample,
)

RIGHT_WRIST, LEFT_WRIST, HEAD = 10, 15, 9


def one_person(joints, labelled=None, visible=None, center=(100.0, 100.0), scale=0.5):
    """Box of 125 pixels around (100, 107.5)."""
    joints = np.asarray(joints, np.float64)[None]
    labelled = np.isfinite(joints).all(-1) if labelled is None else np.asarray(labelled, bool)[None]
    visible = labelled if visible is None else np.asarray(visible, bool)[None]
    return People(("a.jpg",), np.array([center]), np.array([scale]), joints, labelled, visible, np.array([np.nan]))


def draw(scale=1.0, rotation=0.0, flip=False, gain=(1.0, 1.0, 1.0)):
    return Draws(np.array([scale]), np.array([rotation]), np.array([flip]), np.array([gain]))


def joints_at(**places):
    joints = np.full((16, 2), np.nan)
    for name, place in places.items():
        joints[MPII.names.index(name)] = place
    return joints


def placed(people, drawn, size=256):
    rows = np.array([0])
    matrices = crop_matrices(people, rows, drawn, size)
    joints, weights = place_joints(people, rows, matrices, drawn.flip, size)
    return joints[0], weights[0]


def test_a_persons_draw_does_not_depend_on_the_others():
    few, many = (epoch_draws(Augmentation(), n, seed=3, epoch=7) for n in (5, 500))
    np.testing.assert_array_equal(few.scale, many.scale[:5])
    np.testing.assert_array_equal(few.gain, many.gain[:5])
    np.testing.assert_array_equal(few.rotation, many.take(np.arange(5)).rotation)


@pytest.mark.parametrize(("seed", "epoch"), [(3, 8), (4, 7), (7, 3)])
def test_another_seed_or_epoch_draws_anew(seed, epoch):
    assert (
        epoch_draws(Augmentation(), 50, seed=3, epoch=7).scale != epoch_draws(Augmentation(), 50, seed, epoch).scale
    ).all()


def test_draws_fill_the_published_ranges():
    """Scale 0.75-1.25, rotation +-30 degrees for 60 %, mirror for half, gain 0.8-1.2; 20,000 draws, 5 sigma."""
    draws = sample(np.random.default_rng(0), Augmentation(), 20_000)
    for values, low, high in ((draws.scale, 0.75, 1.25), (draws.gain, 0.8, 1.2), (draws.rotation, -30.0, 30.0)):
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high >= values.max() > high - 0.01 * (high - low)
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.01 * (high - low))
    assert (draws.rotation != 0).mean() == pytest.approx(0.6, abs=0.018)
    assert draws.flip.mean() == pytest.approx(0.5, abs=0.018)
    assert draws.flip[draws.rotation != 0].mean() == pytest.approx(0.5, abs=0.024)  # the draws are independent


def test_without_augmentation_nothing_changes():
    draws = epoch_draws(NO_AUGMENTATION, 100, seed=1, epoch=1)
    assert (draws.scale == 1).all()
    assert (draws.rotation == 0).all()
    assert not draws.flip.any()
    assert (draws.gain == 1).all()


def test_the_boxs_centre_is_the_crops_centre_under_any_augmentation():
    for drawn in (draw(), draw(1.25, 30.0, True), draw(0.75, -17.0)):
        joints, _ = placed(one_person(joints_at(pelv=(100.0, 107.5))), drawn)
        np.testing.assert_allclose(joints[6], (32, 32), atol=1e-5)


def test_scale_above_one_shows_more_of_the_photograph():
    """62.5 pixels right of the centre is the border of the box of 125, and 0.8 of the way at scale 1.25."""
    people = one_person(joints_at(pelv=(162.4, 107.5)))
    assert placed(people, draw())[0][6, 0] == pytest.approx(32 + 32 * 62.4 / 62.5)
    assert placed(people, draw(scale=1.25))[0][6, 0] == pytest.approx(32 + 32 * 62.4 / 62.5 / 1.25)


def test_rotation_turns_the_person_clockwise():
    """A quarter turn takes the point right of the centre to below it."""
    joints, _ = placed(one_person(joints_at(pelv=(131.25, 107.5))), draw(rotation=90.0))
    np.testing.assert_allclose(joints[6], (32, 48), atol=1e-5)


def test_flip_pairs_swap_left_and_right_wrists():
    people = one_person(joints_at(rwri=(80.0, 100.0), lwri=(130.0, 90.0), head=(100.0, 70.0)))
    plain, _ = placed(people, draw())
    flipped, weights = placed(people, draw(flip=True))
    np.testing.assert_allclose(flipped[RIGHT_WRIST], (64 - plain[LEFT_WRIST, 0], plain[LEFT_WRIST, 1]), rtol=1e-6)
    np.testing.assert_allclose(flipped[LEFT_WRIST], (64 - plain[RIGHT_WRIST, 0], plain[RIGHT_WRIST, 1]), rtol=1e-6)
    np.testing.assert_allclose(flipped[HEAD], (64 - plain[HEAD, 0], plain[HEAD, 1]), rtol=1e-6)
    assert weights.sum() == 3


def test_a_flipped_label_counts_for_the_other_side():
    _, weights = placed(one_person(joints_at(rwri=(100.0, 100.0))), draw(flip=True))
    assert weights[LEFT_WRIST] == 1
    assert weights.sum() == 1


def test_occluded_joints_count_and_unlabelled_ones_do_not():
    joints = joints_at(rwri=(100.0, 100.0), lwri=(110.0, 100.0))
    visible = np.zeros(16, bool)
    _, weights = placed(one_person(joints, visible=visible), draw())
    assert weights.tolist() == [float(joint in (RIGHT_WRIST, LEFT_WRIST)) for joint in range(16)]


def test_a_joint_outside_the_crop_has_no_weight():
    """The box spans x from 37.5 to 162.5."""
    people = one_person(joints_at(rwri=(37.6, 107.5), lwri=(162.6, 107.5), head=(100.0, 300.0)))
    joints, weights = placed(people, draw())
    assert (weights[RIGHT_WRIST], weights[LEFT_WRIST], weights[HEAD]) == (1, 0, 0)
    assert joints[HEAD, 1] > 64
    assert np.isfinite(joints).all()


def test_reach_holds_every_crop_that_can_be_drawn():
    """Corners of 5,000 drawn crops, back in the unaugmented crop, fill the reach and stay in it."""
    augmentation = Augmentation(scale=0.4, rotation=40.0)
    draws = sample(np.random.default_rng(1), augmentation, 5_000)
    people = one_person(joints_at())
    crops = crop_matrices(people, np.zeros(len(draws), np.int64), draws, 256)
    corners = geometry.apply(geometry.invert(crops), np.array([[0, 0], [256, 0], [0, 256], [256, 256]], float))
    reached = 2 * np.abs(corners - (100.0, 107.5)).max() / 125
    assert 0.97 * augmentation.reach < reached <= augmentation.reach


def test_gain_clips_before_the_mean_is_taken_off():
    """Red 200 at gain 1.2 is 0.9412, 255 clips to 1; blue 100 at 0.8 is 0.3137; the means are MPII's."""
    table = colour_table(np.array([1.2, 1.0, 0.8]))
    assert table.dtype == np.float32
    assert table[200, 0] == pytest.approx(200 / 255 * 1.2 - 0.4404, abs=1e-6)
    assert table[255, 0] == pytest.approx(1 - 0.4404, abs=1e-6)
    assert table[0, 1] == pytest.approx(-0.4440, abs=1e-6)
    assert table[100, 2] == pytest.approx(100 / 255 * 0.8 - 0.4327, abs=1e-6)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"scale": 1.0}, "scale is 1.0"), ({"flip": 1.5}, "flip is 1.5"), ({"rotation": -1.0}, "rotation is -1.0")],
)
def test_an_impossible_range_is_named(wrong, named):
    with pytest.raises(FasthgError, match=named):
        Augmentation(**wrong)
