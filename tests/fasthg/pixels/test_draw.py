"""Overlays show a red dot where each joint is, and leave the rest of the photograph alone."""

from __future__ import annotations

import numpy as np

from fasthg.pixels.draw import RED, draw_poses
from fasthg.pixels.skeleton import MPII

GREY = np.full((200, 300, 3), 90, np.uint8)
POSE = np.array([[60 + 10 * i, 40 + 7 * i] for i in range(16)], np.float64)


def test_every_joint_is_a_red_dot() -> None:
    drawn = draw_poses(GREY, [POSE], MPII)
    for x, y in POSE:
        assert tuple(drawn[int(y), int(x)]) == RED


def test_limbs_join_the_dots_and_far_pixels_stay() -> None:
    drawn = draw_poses(GREY, [POSE], MPII)
    x, y = (POSE[8] + POSE[9]) / 2  # between neck and head
    assert tuple(drawn[int(y), int(x)]) != (90, 90, 90)
    assert (drawn[:20] == 90).all()
    assert (GREY == 90).all()


def test_joints_that_were_not_found_are_left_out() -> None:
    scores = np.ones(16)
    scores[0] = 0.0
    pose = POSE.copy()
    pose[5] = np.nan
    drawn = draw_poses(GREY, [pose], MPII, [scores])
    x, y = POSE[0]
    assert tuple(drawn[int(y), int(x)]) == (90, 90, 90)
    assert not (draw_poses(GREY, [np.full((16, 2), np.nan)], MPII) != 90).any()


def test_joints_outside_the_photograph_do_no_harm() -> None:
    drawn = draw_poses(GREY, [POSE + np.array([280, -60])], MPII)
    assert drawn.shape == GREY.shape
