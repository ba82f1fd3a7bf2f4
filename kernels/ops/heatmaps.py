"""Operators on heatmaps: joints out of them, and training targets into them."""

from __future__ import annotations

import importlib.util
import warnings

import torch
from torch import Tensor
from torch.library import custom_op

from fasthg.kernels import cpu, reference


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


# Heatmaps and targets


@custom_op("fasthg::decode_heatmaps", mutates_args=())
def decode_heatmaps(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    """See `fasthg.kernels.reference.decode_heatmaps`."""
    return reference.decode_heatmaps(heatmaps)


@decode_heatmaps.register_fake
def _(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    _require(heatmaps.ndim == 4, f"heatmaps have shape {tuple(heatmaps.shape)}; give [N, J, h, w]")
    n, joints = heatmaps.shape[:2]
    return heatmaps.new_empty(n, joints, 2, dtype=torch.float32), heatmaps.new_empty(n, joints, dtype=torch.float32)


@custom_op("fasthg::render_targets", mutates_args=())
def render_targets(points: Tensor, weights: Tensor, height: int, width: int, sigma: float) -> Tensor:
    """See `fasthg.kernels.reference.render_targets`."""
    return reference.render_targets(points, weights, height, width, sigma)


@render_targets.register_fake
def _(points: Tensor, weights: Tensor, height: int, width: int, sigma: float) -> Tensor:
    return points.new_empty(*weights.shape, height, width, dtype=torch.float32)


# Triton implementations for NVIDIA GPUs, imported by the first call that needs them

if importlib.util.find_spec("triton") is not None:

    @decode_heatmaps.register_kernel("cuda")
    def _(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
        from fasthg.kernels.triton import heatmaps as implementation

        return implementation.decode_heatmaps(heatmaps)

    @render_targets.register_kernel("cuda")
    def _(points: Tensor, weights: Tensor, height: int, width: int, sigma: float) -> Tensor:
        from fasthg.kernels.triton import heatmaps as implementation

        return implementation.render_targets(points, weights, height, width, sigma)


# Compiled implementations for the host

if cpu.NATIVE_ERROR is None:
    decode_heatmaps.register_kernel("cpu")(cpu.decode_heatmaps)
    render_targets.register_kernel("cpu")(cpu.render_targets)
else:
    warnings.warn(
        f"fasthg.kernels.cpu._native is not built ({cpu.NATIVE_ERROR}): heatmap operators run their slower PyTorch"
        " reference on the CPU; install the package with `pip install .` to build it",
        RuntimeWarning,
        stacklevel=2,
    )
