"""What a dataset's papers score by: the length that a joint's error is divided by, and the share of it that is allowed.

A score says nothing without its protocol: the same predictions of the same people differ by tens of points between
these. So every table and every JSON document carries the protocol's name, and a dataset has its own.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fasthg.errors import FasthgError
from fasthg.pixels.skeleton import Skeleton

BOX_SIDE = 200.0  # pixels of the box's longer side for a scale of 1


class Annotated(typing.Protocol):
    """The truth of N people: joints [N, J, 2] with NaN where not labelled, head sizes and scales [N]."""

    @property
    def joints(self) -> NDArray[np.float64]: ...

    @property
    def head_size(self) -> NDArray[np.float64]: ...

    @property
    def scale(self) -> NDArray[np.float64]: ...

    @property
    def skeleton(self) -> Skeleton: ...


@dataclass(frozen=True)
class Protocol:
    """One way of counting the joints that were found.

    name       such as "PCKh"; with the threshold it is the protocol's name, "PCKh@0.5"
    threshold  of the error over the length, up to which a joint counts as found
    length     what the length is, for people to read
    measure    the lengths [N] of annotated people in pixels, NaN where what they are measured by is not labelled
    everyone   the length has to be known for everyone; else people without it are left out, and counted
    strict     a second threshold, which is printed beside
    """

    name: str
    threshold: float
    length: str
    measure: Callable[[Annotated], NDArray[np.float64]]
    everyone: bool = False
    strict: float = 0.1

    def __str__(self) -> str:
        return f"{self.name}@{self.threshold:g}"

    def key(self, threshold: float | None = None) -> str:
        """Name in JSON and in logs, at the protocol's threshold or another: "pckh@0.5"."""
        return f"{self.name.lower()}@{self.threshold if threshold is None else threshold:g}"


def torso(people: Annotated) -> NDArray[np.float64]:
    """Right hip to left shoulder, or left hip to right shoulder where one of those is not labelled."""
    one = _between(people, "rhip", "lsho")
    return np.where(np.isnan(one), _between(people, "lhip", "rsho"), one)


def head_size(people: Annotated) -> NDArray[np.float64]:
    """0.6 x the diagonal of the head's box, as annotated."""
    return people.head_size


def head_segment(people: Annotated) -> NDArray[np.float64]:
    """Neck to the top of the head."""
    return _between(people, "neck", "head")


def box_side(people: Annotated) -> NDArray[np.float64]:
    """The longer side of the box; of the whole image where that is the subject."""
    return BOX_SIDE * np.asarray(people.scale, np.float64)


def one_pixel(people: Annotated) -> NDArray[np.float64]:
    """1 for everyone: thresholds are pixels."""
    return np.ones(len(people.joints))


#: What the ends of lengths are called in skeletons other than MPII's.
_OTHER_NAMES = {"rhip": "right_hip", "lhip": "left_hip", "rsho": "right_shoulder", "lsho": "left_shoulder"}


def _between(people: Annotated, *ends: str) -> NDArray[np.float64]:
    """Distances [N] of two joints; NaN where one is not labelled or both are in one place."""
    names = people.skeleton.names
    places = [names.index(end if end in names else _OTHER_NAMES.get(end, end)) for end in ends if _has(names, end)]
    if len(places) < len(ends):
        raise FasthgError(f"the skeleton {people.skeleton} has no {' and '.join(ends)} to measure by; measure by box")
    length = np.linalg.norm(people.joints[:, places[0]] - people.joints[:, places[1]], axis=-1)
    return np.where(length > 0, length, np.nan)


def _has(names: tuple[str, ...], end: str) -> bool:
    return end in names or _OTHER_NAMES.get(end) in names


#: MPII (Andriluka et al., CVPR 2014).
PCKH = Protocol("PCKh", 0.5, "0.6 x the head box's diagonal", head_size, everyone=True)
#: LSP and its extended set (PCK: Yang and Ramanan, PAMI 2013; by the torso: Sapp and Taskar, CVPR 2013).
PCK = Protocol("PCK", 0.2, "the torso, hip to opposite shoulder", torso)
#: The same name as MPII's in some papers, another length: never to be compared with it.
PCKH_SEGMENT = Protocol("PCKh-segment", 0.5, "the segment from neck to head top", head_segment)

#: Any points in boxes (Yang and Ramanan, PAMI 2013, with a smaller share).
PCK_BOX = Protocol("PCK-box", 0.1, "the longer side of the box", box_side, strict=0.05)
#: Any points in whole images, where a subject is a part of the image.
PCK_IMAGE = Protocol("PCK-image", 0.02, "the longer side of the image", box_side, strict=0.01)

MPII_PROTOCOLS = (PCKH,)
LSP_PROTOCOLS = (PCK, PCKH_SEGMENT)
BOX_PROTOCOLS = (PCK_BOX,)
IMAGE_PROTOCOLS = (PCK_IMAGE,)

_LENGTHS = {
    "head": PCKH,
    "torso": PCK,
    "box": PCK_BOX,
    "image": PCK_IMAGE,
    "pixels": Protocol("PCK-pixels", 5.0, "one pixel", one_pixel),
}


def parse_protocol(text: str) -> Protocol:
    """A protocol of "box@0.1" and the like: head, torso, box, image or pixels, and the threshold; the strict one is
    half of it."""
    name, _at, share = text.partition("@")
    try:
        threshold = float(share)
    except ValueError:
        threshold = 0.0
    if name not in _LENGTHS or not threshold > 0:
        raise FasthgError(f"unknown measure {text!r}; give {', '.join(_LENGTHS)} with a threshold, such as box@0.1")
    return replace(_LENGTHS[name], threshold=threshold, strict=threshold / 2)
