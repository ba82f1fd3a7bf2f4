"""What the fused operators accept: one line names the argument, its value and the way out, before anything runs."""

from __future__ import annotations

import torch
from torch import Tensor

from fasthg.kernels.layout import Grid, padded_channels
from fasthg.kernels.parts import Conv, Norm, Projection, Residual, Results

_HALVES = (torch.float16, torch.bfloat16)
_DTYPES = (*_HALVES, torch.float32, torch.float64)
_MAX_ELEMENTS = 2**31  # the kernels' offsets are 32-bit


def require(condition: bool, message: str) -> None:
    """Raise ValueError unless the condition holds."""
    if not condition:
        raise ValueError(message)


class Arguments:
    """The arguments of one call, checked against the dtype and device of its products. None passes every check.

    `like` is a tensor of that dtype: activations that enter a product, or its weight. What is only added to (the
    trunk) may be float32 beside halves.
    """

    def __init__(self, operator: str, like: Tensor) -> None:
        self.operator, self.dtype, self.device = operator, like.dtype, like.device
        if self.dtype not in _DTYPES:
            raise TypeError(f"{operator}: activations are {self.dtype}; give a floating-point dtype")
        if like.is_cuda and self.dtype == torch.float64:
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
        """A contiguous tensor of this shape, the products' dtype (or `dtype`) and device."""
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

    def buffer(
        self,
        name: str,
        tensor: Tensor | None,
        grid: Grid,
        channels: int | None = None,
        dtype: torch.dtype | None = None,
    ) -> int:
        """Activations in `grid`, of so many channels where that is given; returns their channels (0 for None)."""
        if tensor is None:
            return 0
        self.require(tensor.ndim == 2, f"{name} has shape {tuple(tensor.shape)}; give a buffer [rows, C] of Grid.empty")
        found = tensor.shape[1]
        self.require(found == padded_channels(found), f"{name} has {found} channels; give a power of two from 16")
        self.require(channels in (None, found), f"{name} has {found} channels; give {channels}")
        self.require(
            tensor.numel() < _MAX_ELEMENTS, f"{name} has {tensor.numel()} elements; take a smaller batch (below 2**31)"
        )
        self.tensor(name, tensor, (grid.rows, found), dtype)
        return found

    def trunk(self, name: str, tensor: Tensor | None, grid: Grid, channels: int | None = None) -> int:
        """A buffer that may be float32 beside halves."""
        exact = tensor is not None and tensor.dtype == torch.float32 and self.dtype in _HALVES
        return self.buffer(name, tensor, grid, channels, torch.float32 if exact else None)

    def source(self, name: str, tensor: Tensor, grid: Grid) -> int:
        """A buffer that a product reads in the dtype of its weight: float32 beside halves, or a half beside float32."""
        narrow = tensor.dtype in _HALVES and self.dtype == torch.float32
        return self.buffer(name, tensor, grid, None, tensor.dtype) if narrow else self.trunk(name, tensor, grid)

    def conv(self, name: str, weight: Tensor, bias: Tensor, *shape: int) -> Conv:
        """A packed convolution whose weight has this shape."""
        self.tensor(f"{name}weight", weight, shape)
        self.vector(f"{name}bias", bias, shape[-1])
        return Conv(weight, bias)

    def norm(
        self, grid: Grid, channels: int, partials: Tensor | None, affine: Tensor | None, eps: float
    ) -> Norm | None:
        """The group norm of an input, with its partial statistics."""
        if not self.together("partials and affine", partials, affine) or partials is None or affine is None:
            return None
        self.partials("partials", partials, grid)
        self.vector("affine", affine, 2, channels)
        return Norm(partials, affine, eps)

    def partials(self, name: str, tensor: Tensor | None, grid: Grid) -> None:
        """Partial statistics of activations in `grid`."""
        self.vector(name, tensor, grid.batch, grid.statistics_tiles, 3)

    def residual(
        self, name: str, grid: Grid, channels: int, x: Tensor, weight: Tensor | None, low: Tensor | None
    ) -> Residual:
        """What is added to a result of so many channels."""
        found = self.trunk(name, x, grid)
        if weight is None:
            self.require(found == channels, f"{name} has {found} channels and the result {channels}; give skip_weight")
        self.tensor("skip_weight", weight, (found, channels))
        if low is not None:
            self.trunk("low", low, grid.half(), channels)
        return Residual(x, weight, low)

    def projection(
        self,
        name: str,
        channels: int,
        grid: Grid,
        affine: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        t: Tensor | None,
    ) -> Projection | None:
        """What one reader of x [.., channels] needs: all four or none."""
        parts = f"{name}_affine, {name}_weight, {name}_bias and its t"
        if not self.together(parts, affine, weight, bias, t):
            return None
        assert affine is not None
        assert weight is not None
        assert bias is not None
        assert t is not None
        feats = self.buffer(f"{name} t", t, grid)
        self.vector(f"{name}_affine", affine, 2, channels)
        return Projection(affine, self.conv(f"{name}_", weight, bias, channels, feats), t)

    def results(
        self,
        grid: Grid,
        channels: int,
        x: Tensor | None,
        next_reader: tuple[Tensor | None, ...],
        pooled: Tensor | None = None,
        pool_reader: tuple[Tensor | None, ...] = (None, None, None, None),
    ) -> Results:
        """The outputs of a block and what its readers need; a reader: its affine, weight, bias and t."""
        self.require(any(out is not None for out in (x, next_reader[-1], pooled)), "nothing to compute; give x_out")
        self.trunk("x_out", x, grid, channels)
        following = self.projection("next", channels, grid, *next_reader)
        self.require(pool_reader[-1] is None or pooled is not None, "t_pool needs x_pool")
        if pooled is None:
            return Results(x, following)
        self.trunk("x_pool", pooled, grid.half(), channels)
        return Results(x, following, pooled, self.projection("pool", channels, grid.half(), *pool_reader))
