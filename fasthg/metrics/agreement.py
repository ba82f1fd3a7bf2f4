"""How far an answer is from the reference, and how far each precision may be: for exports, sweeps and tests alike."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tolerance:
    """The largest distances that are allowed in one precision.

    heatmaps   relative L2 of a network's heatmaps from those of fp32; int8 is judged by its PCKh, and this only shows a
               broken graph
    operator   relative L2 of what one fused operator writes from the same in float64
    loss       of a training's first loss, which batch statistics over few images make more sensitive
    gradients  relative L2 of all gradients with frozen normalisations: some times what rounding does to them
    pckh       loss of PCKh@0.5 (weighted14) in percentage points
    keypoints  median distance in crop pixels, where keypoints are all that comes out
    """

    heatmaps: float
    operator: float
    loss: float
    gradients: float
    pckh: float
    keypoints: float


#: Those with integers only infer.
TOLERANCES = {
    "fp32": Tolerance(heatmaps=1e-5, operator=1e-5, loss=1e-3, gradients=1e-4, pckh=0.1, keypoints=0.01),
    "fp16": Tolerance(heatmaps=5e-3, operator=2e-3, loss=5e-2, gradients=5e-2, pckh=0.1, keypoints=0.1),
    "bf16": Tolerance(heatmaps=2e-2, operator=1.6e-2, loss=5e-2, gradients=5e-2, pckh=0.1, keypoints=0.5),
    "int12": Tolerance(heatmaps=5e-3, operator=2e-3, loss=0.0, gradients=0.0, pckh=0.1, keypoints=0.1),
    "bf16+int12": Tolerance(heatmaps=2e-2, operator=1.6e-2, loss=5e-2, gradients=5e-2, pckh=0.1, keypoints=0.5),
    "int8+int12": Tolerance(heatmaps=0.1, operator=5e-2, loss=0.0, gradients=0.0, pckh=0.3, keypoints=1.0),
    "int8": Tolerance(heatmaps=0.5, operator=0.0, loss=0.0, gradients=0.0, pckh=0.3, keypoints=1.0),
}


def relative_error(found: Tensor, expected: Tensor) -> float:
    """L2 norm of the difference over that of `expected`, in float64; infinite where one is not finite, or misshapen."""
    if found.shape != expected.shape or not all(bool(values.isfinite().all()) for values in (found, expected)):
        return math.inf
    found, expected = found.detach().double().cpu(), expected.detach().double().cpu()
    distance, norm = float(torch.linalg.vector_norm(found - expected)), float(torch.linalg.vector_norm(expected))
    return distance / norm if norm > 0 else math.inf if distance > 0 else 0.0
