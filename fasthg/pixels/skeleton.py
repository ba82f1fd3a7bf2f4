"""What a network's points are: their names, which are mirror images of each other, which are joined, how exact.

A skeleton is plain data, so that checkpoints and artefacts can carry theirs: `Skeleton.from_dict(asdict(skeleton))`
is the same skeleton again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fasthg.errors import FasthgError

Colour = tuple[int, int, int]
RIGHT, LEFT, MIDDLE = (255, 150, 30), (40, 170, 255), (120, 220, 90)  # RGB of limbs on the subject's own right and left


@dataclass(frozen=True)
class Skeleton:
    """J points of a subject.

    name    such as "mpii"
    names   of the points, in the order of the heatmaps
    pairs   (right, left) indices of points that change places in a mirrored image
    limbs   indices of two points that a line joins
    sigmas  of each point for OKS, the spread of its labels over the subject's size (COCO's keypoint evaluation); empty
            where nobody publishes them, and OKS is not defined

    Raises FasthgError that names the point where these do not belong together.
    """

    name: str
    names: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...] = ()
    limbs: tuple[tuple[int, int], ...] = ()
    sigmas: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for field in ("pairs", "limbs"):
            object.__setattr__(self, field, tuple((int(a), int(b)) for a, b in getattr(self, field)))
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "sigmas", tuple(map(float, self.sigmas)))
        what = f"skeleton {self.name!r}"
        if not self.names:
            raise FasthgError(f"{what} has no points; give their names")
        if twice := _repeated(self.names):
            raise FasthgError(f"{what} has two points called {twice!r}; give each a name of its own")
        for field in ("pairs", "limbs"):
            for a, b in getattr(self, field):
                if not (0 <= a < len(self) and 0 <= b < len(self)) or a == b:
                    raise FasthgError(
                        f"{what}: {field} joins {a} and {b}; give two of its points, 0 to {len(self) - 1}"
                    )
        if (point := _repeated(index for pair in self.pairs for index in pair)) is not None:
            raise FasthgError(f"{what}: {self.names[point]!r} is in two mirrored pairs; give it one")
        if self.sigmas and (len(self.sigmas) != len(self) or min(self.sigmas) <= 0):
            raise FasthgError(f"{what} has {len(self.sigmas)} sigmas for {len(self)} points; give one above 0 for each")

    def __len__(self) -> int:
        return len(self.names)

    def __str__(self) -> str:
        return f"{self.name} ({len(self)} points)"

    @property
    def flip_order(self) -> tuple[int, ...]:
        """For each point, the one whose heatmap is its own in the mirrored image."""
        order = list(range(len(self)))
        for a, b in self.pairs:
            order[a], order[b] = b, a
        return tuple(order)

    def colour(self, limb: tuple[int, int]) -> Colour:
        """RGB of a limb: by its side where one of its points has one and the other has no other."""
        right, left = (any(pair[side] in limb for pair in self.pairs) for side in (0, 1))
        return MIDDLE if right == left else RIGHT if right else LEFT

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> Skeleton:
        """The skeleton that `dataclasses.asdict` gave, by way of JSON or not; raises FasthgError for anything else."""
        try:
            return Skeleton(**content)
        except (TypeError, ValueError, OverflowError) as error:
            raise FasthgError(f"a skeleton cannot be read ({error}); it may be of a newer fasthg") from None


def mirrored_pairs(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """(right, left) indices of the points whose names differ in their side alone.

    Sides are the words left and right anywhere, an l or r between separators (l_eye, L_F_Paw, ear_R), and a capital L
    or R after a small letter (eyeL, forelegR1).
    """
    index = {name: i for i, name in enumerate(names)}
    found = []
    for i, name in enumerate(names):
        other = _on_the_left(name)
        if other is not None and other in index:
            found.append((i, index[other]))
    return tuple(found)


_SIDES = (
    re.compile(r"right", re.IGNORECASE),
    re.compile(r"(?<![a-z])r(?![a-z])", re.IGNORECASE),
    re.compile(r"(?<=[a-z])R(?![a-z])"),
)
_LEFT_OF = {"right": "left", "Right": "Left", "RIGHT": "LEFT", "r": "l", "R": "L"}


def _on_the_left(name: str) -> str | None:
    """The name of a right point's mirror image; None for a name without a right side."""
    for pattern in _SIDES:
        match = pattern.search(name)
        if match and match[0] in _LEFT_OF:
            return name[: match.start()] + _LEFT_OF[match[0]] + name[match.end() :]
    return None


def _repeated(values: Iterable[Any]) -> Any:
    """The first value that comes a second time; None where none does."""
    seen = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None


#: Andriluka et al., CVPR 2014.
MPII = Skeleton(
    "mpii",
    (
        *("rank", "rkne", "rhip", "lhip", "lkne", "lank", "pelv", "thor"),
        *("neck", "head", "rwri", "relb", "rsho", "lsho", "lelb", "lwri"),
    ),
    pairs=((0, 5), (1, 4), (2, 3), (10, 15), (11, 14), (12, 13)),
    limbs=(
        *((0, 1), (1, 2), (2, 6), (6, 3), (3, 4), (4, 5)),
        *((6, 7), (7, 8), (8, 9)),
        *((10, 11), (11, 12), (12, 7), (7, 13), (13, 14), (14, 15)),
    ),
)

#: Johnson and Everingham, BMVC 2010, under MPII's names.
LSP = Skeleton(
    "lsp",
    (
        *("rank", "rkne", "rhip", "lhip", "lkne", "lank"),
        *("rwri", "relb", "rsho", "lsho", "lelb", "lwri", "neck", "head"),
    ),
    pairs=((0, 5), (1, 4), (2, 3), (6, 11), (7, 10), (8, 9)),
    limbs=(
        *((0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (2, 8), (3, 9)),
        *((6, 7), (7, 8), (8, 12), (12, 9), (9, 10), (10, 11), (12, 13)),
    ),
)

_COCO_NAMES = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow"),
    *("right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee"),
    *("left_ankle", "right_ankle"),
)
#: Lin et al., ECCV 2014; the sigmas are those of COCO's keypoint evaluation.
COCO = Skeleton(
    "coco",
    _COCO_NAMES,
    pairs=mirrored_pairs(_COCO_NAMES),
    limbs=(
        *((15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8), (7, 9), (8, 10)),
        *((1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6)),
    ),
    sigmas=(
        *(0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072),
        *(0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089),
    ),
)

_CROWDPOSE_NAMES = (
    *("left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip"),
    *("right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle", "head", "neck"),
)
#: Li et al., CVPR 2019; the sigmas are those of its evaluation.
CROWDPOSE = Skeleton(
    "crowdpose",
    _CROWDPOSE_NAMES,
    pairs=mirrored_pairs(_CROWDPOSE_NAMES),
    limbs=(
        *((10, 8), (8, 6), (11, 9), (9, 7), (6, 7), (0, 6), (1, 7)),
        *((0, 2), (2, 4), (1, 3), (3, 5), (12, 13), (13, 0), (13, 1)),
    ),
    sigmas=(0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089, 0.079, 0.079),
)

#: What MPII's names stand for in COCO's and CrowdPose's words. Their hips and shoulders are annotated a little further
#: out or in, but are the same joints.
_MPII_WORDS = {
    f"{side[0]}{short}": f"{side}_{long}"
    for side in ("left", "right")
    for short, long in (
        *(("ank", "ankle"), ("kne", "knee"), ("hip", "hip")),
        *(("wri", "wrist"), ("elb", "elbow"), ("sho", "shoulder")),
    )
}

SKELETONS: dict[str, Skeleton] = {skeleton.name: skeleton for skeleton in (MPII, LSP, COCO, CROWDPOSE)}


def of_count(count: int) -> Skeleton:
    """The skeleton of a network whose file says only how many points it has: MPII's or COCO's by their number, else
    one of numbered points."""
    known = {len(skeleton): skeleton for skeleton in (MPII, COCO)}
    return known.get(count) or Skeleton("points", tuple(f"point{number}" for number in range(1, count + 1)))


def check_count(source: str, count: int, skeleton: Skeleton) -> None:
    """Raise FasthgError where a number of points is not the skeleton's."""
    if count != len(skeleton):
        raise FasthgError(f"{source} has {count} points, the skeleton {skeleton}; give another skeleton")


def check_same_points(source: str, theirs: Skeleton, ours: Skeleton) -> None:
    """Raise FasthgError where two skeletons do not have the same points in the same order."""
    if theirs.names == ours.names:
        return
    if len(theirs) != len(ours):
        difference = f"{theirs} where {ours} is wanted"
    else:
        first = next(i for i, (a, b) in enumerate(zip(theirs.names, ours.names)) if a != b)
        difference = (
            f"{theirs} where {ours} is wanted: point {first + 1} is {theirs.names[first]!r}, not {ours.names[first]!r}"
        )
    raise FasthgError(f"{source} has the skeleton {difference}; give what was made for the same points")


def shared_points(theirs: Skeleton, ours: Skeleton) -> dict[int, int]:
    """Which of their points is which of ours, by the names; their left wrist is ours in MPII's short words too."""
    index = {_MPII_WORDS.get(name, name): i for i, name in enumerate(theirs.names)}
    words = (_MPII_WORDS.get(name, name) for name in ours.names)
    return {index[word]: place for place, word in enumerate(words) if word in index}


def get_skeleton(name: str) -> Skeleton:
    """A skeleton by name; raises FasthgError that lists the names."""
    if name not in SKELETONS:
        raise FasthgError(f"unknown skeleton {name!r}; choose one of {', '.join(SKELETONS)}")
    return SKELETONS[name]
