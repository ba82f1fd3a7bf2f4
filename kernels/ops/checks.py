"""What the fused operators accept: one line names the argument, its value and the way out, before anything runs."""

from __future__ import annotations

import torch
from torch import Tensor

from fasthg.kernels.layout import Grid, padded_channels

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_MAX_ELEMENTS = 2**31  # the kernels' offsets are 32-bit


def require(condition: bool, message: str) -> None:
    """Raise ValueError unless the condition holds."""
    if not condition:
        raise ValueError(message)


class Arguments:
    """The arguments of one call, checked against the dtype and device of its activations. None passes every check."""

    def __init__(self, operator: str, activations: Tensor) -> None:
        self.operator, self.dtype, self.device = operator, activations.dtype, activations.device
        if self.dtype not in _DTYPES:
            raise TypeError(f"{operator}: activations are {self.dtype}; give a floating-point dtype")
        if activations.is_cuda and self.dtype.itemsize > 2:
            raise TypeError(f"{operator}: activations are {self.dtype} on {self.device}; give float16 or bfloat16")

    def require(self, condition: bool, message: str) -> None:
        """Raise ValueError, with the operator's name, unless the condition holds."""
        require(condition, f"{self.operator}: {message}")

    def together(self, what: str, *arguments: Tensor | None) -> bool:
        """True when all are given, False when all are None; ValueError otherwise."""
        given = [argument is not None for argument in arguments]
        self.require(all(given) or not any(given), f"give all of {what}, or none")
        return all(given)

    def tensor(
        self, name: str, tensor: Tensor | None, shape: tuple[int, ...], dtype: torch.dtype | None = None
    ) -> None:
        """A contiguous tensor of this shape, the activations' dtype (or `dtype`) and device."""
        if tensor is None:
            return
        dtype = dtype or self.dtype
        if tensor.dtype != dtype:
            raise TypeError(f"{self.operator}: {name} is {tensor.dtype}; give {dtype}")
        self.require(tensor.device == self.device, f"{name} is on {tensor.device}; move it to {self.device}")
        self.require(
            tuple(tensor.shape) == shape, f"{name} has shape {tuple(tensor.shape)}; {shape} fits the other arguments"
        )
        self.require(tensor.is_contiguous(), f"{name} has strides {tensor.stride()}; call .contiguous()")

    def vector(self, name: str, tensor: Tensor | None, *shape: int) -> None:
        """A bias, an affine or statistics: float32, or float64 with float64 activations."""
        self.tensor(name, tensor, shape, torch.float64 if self.dtype == torch.float64 else torch.float32)

    def buffer(self, name: str, tensor: Tensor | None, grid: Grid) -> int:
        """Activations in `grid`; returns their channels (0 for None)."""
        if tensor is None:
            return 0
        self.require(tensor.ndim == 2, f"{name} has shape {tuple(tensor.shape)}; give a buffer [rows, C] of Grid.empty")
        channels = tensor.shape[1]
        self.require(
            channels == padded_channels(channels), f"{name} has {channels} channels; give a power of two from 16"
        )
        self.require(
            tensor.numel() < _MAX_ELEMENTS, f"{name} has {tensor.numel()} elements; take a smaller batch (below 2**31)"
        )
        self.tensor(name, tensor, (grid.rows, channels))
        return channels

    def projection(
        self,
        name: str,
        channels: int,
        grid: Grid,
        affine: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        t_out: Tensor | None,
    ) -> None:
        """What one consumer of x [.., channels] needs: all four or none."""
        parts = f"{name}_affine, {name}_weight, {name}_bias and its t"
        if self.together(parts, affine, weight, bias, t_out):
            feats = self.buffer(f"{name} t", t_out, grid)
            self.vector(f"{name}_affine", affine, 2, channels)
            self.tensor(f"{name}_weight", weight, (channels, feats))
            self.vector(f"{name}_bias", bias, feats)

    def partials(self, name: str, tensor: Tensor | None, grid: Grid) -> None:
        """Partial statistics of activations in `grid`."""
        self.vector(name, tensor, grid.batch, grid.statistics_tiles, 3)
