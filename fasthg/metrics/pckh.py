"""PCKh, MPII's measure: the share of joints found within half of the head's size."""

from __future__ import annotations

from numpy.typing import ArrayLike

from fasthg.data.protocols import PCKH
from fasthg.metrics import pck
from fasthg.metrics.pck import GROUPS, Scores
from fasthg.metrics.prediction_files import Truth, read_predictions, read_truth

__all__ = ["GROUPS", "Scores", "Truth", "read_predictions", "read_truth", "score"]


def score(predictions: ArrayLike, joints: ArrayLike, labelled: ArrayLike, head_size: ArrayLike) -> Scores:
    """`fasthg.metrics.pck.score` with head sizes [N] in pixels, 0.6 x the diagonal of the head's box."""
    return pck.score(predictions, joints, labelled, head_size, PCKH)
