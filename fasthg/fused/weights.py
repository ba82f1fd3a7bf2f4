"""The network's weights as the fused operators want them: folded in float64, packed, rounded once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fasthg.kernels import layout
from fasthg.kernels.parts import Conv
from fasthg.network.fold import fold
from fasthg.network.model import Bottleneck, Hourglass, HourglassNet, Stack, Stem


@dataclass(frozen=True)
class Block:
    """A bottleneck: `affines` of the normalisations that remain, its convolutions, and the skip's 1x1 where it has one.

    An affine [2, C] is a folded batch norm's scale and shift, or a group norm's gamma and beta.
    """

    name: str
    affines: tuple[Tensor, ...]
    convs: tuple[Conv, ...]
    skip_weight: Tensor | None

    @property
    def channels(self) -> int:
        """Padded output channels."""
        return self.convs[-1].channels


@dataclass(frozen=True)
class HourglassWeights:
    """One level: chains of blocks, and the level inside, which is a chain at the innermost."""

    up1: tuple[Block, ...]
    low1: tuple[Block, ...]
    low2: HourglassWeights | tuple[Block, ...]
    low3: tuple[Block, ...]


@dataclass(frozen=True)
class StackWeights:
    """One stack; `merge` holds both ways back into the trunk in one 1x1; None in the last, whose head is float32."""

    name: str
    hourglass: HourglassWeights
    blocks: tuple[Block, ...]
    features: Conv
    affine: Tensor | None
    score: Conv
    merge: Conv | None


@dataclass(frozen=True)
class StemWeights:
    """The first convolution, its group norm's affine where it has one, and the three blocks."""

    conv: Conv
    affine: Tensor | None
    blocks: tuple[Block, Block, Block]


class Packer:
    """Packs the parts of one network for activations of `dtype` on `device`."""

    def __init__(self, model: HourglassNet, dtype: torch.dtype, device: torch.device) -> None:
        self.dtype, self.device = dtype, device
        self.wide = torch.float64 if dtype == torch.float64 else torch.float32
        network = fold(model, torch.float64).cpu()
        self._names = {module: name for name, module in network.named_modules()}
        self.eps = next((module.eps for module in network.modules() if isinstance(module, nn.GroupNorm)), 0.0)
        self.stem = self._stem(network.stem)
        self.stacks = [self._stack(stack) for stack in _stacks(network)]
        del self._names  # it would keep the whole network in float64

    def _stem(self, stem: Stem) -> StemWeights:
        assert stem.conv.bias is not None
        conv = Conv(layout.pack_stem(self._cast(stem.conv.weight)), self._widen(layout.pack_bias(stem.conv.bias)))
        blocks = (self._block(stem.block1), self._block(stem.block2), self._block(stem.block3))
        return StemWeights(conv, self._affine(stem.norm), blocks)

    def _stack(self, stack: Stack) -> StackWeights:
        return StackWeights(
            self._names[stack],
            self._hourglass(stack.hourglass),
            self._chain(stack.blocks),
            self._conv(stack.features, exact=stack.merge_features is None),
            self._affine(stack.norm),
            self._conv(stack.score, exact=True),
            None if stack.merge_features is None else self._conv(stack.merge_features),
        )

    def _hourglass(self, hourglass: Hourglass) -> HourglassWeights:
        inner = hourglass.low2
        return HourglassWeights(
            self._chain(hourglass.up1),
            self._chain(hourglass.low1),
            self._hourglass(inner) if isinstance(inner, Hourglass) else self._chain(inner),
            self._chain(hourglass.low3),
        )

    def _chain(self, blocks: nn.Sequential) -> tuple[Block, ...]:
        return tuple(self._block(block) for block in blocks if isinstance(block, Bottleneck))

    def _block(self, block: Bottleneck) -> Block:
        affines = tuple(affine for norm in block.norms if (affine := self._affine(norm)) is not None)
        convs = [conv for conv in block.convs if isinstance(conv, nn.Conv2d)]
        last = convs[-1]
        assert last.bias is not None
        bias, skip_weight = last.bias, None
        if isinstance(block.skip, nn.Conv2d):
            assert block.skip.bias is not None
            bias, skip_weight = bias + block.skip.bias, layout.pack_conv1x1(self._cast(block.skip.weight))
        expand = Conv(layout.pack_conv1x1(self._cast(last.weight)), self._widen(layout.pack_bias(bias)))
        packed = [*(self._conv(conv) for conv in convs[:-1]), expand]
        return Block(self._names[block], affines, tuple(packed), skip_weight)

    def _conv(self, conv: nn.Conv2d, exact: bool = False) -> Conv:
        assert conv.bias is not None
        pack = layout.pack_conv3x3 if conv.kernel_size == (3, 3) else layout.pack_conv1x1
        weight = self._widen(conv.weight) if exact else self._cast(conv.weight)
        return Conv(pack(weight), self._widen(layout.pack_bias(conv.bias)))

    def _affine(self, norm: nn.Module) -> Tensor | None:
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.running_var is not None
            assert norm.running_mean is not None
            scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
            return self._widen(layout.pack_affine(scale, norm.bias - norm.running_mean * scale))
        if isinstance(norm, nn.GroupNorm):
            return self._widen(layout.pack_affine(norm.weight, norm.bias))
        return None  # folded

    def _cast(self, tensor: Tensor) -> Tensor:
        return tensor.detach().to(self.device, self.dtype).contiguous()

    def _widen(self, tensor: Tensor) -> Tensor:
        return tensor.detach().to(self.device, self.wide).contiguous()


def _stacks(network: HourglassNet) -> Iterator[Stack]:
    for stack in network.stacks:
        assert isinstance(stack, Stack)
        yield stack
