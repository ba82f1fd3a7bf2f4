"""PCKh: the share of joints found within a fraction of the head's size, under every protocol in use.

The same predictions score differently under each, so they are printed together:

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

from fasthg.errors import FasthgError
from fasthg.metrics.prediction_files import Truth, read_predictions, read_truth
from fasthg.pixels.geometry import JOINT_NAMES

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["GROUPS", "PCKh", "Scores", "Truth", "read_predictions", "read_truth", "score"]

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
PROTOCOLS: dict[str, str] = {
    "mean14": "mean of 14 joints (no pelvis, thorax)",
    "weighted14": "the same, weighted by joint count",
    "pooled16": "all joints pooled",
}
_OF_14 = np.array([name not in ("pelv", "thor") for name in JOINT_NAMES])
_AUC_THRESHOLDS = np.linspace(0.0, 0.5, 51)


@dataclass(frozen=True)
class PCKh:
    """Percentages at one threshold, or areas under their curves; NaN where no such joint is labelled."""

    per_joint: dict[str, float]
    per_group: dict[str, float]
    mean14: float
    weighted14: float
    pooled16: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: NaN becomes None."""
        plain = {name: _or_none(getattr(self, name)) for name in PROTOCOLS}
        return plain | {
            "per_group": {name: _or_none(value) for name, value in self.per_group.items()},
            "per_joint": {name: _or_none(value) for name, value in self.per_joint.items()},
        }


@dataclass(frozen=True)
class Scores:
    """PCKh of one set of predictions.

    at_05  at 0.5; its `mean14`, `weighted14`, `pooled16`, `per_group` and `per_joint` are also those of the scores
    at_01  at 0.1
    auc    area under the curve over thresholds 0 to 0.5, in percent of the whole: trapezoids of width 0.01
    """

    at_05: PCKh
    at_01: PCKh
    auc: PCKh
    num_people: int
    num_joints: int

    @property
    def mean14(self) -> float:
        return self.at_05.mean14

    @property
    def weighted14(self) -> float:
        return self.at_05.weighted14

    @property
    def pooled16(self) -> float:
        return self.at_05.pooled16

    @property
    def per_group(self) -> dict[str, float]:
        return self.at_05.per_group

    @property
    def per_joint(self) -> dict[str, float]:
        return self.at_05.per_joint

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "num_people": self.num_people,
            "num_joints": self.num_joints,
            "pckh@0.5": self.at_05.to_dict(),
            "pckh@0.1": self.at_01.to_dict(),
            "auc": self.auc.to_dict(),
        }

    def table(self) -> Table:
        """Joints and protocols as rows, the three measures as columns."""
        from rich.table import Table

        measures = (self.at_05, self.at_01, self.auc)
        table = Table(title=f"{self.num_people} people, {self.num_joints} joints")
        for column in ("", "PCKh@0.5", "PCKh@0.1", "AUC"):
            table.add_column(column, justify="right" if column else "left")
        for group in GROUPS:
            table.add_row(group, *(_shown(pckh.per_group[group]) for pckh in measures))
        table.add_section()
        for protocol, meaning in PROTOCOLS.items():
            table.add_row(f"{protocol}: {meaning}", *(_shown(getattr(pckh, protocol)) for pckh in measures))
        return table


def score(predictions: ArrayLike, joints: ArrayLike, labelled: ArrayLike, head_size: ArrayLike) -> Scores:
    """Score predictions [N, 16, 2] against joints [N, 16, 2], in the same pixels.

    labelled   bool [N, 16]: which joints count
    head_size  [N] pixels, 0.6 x the diagonal of the head's box

    A prediction at exactly the threshold counts as found; NaN counts as not found. Raises FasthgError for shapes that
    do not belong together, for an empty set and for a head size that is not known.
    """
    predictions, joints = np.asarray(predictions, np.float64), np.asarray(joints, np.float64)
    labelled, head_size = np.asarray(labelled, bool), np.asarray(head_size, np.float64)
    if predictions.shape != joints.shape:
        raise FasthgError(
            f"predictions have shape {predictions.shape}, the truth {joints.shape}; give the same people in both"
        )
    if not labelled.any():
        raise FasthgError(f"nothing to score: none of the {len(joints)} people has a labelled joint")
    if not (head_size > 0).all():
        unknown = int(np.count_nonzero(~(head_size > 0)))
        raise FasthgError(
            f"head size is not known for {unknown} of {len(joints)} people; PCKh needs head boxes: give annotations"
            " with `head_box`, or put detections_our_format.mat or valid.h5 beside them"
        )
    distance = np.linalg.norm(predictions - joints, axis=-1) / head_size[:, None]
    counts = labelled.sum(axis=0)
    found = np.stack([((distance <= t) & labelled).sum(axis=0) for t in _AUC_THRESHOLDS])
    area = (found[1:] + found[:-1]).sum(axis=0) / 2 / (len(found) - 1)
    at = {threshold: ((distance <= threshold) & labelled).sum(axis=0) for threshold in (0.1, 0.5)}
    return Scores(
        at_05=_protocols(at[0.5], counts),
        at_01=_protocols(at[0.1], counts),
        auc=_protocols(area, counts),
        num_people=len(joints),
        num_joints=int(counts.sum()),
    )


def _protocols(found: NDArray[Any], counts: NDArray[np.int64]) -> PCKh:
    """Percentages of joints found [16] of those labelled [16], under each protocol."""
    present = counts > 0
    percent = np.full(len(counts), np.nan)
    percent[present] = 100.0 * found[present] / counts[present]
    per_joint = {name: float(value) for name, value in zip(JOINT_NAMES, percent)}
    chosen = _OF_14 & present
    return PCKh(
        per_joint=per_joint,
        per_group={group: _mean([per_joint[name] for name in names]) for group, names in GROUPS.items()},
        mean14=_mean(percent[_OF_14]),
        weighted14=float(100.0 * found[chosen].sum() / counts[chosen].sum()) if chosen.any() else math.nan,
        pooled16=float(100.0 * found.sum() / counts.sum()),
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
