"""The share of joints that are found within a fraction of a length of each person, under every mean in use.

Which length and which fraction is the protocol's matter (`fasthg.data.protocols`). The same predictions differ also by
how joints are averaged, so the means are printed together. For MPII's joints they are

mean14      unweighted mean of the joints without pelvis and thorax (bearpaw, anibali)
weighted14  the same joints, each weighted by how often it is labelled (HRNet, mmpose)
pooled16    all labelled joints in one pool (princeton-vl)

and for any other skeleton `mean`, unweighted over its points, and `pooled`, all labelled points in one pool. Labelled
joints count also when occluded; joints that are not labelled are skipped. Distances in pixels of the photograph stand
beside: their root mean square (RMSE) and their mean, which is what DeepLabCut prints.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fasthg.data.protocols import PCKH, Protocol
from fasthg.errors import FasthgError
from fasthg.pixels.skeleton import MPII, Skeleton

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
MPII_MEANS: dict[str, str] = {
    "mean14": "mean of 14 joints (no pelvis, thorax)",
    "weighted14": "the same, weighted by joint count",
    "pooled16": "all joints pooled",
}
MEANS: dict[str, str] = {"mean": "mean of the points", "pooled": "all labelled points pooled"}
_OF_14 = np.array([name not in ("pelv", "thor") for name in MPII.names])
_AUC_STEPS = 51


def means_of(skeleton: Skeleton) -> dict[str, str]:
    """The means that a skeleton's points are scored by, and what each is."""
    return MPII_MEANS if skeleton.names == MPII.names else MEANS


def headline_joints(skeleton: Skeleton) -> NDArray[np.bool_]:
    """Which joints [J] the headline counts."""
    return _OF_14 if means_of(skeleton) is MPII_MEANS else np.ones(len(skeleton), bool)


@dataclass(frozen=True)
class Percentages:
    """Percentages at one threshold, or areas under their curves; NaN where no such joint is labelled."""

    per_joint: dict[str, float]
    per_group: dict[str, float]
    means: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: NaN becomes None."""
        plain = {name: _or_none(value) for name, value in self.means.items()}
        return plain | {
            "per_group": {name: _or_none(value) for name, value in self.per_group.items()},
            "per_joint": {name: _or_none(value) for name, value in self.per_joint.items()},
        }


@dataclass(frozen=True)
class Scores:
    """One set of predictions under one protocol.

    at          at the protocol's threshold
    strict      at the protocol's strict threshold
    auc         area under the curve over thresholds 0 to the protocol's, in percent of the whole: 50 trapezoids
    num_people  that count
    rmse        root mean square of the labelled joints' distances, pixels of the photograph
    mean_error  their mean
    skeleton    whose joints they are
    unscaled    people that do not, because the protocol's length is not known for them
    """

    protocol: Protocol
    at: Percentages
    strict: Percentages
    auc: Percentages
    num_people: int
    num_joints: int
    rmse: float
    mean_error: float
    skeleton: Skeleton = MPII
    unscaled: int = 0

    @property
    def headline(self) -> tuple[str, float]:
        """The one figure that stands for the others, with its name: weighted14 for MPII's joints, pooled for others."""
        name = "weighted14" if "weighted14" in self.at.means else "pooled"
        return name, self.at.means[name]

    @property
    def selection(self) -> float:
        """What picks the best of several networks, the higher the better: the headline; for points that are no person's
        the pooled area under the curve, which still tells apart networks that find everything."""
        return self.auc.means["pooled"] if "pooled" in self.auc.means else self.headline[1]

    @property
    def measures(self) -> dict[str, Percentages]:
        """The three measures by their names in JSON and in logs, such as "pckh@0.5"."""
        return {self.protocol.key(): self.at, self.protocol.key(self.protocol.strict): self.strict, "auc": self.auc}

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        about = {
            "protocol": self.protocol.key(),
            "divided_by": self.protocol.length,
            "num_people": self.num_people,
            "num_joints": self.num_joints,
            "rmse_px": _or_none(self.rmse),
            "mean_px": _or_none(self.mean_error),
            "unscaled": self.unscaled,
        }
        return about | {name: found.to_dict() for name, found in self.measures.items()}

    def table(self) -> Table:
        """Joints and means as rows, the three measures as columns."""
        from rich.table import Table

        measures = (self.at, self.strict, self.auc)
        unscaled = f"; {self.unscaled} people left out, who lack it" if self.unscaled else ""
        table = Table(
            title=f"{self.num_people} people, {self.num_joints} joints",
            caption=f"{self.protocol}: errors over {self.protocol.length}; RMSE {self.rmse:.2f} px, mean"
            f" {self.mean_error:.2f} px{unscaled}",
        )
        for column in ("", str(self.protocol), f"{self.protocol.name}@{self.protocol.strict:g}", "AUC"):
            table.add_column(column, justify="right" if column else "left")
        for group in self.at.per_group:
            table.add_row(group, *(_shown(found.per_group[group]) for found in measures))
        table.add_section()
        for mean, meaning in means_of(self.skeleton).items():
            table.add_row(f"{mean}: {meaning}", *(_shown(found.means[mean]) for found in measures))
        return table


def score(
    predictions: ArrayLike,
    joints: ArrayLike,
    labelled: ArrayLike,
    length: ArrayLike,
    protocol: Protocol = PCKH,
    skeleton: Skeleton = MPII,
) -> Scores:
    """Score predictions [N, J, 2] against joints [N, J, 2], in the same pixels.

    labelled  bool [N, J]: which joints count
    length    [N] pixels, what the protocol divides by; NaN where not known

    A prediction at exactly the threshold counts as found; NaN counts as not found. Raises FasthgError for shapes that
    do not belong together, for an empty set, and for a length that is not known where the protocol needs everyone's.
    """
    predictions, joints = np.asarray(predictions, np.float64), np.asarray(joints, np.float64)
    labelled, length = np.asarray(labelled, bool), np.asarray(length, np.float64)
    if predictions.shape != joints.shape or predictions.shape[1:] != (len(skeleton), 2):
        raise FasthgError(
            f"predictions have shape {predictions.shape}, the truth {joints.shape}; give the same people in both"
        )
    counted = length > 0
    if not labelled.any():
        raise FasthgError(f"nothing to score: none of the {len(joints)} people has a labelled joint")
    if not (counted.all() if protocol.everyone else counted.any()):
        raise FasthgError(_unknown(protocol, int((~counted).sum()), len(joints)))
    labelled = labelled[counted]
    pixels = np.linalg.norm(predictions[counted] - joints[counted], axis=-1)
    distance = pixels / length[counted, None]
    counts = labelled.sum(axis=0)

    def found(threshold: float) -> NDArray[np.int64]:
        return ((distance <= threshold) & labelled).sum(axis=0)

    means, seen = _Means(skeleton, counts), pixels[labelled]
    curve = np.stack([found(threshold) for threshold in np.linspace(0.0, protocol.threshold, _AUC_STEPS)])
    area = (curve[1:] + curve[:-1]).sum(axis=0) / 2 / (_AUC_STEPS - 1)
    return Scores(
        protocol=protocol,
        at=means(found(protocol.threshold)),
        strict=means(found(protocol.strict)),
        auc=means(area),
        num_people=len(labelled),
        num_joints=int(counts.sum()),
        rmse=float(np.sqrt(np.mean(seen**2))) if seen.size else math.nan,
        mean_error=float(seen.mean()) if seen.size else math.nan,
        skeleton=skeleton,
        unscaled=int((~counted).sum()),
    )


def score_people(predictions: ArrayLike, people: People | Truth, protocol: Protocol) -> Scores:
    """`score` of predictions [N, J, 2] against annotated people under a protocol."""
    length = protocol.measure(people)
    return score(predictions, people.joints, people.labelled, length, protocol, people.skeleton)


def _unknown(protocol: Protocol, missing: int, count: int) -> str:
    if protocol is PCKH:
        return (
            f"head size is not known for {missing} of {count} people; PCKh needs head boxes: give annotations"
            " with `head_box`, or put detections_our_format.mat or valid.h5 beside them"
        )
    return f"{protocol} divides by {protocol.length}, which is labelled for none of the {count} people; score others"


@dataclass(frozen=True)
class _Means:
    """Percentages of joints found [J] of those labelled, `counts` [J], under each mean of the skeleton."""

    skeleton: Skeleton
    counts: NDArray[np.int64]

    def __call__(self, found: NDArray[Any]) -> Percentages:
        counts, present = self.counts, self.counts > 0
        percent = np.full(len(counts), np.nan)
        percent[present] = 100.0 * found[present] / counts[present]
        per_joint = {name: float(value) for name, value in zip(self.skeleton.names, percent)}
        pooled = float(100.0 * found.sum() / counts.sum()) if counts.any() else math.nan
        if means_of(self.skeleton) is MEANS:
            return Percentages(per_joint, per_joint, {"mean": _mean(percent), "pooled": pooled})
        chosen = _OF_14 & present
        weighted = float(100.0 * found[chosen].sum() / counts[chosen].sum()) if chosen.any() else math.nan
        groups = {group: _mean([per_joint[name] for name in names]) for group, names in GROUPS.items()}
        means = {"mean14": _mean(percent[_OF_14]), "weighted14": weighted, "pooled16": pooled}
        return Percentages(per_joint, groups, means)


def _mean(values: ArrayLike) -> float:
    """Mean of those that are not NaN."""
    values = np.asarray(values, np.float64)
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan


def _shown(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
