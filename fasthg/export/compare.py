"""How far an artefact's answers are from the reference's, in the units that matter, and what is allowed."""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fasthg.data.crops import Crops
from fasthg.data.protocols import PCKH
from fasthg.errors import ParityError
from fasthg.metrics import pck
from fasthg.metrics.agreement import TOLERANCES, relative_error
from fasthg.network.model import HourglassNet
from fasthg.pixels.skeleton import MPII, Skeleton

#: PCKh below which a network has not learnt enough for a change of PCKh to mean anything.
LEARNT = 20.0


@dataclass(frozen=True)
class Answers:
    """What a network says about M crops: keypoints float64 [M, J, 2] in crop pixels, and heatmaps where it has them."""

    keypoints: NDArray[np.float64]
    heatmaps: Tensor | None


@dataclass(frozen=True)
class Comparison:
    """An artefact beside the reference on the same crops.

    heatmap_error     relative L2; None where the artefact gives keypoints only
    keypoint_median, keypoint_p99, keypoint_max   distances in crop pixels
    pckh_reference, pckh_artefact   PCKh, or what `protocol` names, headline in percent; None for other joints
    pckh_counts       whether the reference has learnt enough for PCKh to decide
    """

    precision: str
    num_crops: int
    source: str
    heatmap_error: float | None
    heatmap_limit: float
    keypoint_median: float
    keypoint_p99: float
    keypoint_max: float
    keypoint_limit: float
    pckh_reference: float | None
    pckh_artefact: float | None
    pckh_limit: float
    pckh_counts: bool
    protocol: str = str(PCKH)

    @property
    def pckh_change(self) -> float | None:
        """Percentage points; negative where the artefact is worse."""
        if self.pckh_reference is None or self.pckh_artefact is None:
            return None
        return self.pckh_artefact - self.pckh_reference

    def failures(self) -> list[str]:
        """What is out of its limit, one phrase each."""
        found = []
        error = self.heatmap_error
        if error is not None and not (math.isfinite(error) and error <= self.heatmap_limit):
            found.append(f"relative heatmap error {error:.2e} (limit {self.heatmap_limit:.0e})")
        if self.heatmap_error is None and not self.keypoint_median <= self.keypoint_limit:
            found.append(f"median keypoint distance {self.keypoint_median:.2f} px (limit {self.keypoint_limit} px)")
        if self.pckh_counts and self.pckh_change is not None and not self.pckh_change >= -self.pckh_limit:
            found.append(f"{self.protocol} changes by {self.pckh_change:+.2f} (limit {self.pckh_limit:.2f})")
        return found

    def __str__(self) -> str:
        heatmaps = f"heatmaps {self.heatmap_error:.1e} (limit {self.heatmap_limit:.0e}); " if self.heatmap_error else ""
        distances = f"keypoints {self.keypoint_median:.3f} px median, {self.keypoint_p99:.2f} px at 99 %"
        if not self.pckh_counts:
            return f"{heatmaps}{distances}; {self.protocol} says nothing, the network has not learnt enough"
        return f"{heatmaps}{distances}; {self.protocol} {self.pckh_reference:.2f} -> {self.pckh_artefact:.2f}"

    def require(self, what: str) -> None:
        """Raise ParityError naming the figures that are out of their limits."""
        if found := self.failures():
            raise ParityError(
                f"{what} does not answer like the reference on {self.num_crops} crops: {'; '.join(found)};"
                " nothing was kept, try another precision"
            )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self) | {"pckh_change": self.pckh_change}


def compare(
    artefact: Answers,
    reference: Answers,
    crops: Crops,
    precision: str,
    rounding: float = 0.0,
    skeleton: Skeleton = MPII,
) -> Comparison:
    """Figures of an artefact in `precision` against the reference, both on the same crops.

    skeleton  of both; the joints are scored where the crops' labels are of the same points
    rounding  the reference's own distance from exact arithmetic: an artefact may be as far off on the other side
    """
    error, allowed = None, TOLERANCES[precision]
    if artefact.heatmaps is not None and reference.heatmaps is not None:
        error = relative_error(artefact.heatmaps, reference.heatmaps)
    distances = np.linalg.norm(artefact.keypoints - reference.keypoints, axis=-1)
    scored = skeleton.names == crops.skeleton.names
    scores = [_headline(answers.keypoints, crops) if scored else None for answers in (reference, artefact)]
    one_joint = 100.0 / max(1, int(crops.labelled[:, pck.headline_joints(crops.skeleton)].sum()))
    return Comparison(
        precision=precision,
        num_crops=len(crops),
        source=crops.source,
        heatmap_error=error,
        heatmap_limit=max(allowed.heatmaps, 3 * rounding) if math.isfinite(rounding) else allowed.heatmaps,
        keypoint_median=float(np.median(distances)),
        keypoint_p99=float(np.quantile(distances, 0.99)),
        keypoint_max=float(distances.max()),
        keypoint_limit=allowed.keypoints,
        pckh_reference=scores[0],
        pckh_artefact=scores[1],
        pckh_limit=max(allowed.pckh, 1.001 * one_joint),  # few crops: one joint is allowed
        pckh_counts=scores[0] is not None and scores[0] >= LEARNT,
        protocol=str(crops.protocol),
    )


def rounding_error(model: HourglassNet, images: Tensor) -> float:
    """How far a network's heatmaps in float32 are from those in float64, relative L2: a few 1e-7 for a fresh network,
    1e-5 and more for some that have learnt."""
    with torch.inference_mode():
        exact = copy.deepcopy(model).double().final(images.double())
        return relative_error(model.final(images), exact)


def _headline(keypoints: NDArray[np.float64], crops: Crops) -> float:
    scores = pck.score(keypoints, crops.joints, crops.labelled, crops.lengths, crops.protocol, crops.skeleton)
    return scores.headline[1]
