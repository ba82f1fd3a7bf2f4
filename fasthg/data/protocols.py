"""What a dataset's papers score by: the length that a joint's error is divided by, and the share of it that is allowed.

A score says nothing without its protocol: the same predictions of the same people differ by tens of points between
these. So every table and every JSON document carries the protocol's name, and a dataset has its own.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fasthg.pixels.geometry import JOINT_NAMES

_RHIP, _LHIP, _NECK, _HEAD, _RSHO, _LSHO = map(JOINT_NAMES.index, ("rhip", "lhip", "neck", "head", "rsho", "lsho"))


class Annotated(typing.Protocol):
    """Whatever holds the truth of N people: joints [N, 16, 2] with NaN where not labelled, and head sizes [N]."""

    @property
    def joints(self) -> NDArray[np.float64]: ...

    @property
    def head_size(self) -> NDArray[np.float64]: ...


@dataclass(frozen=True)
class Protocol:
    """One way of counting the joints that were found.

    name       such as "PCKh"; with the threshold it is the protocol's name, "PCKh@0.5"
    threshold  of the error over the length, up to which a joint counts as found
    length     what the length is, for people to read
    measure    the lengths [N] of annotated people in pixels, NaN where what they are measured by is not labelled
    everyone   the length has to be known for everyone; else people without it are left out, and counted
    """

    name: str
    threshold: float
    length: str
    measure: Callable[[Annotated], NDArray[np.float64]]
    everyone: bool = False

    def __str__(self) -> str:
        return f"{self.name}@{self.threshold:g}"

    def key(self, threshold: float | None = None) -> str:
        """Name in JSON and in logs, at the protocol's threshold or another: "pckh@0.5"."""
        return f"{self.name.lower()}@{self.threshold if threshold is None else threshold:g}"


def torso(people: Annotated) -> NDArray[np.float64]:
    """Right hip to left shoulder, or left hip to right shoulder where one of those is not labelled."""
    one = _between(people, _RHIP, _LSHO)
    return np.where(np.isnan(one), _between(people, _LHIP, _RSHO), one)


def head_size(people: Annotated) -> NDArray[np.float64]:
    """0.6 x the diagonal of the head's box, as annotated."""
    return people.head_size


def head_segment(people: Annotated) -> NDArray[np.float64]:
    """Neck to the top of the head."""
    return _between(people, _NECK, _HEAD)


def _between(people: Annotated, first: int, second: int) -> NDArray[np.float64]:
    """Distances [N] of two joints; NaN where one is not labelled or both are in one place."""
    length = np.linalg.norm(people.joints[:, first] - people.joints[:, second], axis=-1)
    return np.where(length > 0, length, np.nan)


#: MPII (Andriluka et al., CVPR 2014).
PCKH = Protocol("PCKh", 0.5, "0.6 x the head box's diagonal", head_size, everyone=True)
#: LSP and its extended set (PCK: Yang and Ramanan, PAMI 2013; by the torso: Sapp and Taskar, CVPR 2013).
PCK = Protocol("PCK", 0.2, "the torso, hip to opposite shoulder", torso)
#: The same name as MPII's in some papers, another length: never to be compared with it.
PCKH_SEGMENT = Protocol("PCKh-segment", 0.5, "the segment from neck to head top", head_segment)

MPII_PROTOCOLS = (PCKH,)
LSP_PROTOCOLS = (PCK, PCKH_SEGMENT)
