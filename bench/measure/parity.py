"""Whether a path answers like eager fp32 and trains like it: heatmaps, the first loss, and its gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fasthg.metrics.agreement import TOLERANCES

#: Where fp32 gradients are further off, they may be this many times as far from float64's as eager's own.
ROUNDING = 3.0
CHANCE = 2.0  # standard errors that a loss of PCKh has to exceed the stated one by


def gradient_error(gradients: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> float:
    """Relative L2 distance over all parameters together; infinite where a parameter has no gradient, one of another
    shape, or one that is not finite."""
    if gradients.keys() != reference.keys() or any(
        gradients[name].shape != reference[name].shape for name in reference
    ):
        return math.inf
    apart = sum(float((gradients[name].double() - reference[name].double()).square().sum()) for name in reference)
    norm = sum(float(reference[name].double().square().sum()) for name in reference)
    return math.sqrt(apart / norm) if norm > 0 and math.isfinite(apart) else math.inf


def rounding_verdict(gradients: Mapping[str, Tensor], eager: Mapping[str, Tensor], exact: Mapping[str, Tensor]) -> str:
    """Why fp32 gradients that are far from eager's are wrong; "" where eager's are about as far from float64's."""
    apart, eager_apart = gradient_error(gradients, exact), gradient_error(eager, exact)
    if math.isfinite(eager_apart) and apart <= ROUNDING * eager_apart:
        return ""
    return f"{apart:.1e} from float64's, eager's own {eager_apart:.1e}"


def verdict(error: float, precision: str, what: str = "heatmaps") -> str:
    """Why `what` ("heatmaps", "loss", "gradients"), `error` away from the reference, is wrong; "" where it is not."""
    if not math.isfinite(error):
        return f"the {what} is not finite or of another shape than eager's"
    limit = getattr(TOLERANCES[precision], what)
    return f"relative error {error:.1e} of the {what} from eager's, {precision} allows {limit:.0e}" * (error > limit)


def pckh_verdict(found: NDArray[np.bool_], reference: NDArray[np.bool_], counted: int, precision: str) -> str:
    """Why a path that finds other joints than the reference is wrong; "" where it loses no more PCKh than is stated.

    Joints at the edge of the threshold change sides by chance: a loss counts where it exceeds what is stated by two
    standard errors of the joints that changed sides (McNemar).

    found, reference   bool, the same joints of the same people
    counted            how many joints PCKh counts
    """
    lost, gained = int((reference & ~found).sum()), int((found & ~reference).sum())
    loss, chance = 100.0 * (lost - gained) / counted, 100.0 * CHANCE * math.sqrt(lost + gained) / counted
    limit = TOLERANCES[precision].pckh
    if loss <= limit + chance:
        return ""
    return f"PCKh {-loss:+.2f} over {counted:,} joints, {precision} allows {-limit:+.2f} and {-chance:+.2f} by chance"
