"""What a fused operator is given, in parts. The flat arguments of a call are gathered into these once; what checks,
computes or launches takes the parts.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Conv:
    """A packed convolution: weight [C, C'] or [9, C, C'], bias [C']."""

    weight: Tensor
    bias: Tensor

    @property
    def channels(self) -> int:
        """Padded output channels."""
        return self.weight.shape[-1]


@dataclass(frozen=True)
class Residual:
    """What is added to a block's result.

    x        its input [.., CI]
    weight   [CI, CO] where the input is projected; None needs CI = CO
    low      the lower branch [.., CO] in the half grid, upsampled to nearest
    """

    x: Tensor
    weight: Tensor | None = None
    low: Tensor | None = None


@dataclass(frozen=True)
class Projection:
    """The first third of a block that reads x: t = ReLU(ReLU(x * scale + shift) @ weight + bias).

    affine [2, C] of scale and shift, conv [C, C'], t [.., C'] where it goes.
    """

    affine: Tensor
    conv: Conv
    t: Tensor


@dataclass(frozen=True)
class Results:
    """Where a block's result goes; what is None is not computed.

    x        the result itself [.., C]
    next     the first third of a reader at the same resolution
    pooled   the result after a 2x2 max-pool [.., C], in the half grid
    pool     the first third of a reader of that
    """

    x: Tensor | None = None
    next: Projection | None = None
    pooled: Tensor | None = None
    pool: Projection | None = None


@dataclass(frozen=True)
class Norm:
    """A group norm with one group: its input's partial statistics [N, tiles, 3], gamma and beta [2, C], epsilon."""

    partials: Tensor
    affine: Tensor
    eps: float
