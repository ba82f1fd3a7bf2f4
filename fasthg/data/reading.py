"""What the readers of labelled projects share: how a user chooses, what a reader hands on, which images are held out.

Points are continuous pixels of their image with the origin at the corner of its top-left pixel, as everywhere here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fasthg.data.people import People, read_text
from fasthg.errors import FasthgError
from fasthg.pixels import geometry
from fasthg.pixels.skeleton import SKELETONS, Skeleton, mirrored_pairs

POINTS_MARGIN = 1.3  # of a box's side over the larger extent of the labelled points, where a subject has no box


@dataclass(frozen=True)
class Reading:
    """What a user says of a project beside where it lies.

    category  name or number of the subjects to read, where a file has several kinds
    holdout   the images to validate on where no file says it: "every6" is each sixth from the first on, "0.2@7" a share
              drawn with a seed, anything else a file with a name on each line
    pairs     points that are mirror images of each other, "right:left,right:left", or "none"; None tells by names
    """

    category: str | None = None
    holdout: str = "every6"
    pairs: str | None = None


@dataclass(frozen=True)
class Labels:
    """What a reader found.

    people        subjects with at least one labelled point; their images are relative to `image_dir`
    image_dir     folder of the images
    annotations   the file that the labels are in, or the folder of several
    source        such as "DeepLabCut project", for people to read
    whole_images  each subject is a whole image, as nothing says where in it the subject is
    held_out      bool [N], to validate on; None where no file says it
    files         the file of each split, where each has one
    """

    people: People
    image_dir: Path
    annotations: Path
    source: str
    whole_images: bool = False
    held_out: NDArray[np.bool_] | None = None
    files: Mapping[str, Path] = field(default_factory=dict)

    def summary(self, held_out: NDArray[np.bool_], how: str) -> str:
        """What was read, in three lines, for the user to confirm."""
        people, skeleton = self.people, self.people.skeleton
        mirrored = ", ".join(f"{skeleton.names[a]}-{skeleton.names[b]}" for a, b in skeleton.pairs) or "none"
        subjects = "whole images" if self.whole_images else "boxes"
        return (
            f"data: {self.source} {self.annotations}: {len(people)} subjects ({subjects}) in"
            f" {len(set(people.images))} images, {int(people.labelled.sum())} labelled points\n"
            f"points: {', '.join(skeleton.names)}; mirrored pairs: {mirrored} (--pairs changes them)\n"
            f"split: {int((~held_out).sum())} to train on, {int(held_out.sum())} held out, {how}"
        )


def make_labels(
    images: Sequence[str],
    points: ArrayLike,
    labelled: ArrayLike,
    boxes: ArrayLike | None,
    sizes: ArrayLike | None,
    skeleton: Skeleton,
    image_dir: Path,
    annotations: Path,
    source: str,
    visible: ArrayLike | None = None,
    held_out: ArrayLike | None = None,
) -> Labels:
    """Labels of N subjects; those without a labelled point are left out.

    points  [N, J, 2] pixels
    boxes   [N, 4] x, y, width, height in pixels; NaN, or no area, for a subject without one, whose box is then made
            about its points. None where each subject is a whole image of `sizes` [N, 2], width and height
    """
    points = np.asarray(points, np.float64)
    known: NDArray[np.bool_] = np.asarray(labelled, bool) & np.isfinite(points).all(-1)
    seen = known if visible is None else known & np.asarray(visible, bool)
    keep = np.asarray(known.any(axis=1), bool)
    if not keep.any():
        raise FasthgError(f"{annotations}: no subject has a labelled point; label some images first")
    if boxes is None:
        assert sizes is not None
        sizes = np.asarray(sizes, np.float64)
        boxes = np.concatenate([np.zeros_like(sizes), sizes], axis=1)
        whole_images = True
    else:
        boxes, whole_images = boxes_or_around(np.asarray(boxes, np.float64), points, known), False
    center, scale = zip(*(geometry.box_to_center_scale(*box) for box in boxes[keep]))
    people = People(
        images=tuple(name for name, kept in zip(images, keep) if kept),
        center=np.stack(center),
        scale=np.array(scale),
        joints=np.where(known[..., None], points, np.nan)[keep],
        labelled=known[keep],
        visible=seen[keep],
        head_size=np.full(int(keep.sum()), np.nan),
        skeleton=skeleton,
    )
    chosen = None if held_out is None else np.asarray(held_out, bool)[keep]
    return Labels(people, image_dir, annotations, source, whole_images, chosen)


def boxes_or_around(
    boxes: NDArray[np.float64], points: NDArray[np.float64], labelled: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Boxes [N, 4], a square about the labelled points in place of each that has no area."""
    low = np.where(labelled[..., None], points, np.inf).min(axis=1)
    high = np.where(labelled[..., None], points, -np.inf).max(axis=1)
    with np.errstate(invalid="ignore"):
        side = POINTS_MARGIN * np.maximum((high - low).max(axis=1), 1.0)
        around = np.column_stack([(low + high - side[:, None]) / 2, side, side])
    usable = np.asarray(np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1), bool)
    return np.where(usable[:, None], boxes, around)


def make_skeleton(
    name: str,
    names: Sequence[str],
    limbs: Sequence[tuple[int, int]],
    pairs: str | None,
    told: Sequence[tuple[int, int]] = (),
) -> Skeleton:
    """The skeleton of a file's points: a known one where the names are its own, else by what the file says.

    told  mirrored pairs that the file says; by the names where it says none
    """
    known = next((skeleton for skeleton in SKELETONS.values() if skeleton.names == tuple(names)), None)
    inside = tuple((a, b) for a, b in limbs if a != b and min(a, b) >= 0 and max(a, b) < len(names))
    skeleton = known or Skeleton(name, tuple(names), tuple(told) or mirrored_pairs(names), inside)
    return skeleton if pairs is None else replace(skeleton, pairs=_parse_pairs(pairs, skeleton))


def _parse_pairs(text: str, skeleton: Skeleton) -> tuple[tuple[int, int], ...]:
    if text == "none":
        return ()
    found = []
    for part in text.split(","):
        right, _colon, left = part.strip().partition(":")
        if right not in skeleton.names or left not in skeleton.names:
            raise FasthgError(
                f"pair {part.strip()!r}: give right:left of the points {', '.join(skeleton.names)}, or none"
            )
        found.append((skeleton.names.index(right), skeleton.names.index(left)))
    return tuple(found)


def hold_out(images: Sequence[str], rule: str) -> tuple[NDArray[np.bool_], str]:
    """Which subjects to validate on, bool [N], by their images, and how they were chosen."""
    names = sorted(set(images))
    if every := re.fullmatch(r"every([1-9]\d{0,8})", rule):
        chosen, how = set(names[:: int(every[1])]), f"every {every[1]}th image (--holdout changes it)"
    elif part := re.fullmatch(r"(0\.0*[1-9]\d*)(?:@(\d{1,18}))?", rule):
        share, seed = part[1], int(part[2] or 0)
        drawn = np.random.default_rng(seed).permutation(len(names))[: max(1, round(float(share) * len(names)))]
        chosen, how = {names[i] for i in drawn}, f"a share of {share} with seed {seed}"
    else:
        chosen, how = _listed(Path(rule), names), f"as {rule} lists them"
    return np.array([name in chosen for name in images]), how


def _listed(file: Path, names: Sequence[str]) -> set[str]:
    try:
        wanted = {line.strip() for line in read_text(file).splitlines() if line.strip()}
    except FasthgError:
        raise FasthgError(f"holdout {file}: give every6, a share such as 0.2@7, or a file of image names") from None
    found = {name for name in names if name in wanted or Path(name).name in wanted}
    known = found | {Path(name).name for name in found}
    if missing := sorted(wanted - known):
        raise FasthgError(f"holdout {file}: {missing[0]} is none of the {len(names)} labelled images")
    return found
