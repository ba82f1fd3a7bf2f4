"""The share of joints that are found within a fraction of a length of each person, under every mean in use.

Which length and which fraction is the protocol's matter (`fasthg.data.protocols`). The same predictions differ also by
how joints are averaged, so the means are printed together:

mean14      unweighted mean of the joints without pelvis and thorax (bearpaw, anibali)
weighted14  the same joints, each weighted by how often it is labelled (HRNet, mmpose)
pooled16    all labelled joints in one pool (princeton-vl)

Labelled joints count also when occluded; joints that are not labelled are skipped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fasthg.data.protocols import PCKH, Protocol
from fasthg.errors import FasthgError
from fasthg.pixels.geometry import JOINT_NAMES

if TYPE_CHECKING:
    from rich.table import Table

    from fasthg.data.annotations import People
    from fasthg.metrics.prediction_files import Truth

#: The seven columns that papers print: the top of the head, and six means of a left and a right joint.
GROUPS: dict[str, tuple[str, ...]] = {
    "head": ("head",),
    "shoulder": ("rsho", "lsho"),
    "elbow": ("relb", "lelb"),
    "wrist": ("rwri", "lwri"),
    "hip": ("rhip", "lhip"),
    "knee": ("rkne", "lkne"),
    "ankle": ("rank", "lank"),
}
MEANS: dict[str, str] = {
    "mean14": "mean of 14 joints (no pelvis, thorax)",
    "weighted14": "the same, weighted by joint count",
    "pooled16": "all joints pooled",
}
STRICT = 0.1  # the threshold that is printed beside every protocol's own
_OF_14 = np.array([name not in ("pelv", "thor") for name in JOINT_NAMES])
_AUC_STEPS = 51


@dataclass(frozen=True)
class Found:
    """Percentages at one threshold, or areas under their curves; NaN where no such joint is labelled."""

    per_joint: dict[str, float]
    per_group: dict[str, float]
    mean14: float
    weighted14: float
    pooled16: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: NaN becomes None."""
        plain = {name: _or_none(getattr(self, name)) for name in MEANS}
        return plain | {
            "per_group": {name: _or_none(value) for name, value in self.per_group.items()},
            "per_joint": {name: _or_none(value) for name, value in self.per_joint.items()},
        }


@dataclass(frozen=True)
class Scores:
    """One set of predictions under one protocol.

    at          at the protocol's threshold; its `mean14`, `weighted14`, ... are also those of the scores
    strict      at 0.1
    auc         area under the curve over thresholds 0 to the protocol's, in percent of the whole: 50 trapezoids
    num_people  that count
    left_out    people that do not, because the protocol's length is not known for them
    """

    protocol: Protocol
    at: Found
    strict: Found
    auc: Found
    num_people: int
    num_joints: int
    left_out: int = 0

    @property
    def mean14(self) -> float:
        return self.at.mean14

    @property
    def weighted14(self) -> float:
        return self.at.weighted14

    @property
    def pooled16(self) -> float:
        return self.at.pooled16

    @property
    def per_group(self) -> dict[str, float]:
        return self.at.per_group

    @property
    def per_joint(self) -> dict[str, float]:
        return self.at.per_joint

    @property
    def measures(self) -> dict[str, Found]:
        """The three measures by their names in JSON and in logs, such as "pckh@0.5"."""
        return {self.protocol.key(): self.at, self.protocol.key(STRICT): self.strict, "auc": self.auc}

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        about = {
            "protocol": self.protocol.key(),
            "divided_by": self.protocol.length,
            "num_people": self.num_people,
            "num_joints": self.num_joints,
            "left_out": self.left_out,
        }
        return about | {name: found.to_dict() for name, found in self.measures.items()}

    def table(self) -> Table:
        """Joints and means as rows, the three measures as columns."""
        from rich.table import Table

        measures = (self.at, self.strict, self.auc)
        left_out = f"; {self.left_out} people left out, who lack it" if self.left_out else ""
        table = Table(
            title=f"{self.num_people} people, {self.num_joints} joints",
            caption=f"{self.protocol}: errors over {self.protocol.length}{left_out}",
        )
        for column in ("", str(self.protocol), f"{self.protocol.name}@{STRICT}", "AUC"):
            table.add_column(column, justify="right" if column else "left")
        for group in GROUPS:
            table.add_row(group, *(_shown(found.per_group[group]) for found in measures))
        table.add_section()
        for mean, meaning in MEANS.items():
            table.add_row(f"{mean}: {meaning}", *(_shown(getattr(found, mean)) for found in measures))
        return table


def score(
    predictions: ArrayLike, joints: ArrayLike, labelled: ArrayLike, length: ArrayLike, protocol: Protocol = PCKH
) -> Scores:
    """Score predictions [N, 16, 2] against joints [N, 16, 2], in the same pixels.

    labelled  bool [N, 16]: which joints count
    length    [N] pixels, what the protocol divides by; NaN where not known

    A prediction at exactly the threshold counts as found; NaN counts as not found. Raises FasthgError for shapes that
    do not belong together, for an empty set, and for a length that is not known where the protocol needs everyone's.
    """
    predictions, joints = np.asarray(predictions, np.float64), np.asarray(joints, np.float64)
    labelled, length = np.asarray(labelled, bool), np.asarray(length, np.float64)
    if predictions.shape != joints.shape:
        raise FasthgError(
            f"predictions have shape {predictions.shape}, the truth {joints.shape}; give the same people in both"
        )
    counted = length > 0
    if not labelled.any():
        raise FasthgError(f"nothing to score: none of the {len(joints)} people has a labelled joint")
    if not (counted.all() if protocol.everyone else counted.any()):
        raise FasthgError(_unknown(protocol, int((~counted).sum()), len(joints)))
    labelled = labelled[counted]
    distance = np.linalg.norm(predictions[counted] - joints[counted], axis=-1) / length[counted, None]
    counts = labelled.sum(axis=0)

    def found(threshold: float) -> NDArray[np.int64]:
        return ((distance <= threshold) & labelled).sum(axis=0)

    curve = np.stack([found(threshold) for threshold in np.linspace(0.0, protocol.threshold, _AUC_STEPS)])
    area = (curve[1:] + curve[:-1]).sum(axis=0) / 2 / (_AUC_STEPS - 1)
    return Scores(
        protocol=protocol,
        at=_means(found(protocol.threshold), counts),
        strict=_means(found(STRICT), counts),
        auc=_means(area, counts),
        num_people=len(labelled),
        num_joints=int(counts.sum()),
        left_out=int((~counted).sum()),
    )


def score_people(predictions: ArrayLike, people: People | Truth, protocol: Protocol) -> Scores:
    """`score` of predictions [N, 16, 2] against annotated people under a protocol."""
    return score(predictions, people.joints, people.labelled, protocol.measure(people), protocol)


def _unknown(protocol: Protocol, missing: int, count: int) -> str:
    if protocol is PCKH:
        return (
            f"head size is not known for {missing} of {count} people; PCKh needs head boxes: give annotations"
            " with `head_box`, or put detections_our_format.mat or valid.h5 beside them"
        )
    return f"{protocol} divides by {protocol.length}, which is labelled for none of the {count} people; score others"


def _means(found: NDArray[Any], counts: NDArray[np.int64]) -> Found:
    """Percentages of joints found [16] of those labelled [16], under each mean."""
    present = counts > 0
    percent = np.full(len(counts), np.nan)
    percent[present] = 100.0 * found[present] / counts[present]
    per_joint = {name: float(value) for name, value in zip(JOINT_NAMES, percent)}
    chosen = _OF_14 & present
    return Found(
        per_joint=per_joint,
        per_group={group: _mean([per_joint[name] for name in names]) for group, names in GROUPS.items()},
        mean14=_mean(percent[_OF_14]),
        weighted14=float(100.0 * found[chosen].sum() / counts[chosen].sum()) if chosen.any() else math.nan,
        pooled16=float(100.0 * found.sum() / counts.sum()) if counts.any() else math.nan,
    )


def _mean(values: ArrayLike) -> float:
    """Mean of those that are not NaN."""
    values = np.asarray(values, np.float64)
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan


def _shown(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
