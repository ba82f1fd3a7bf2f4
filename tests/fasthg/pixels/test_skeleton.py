"""Skeletons by name, against the tables of those who made them and the files of those who use them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from fasthg.errors import FasthgError
from fasthg.pixels.skeleton import (
    COCO,
    CROWDPOSE,
    LEFT,
    LSP,
    MIDDLE,
    MPII,
    RIGHT,
    SKELETONS,
    Skeleton,
    get_skeleton,
    mirrored_pairs,
)


def category(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / name / f"test_{name}.json").read_text())["categories"][0]


def test_mpii_and_lsp_are_as_their_authors_number_them() -> None:
    assert MPII.names[:3] == ("rank", "rkne", "rhip")
    assert (MPII.names[10], MPII.names[15], len(MPII)) == ("rwri", "lwri", 16)
    assert MPII.flip_order == (5, 4, 3, 2, 1, 0, 6, 7, 8, 9, 15, 14, 13, 12, 11, 10)
    assert (LSP.names[6], LSP.names[13], len(LSP)) == ("rwri", "head", 14)


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=list(SKELETONS))
def test_mirroring_twice_is_no_mirroring_and_swaps_sides_only(skeleton: Skeleton) -> None:
    order = skeleton.flip_order
    assert [order[i] for i in order] == list(range(len(skeleton)))
    for right, left in skeleton.pairs:
        assert {skeleton.names[right][0], skeleton.names[left][0]} == {"r", "l"}
        assert skeleton.names[right].removeprefix("right")[-4:] == skeleton.names[left].removeprefix("left")[-4:] or (
            skeleton.names[right][1:] == skeleton.names[left][1:]
        )
        mirrored = {tuple(sorted((order[a], order[b]))) for a, b in skeleton.limbs}
        assert mirrored == {tuple(sorted(limb)) for limb in skeleton.limbs}, "limbs are the same on both sides"


def test_real_files_have_these_names_in_this_order(keypoints: Path) -> None:
    coco, crowdpose = category(keypoints, "coco"), category(keypoints, "crowdpose")
    assert COCO.names == tuple(coco["keypoints"])
    assert {tuple(sorted(limb)) for limb in COCO.limbs} == {tuple(sorted((a - 1, b - 1))) for a, b in coco["skeleton"]}
    assert CROWDPOSE.names == tuple(crowdpose["keypoints"])


@pytest.mark.parametrize(
    ("name", "pairs"), [("coco", 8), ("crowdpose", 6), ("ap10k", 7), ("animalpose", 8), ("fly", 14)]
)
def test_mirrored_pairs_are_found_in_the_names_of_real_files(keypoints: Path, name: str, pairs: int) -> None:
    names = category(keypoints, name)["keypoints"]
    found = mirrored_pairs(names)
    assert len(found) == pairs
    assert len({index for pair in found for index in pair}) == 2 * pairs


def test_pairs_are_right_before_left_and_need_both() -> None:
    paws, hands, ears = ("L_F_Paw", "R_F_Paw"), ("LeftHand", "RightHand"), ("ear_r", "ear_l")
    names = [*paws, *hands, *ears, "wingL2", "wingR2", "right_only", "rear", "lear"]
    assert mirrored_pairs(names) == ((1, 0), (3, 2), (4, 5), (7, 6))


def test_limbs_are_coloured_by_the_subjects_own_side() -> None:
    assert MPII.colour((0, 1)) == RIGHT  # right ankle to right knee
    assert MPII.colour((6, 3)) == LEFT  # pelvis to left hip
    assert MPII.colour((7, 8)) == MIDDLE
    assert COCO.colour((5, 6)) == MIDDLE, "from shoulder to shoulder"


def test_sigmas_are_given_where_the_evaluation_publishes_them() -> None:
    assert len(COCO.sigmas) == 17
    assert dict(zip(COCO.names, COCO.sigmas))["left_hip"] == 0.107
    assert dict(zip(CROWDPOSE.names, CROWDPOSE.sigmas))["neck"] == 0.079
    assert MPII.sigmas == LSP.sigmas == ()


def test_a_skeleton_goes_through_json_and_back() -> None:
    for skeleton in SKELETONS.values():
        assert Skeleton.from_dict(json.loads(json.dumps(asdict(skeleton)))) == skeleton


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"names": ()}, "'mouse' has no points"),
        ({"names": ("nose", "nose")}, "two points called 'nose'"),
        ({"names": ("a", "b"), "limbs": ((0, 2),)}, "limbs joins 0 and 2; give two of its points, 0 to 1"),
        ({"names": ("a", "b"), "pairs": ((1, 1),)}, "pairs joins 1 and 1"),
        ({"names": ("a", "b", "c"), "pairs": ((0, 1), (2, 0))}, "'a' is in two mirrored pairs"),
        ({"names": ("a", "b"), "sigmas": (0.1,)}, "1 sigmas for 2 points"),
        ({"names": ("a",), "eyes": 2}, "a skeleton cannot be read .*newer fasthg"),
    ],
)
def test_what_does_not_belong_together_is_named(content: dict[str, Any], message: str) -> None:
    with pytest.raises(FasthgError, match=message):
        Skeleton.from_dict({"name": "mouse", **content})
    with pytest.raises(FasthgError, match="unknown skeleton 'mouse'; choose one of mpii, lsp, coco, crowdpose"):
        get_skeleton("mouse")
