"""Whether a path answers like the reference: heatmaps at full size, and PCKh on weights that have learnt something."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

#: Largest relative L2 distance from eager fp32; int8 is reported, not judged.
TOLERANCE = {"fp32": 1e-5, "bf16": 2e-2, "fp16": 2e-2, "int8": math.inf}
#: Of the first loss of a training, which batch statistics over few images make more sensitive.
LOSS_TOLERANCE = {"fp32": 1e-3, "bf16": 5e-2, "fp16": 5e-2}
#: Of all gradients with frozen norm layers: some times what rounding does to them, see `bench.measure.first_step`.
GRADIENT_TOLERANCE = {"fp32": 1e-4, "bf16": 5e-2, "fp16": 5e-2}
#: Where fp32 gradients are further off, they may be this many times as far from float64's as eager's own.
ROUNDING = 3.0


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
    if apart <= ROUNDING * eager_apart:
        return ""
    return f"{apart:.1e} from float64's, eager's own {eager_apart:.1e}"


def relative_error(values: Tensor, reference: Tensor) -> float:
    """L2 norm of the difference over the reference's, in float64; infinite for values not finite or misshapen."""
    if values.shape != reference.shape or not bool(values.isfinite().all()):
        return math.inf
    values, reference = values.double(), reference.double()
    norm = torch.linalg.vector_norm(reference)
    return float(torch.linalg.vector_norm(values - reference) / norm) if norm > 0 else math.inf


def verdict(error: float, precision: str, tolerance: dict[str, float] = TOLERANCE, what: str = "answer") -> str:
    """Why an answer that is `error` away from the reference is wrong; "" where it is not."""
    if not math.isfinite(error):
        return f"the {what} is not finite or of another shape than eager's"
    limit = tolerance[precision]
    return f"relative error {error:.1e} of the {what} from eager's, {precision} allows {limit:.0e}" * (error > limit)
