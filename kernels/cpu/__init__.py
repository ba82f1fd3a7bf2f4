"""The compiled host implementations in `fasthg.kernels.cpu._native`, on contiguous CPU tensors without copies.

`NATIVE_ERROR` is None where the module was built, else why it cannot be imported: the operators then run the reference.
"""

from __future__ import annotations

import torch
from torch import Tensor

try:
    from fasthg.kernels.cpu import _native

    NATIVE_ERROR: str | None = None
except ImportError as error:
    NATIVE_ERROR = str(error)


def _plain(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Contiguous, detached, of `dtype`: what the compiled functions take."""
    return tensor.detach().to(dtype).contiguous()


def decode_heatmaps(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    """As `fasthg.kernels.reference.decode_heatmaps`."""
    n, joints = heatmaps.shape[:2]
    points, scores = torch.empty(n, joints, 2), torch.empty(n, joints)
    _native.decode_heatmaps(_plain(heatmaps, torch.float32), points, scores)
    return points, scores


def render_targets(points: Tensor, weights: Tensor, height: int, width: int, sigma: float) -> Tensor:
    """As `fasthg.kernels.reference.render_targets`."""
    n, joints = weights.shape
    targets = torch.empty(n, joints, height, width)
    _native.render_targets(_plain(points, torch.float32), _plain(weights, torch.float32), sigma, targets)
    return targets
