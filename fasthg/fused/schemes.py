"""How a network becomes a plan: one walk over the architecture, and two ways to compute a bottleneck.

`MovedCut`     the kernel that makes x also makes the t = ReLU(1x1(BN-ReLU x)) of each block that reads x
`GroupNorms`   a kernel a convolution, each writing the partial statistics that the next one normalises with

`fasthg.kernels.ops.network` says what the operators compute, `fasthg.network.precision` what stays float32: the last
head, and in bf16 the last stack's trunk.

A level of few pixels leaves most of a GPU idle. There the upper branch runs on the side stream while the lower one
runs on the main one, all but the 1x1 that ends it and adds the lower branch: for a bottleneck that is a launch more.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fasthg.fused.plan import Buffer, Plan
from fasthg.fused.weights import Block, HourglassWeights, Packer, StackWeights
from fasthg.kernels.layout import Grid
from fasthg.kernels.parts import Conv

_OPS = torch.ops.fasthg
SIDE_PIXELS = 64 * 128  # of a level in all images: tiles of 128 pixels would take less than half of an H100


@dataclass(frozen=True)
class Value:
    """Activations x, and what their producer made for those who read them next."""

    grid: Grid
    x: Buffer | None
    t: Buffer | None = None
    partials: Buffer | None = None
    pooled: Value | None = None

    @property
    def size(self) -> tuple[int, int, int]:
        """Batch, height and width, as the operators take them."""
        return self.grid.batch, self.grid.height, self.grid.width


@dataclass(frozen=True)
class Readers:
    """Who reads a result: a block at its resolution, a block behind a 2x2 max-pool; `x`: whether x itself is read."""

    next: Block | None = None
    pool: Block | None = None
    x: bool = True


def entry(hourglass: HourglassWeights) -> Readers:
    """The readers of an hourglass's input."""
    return Readers(next=hourglass.up1[0], pool=hourglass.low1[0])


class Scheme(ABC):
    """Walks the network, static images [N, 3, H, W] -> static heatmaps [N, J, h, w], and leaves the kernels open.

    side   whether there is a stream to run upper branches on
    """

    def __init__(self, weights: Packer, images: Tensor, heatmaps: Tensor, side: bool) -> None:
        self.plan, self.eps, self.side = Plan(), weights.eps, side
        keep = weights.dtype == torch.bfloat16
        self.exact = keep and len(weights.stacks) == 1  # whether the trunk is float32 from here on
        batch, _, height, width = images.shape
        block1, block2, block3 = weights.stem.blocks
        value = self.stem(weights, images, Grid(batch, height // 2, width // 2))
        value = _pooled(self.block(block1, value, Readers(pool=block2, x=False)))
        value = self.block(block2, value, Readers(next=block3))
        trunk = self.block(block3, value, entry(weights.stacks[0].hourglass))
        for stack, after in zip(weights.stacks, [*weights.stacks[1:], None]):
            value = self.hourglass(stack.hourglass, trunk, Readers(next=stack.blocks[0]))
            value = self.chain(stack.blocks, value, Readers())
            if after is None:
                self.score(stack, value, heatmaps)
            else:
                self.exact = keep and after is weights.stacks[-1]
                trunk = self.merge(stack, value, trunk, entry(after.hourglass))

    def hourglass(self, weights: HourglassWeights, value: Value, readers: Readers) -> Value:
        """One level; the last block of the upper branch adds the lower one."""
        *before, last = weights.up1
        if not self.side or value.grid.pixel_count > SIDE_PIXELS:
            upper = self.chain(before, value, Readers(next=last))
            return self.block(last, upper, readers, self.lower(weights, _pooled(value)).x)
        upper, inner = self.plan.on_side(lambda: self.upper(before, last, value))
        low = self.lower(weights, _pooled(value))
        self.plan.join()
        return self.finish(last, upper, inner, readers, low.x)

    def upper(self, before: Sequence[Block], last: Block, value: Value) -> tuple[Value, Value]:
        """The upper branch but for the convolution that ends it: the last block's input, and what that convolves."""
        value = self.chain(before, value, Readers(next=last))
        return value, self.begin(last, value)

    def lower(self, weights: HourglassWeights, value: Value) -> Value:
        """The lower branch, at half the resolution."""
        inner, after = weights.low2, Readers(next=weights.low3[0])
        if isinstance(inner, HourglassWeights):
            value = self.hourglass(inner, self.chain(weights.low1, value, entry(inner)), after)
        else:
            value = self.chain(inner, self.chain(weights.low1, value, Readers(next=inner[0])), after)
        return self.chain(weights.low3, value, Readers())

    def chain(self, blocks: Sequence[Block], value: Value, readers: Readers) -> Value:
        """Blocks in a row, or none; `readers` read the last one's result."""
        for block, after in zip(blocks, [*blocks[1:], None]):
            value = self.block(block, value, readers if after is None else Readers(next=after))
        return value

    @abstractmethod
    def stem(self, weights: Packer, images: Tensor, grid: Grid) -> Value:
        """The first convolution with its norm, for the stem's first block."""

    @abstractmethod
    def block(self, block: Block, value: Value, readers: Readers, low: Buffer | None = None) -> Value:
        """A bottleneck, plus the lower branch `low` upsampled where there is one."""

    @abstractmethod
    def begin(self, block: Block, value: Value) -> Value:
        """A bottleneck without its last convolution: what that convolves."""

    @abstractmethod
    def finish(self, block: Block, value: Value, inner: Value, readers: Readers, low: Buffer | None) -> Value:
        """Its last convolution of `inner`, plus the block's input `value` and the lower branch."""

    @abstractmethod
    def score(self, stack: StackWeights, value: Value, heatmaps: Tensor) -> None:
        """The last stack's heatmaps."""

    @abstractmethod
    def merge(self, stack: StackWeights, value: Value, trunk: Value, readers: Readers) -> Value:
        """The way back into the trunk."""


class MovedCut(Scheme):
    """The kernel that makes x also makes what each of its readers starts from."""

    def stem(self, weights: Packer, images: Tensor, grid: Grid) -> Value:
        conv, reader = weights.stem.conv, weights.stem.blocks[0]
        x, t = Buffer(grid, conv.channels), Buffer(grid, reader.convs[0].channels)
        self.plan.call("stem", _OPS.stem, images, conv.weight, conv.bias, True, *_entrance(reader), x, t, None)
        return Value(grid, x, t)

    def block(self, block: Block, value: Value, readers: Readers, low: Buffer | None = None) -> Value:
        inner = self.convolve(block, block.convs[1:-2], value)
        out = self.results(value.grid, block.channels, readers)
        self.plan.call(
            block.name, _OPS.bottleneck, inner.t, value.x, *_weights(block.convs[-2:]), block.skip_weight, low,
            *_entrance(readers.next), *_entrance(readers.pool), *_outputs(out), *value.size,
        )  # fmt: skip
        return out

    def begin(self, block: Block, value: Value) -> Value:
        return self.convolve(block, block.convs[1:-1], value)

    def finish(self, block: Block, value: Value, inner: Value, readers: Readers, low: Buffer | None) -> Value:
        out = self.results(value.grid, block.channels, readers)
        self.plan.call(
            block.name, _OPS.expand, inner.t, value.x, *_weights(block.convs[-1:]), block.skip_weight, low,
            *_entrance(readers.next), *_entrance(readers.pool), *_outputs(out), *value.size,
        )  # fmt: skip
        return out

    def convolve(self, block: Block, convs: Sequence[Conv], value: Value) -> Value:
        """3x3s and ReLUs of the value's t, one after the other."""
        t = value.t
        for conv in convs:
            read, t = t, Buffer(value.grid, conv.channels)
            self.plan.call(block.name, _OPS.conv3x3, read, conv.weight, conv.bias, t, *value.size)
        return Value(value.grid, None, t)

    def results(self, grid: Grid, channels: int, readers: Readers) -> Value:
        """New buffers for a block's results."""
        t = None if readers.next is None else Buffer(grid, readers.next.convs[0].channels)
        pooled, half = None, None if readers.pool is None else grid.half()
        if readers.pool is not None and half is not None:
            pooled = Value(half, Buffer(half, channels, self.exact), Buffer(half, readers.pool.convs[0].channels))
        return Value(grid, Buffer(grid, channels, self.exact) if readers.x else None, t, pooled=pooled)

    def score(self, stack: StackWeights, value: Value, heatmaps: Tensor) -> None:
        self.plan.call(
            stack.name, _OPS.head, value.x, *_weights([stack.features, stack.score]), *[None] * 9, heatmaps,
            *[None] * 4, *value.size,
        )  # fmt: skip

    def merge(self, stack: StackWeights, value: Value, trunk: Value, readers: Readers) -> Value:
        assert stack.merge is not None
        out = self.results(value.grid, stack.merge.channels, readers)
        self.plan.call(
            stack.name, _OPS.head, value.x, *_weights([stack.features]), None, None, trunk.x, *_weights([stack.merge]),
            *_entrance(readers.next), *_entrance(readers.pool), None, *_outputs(out), *value.size,
        )  # fmt: skip
        return out


class GroupNorms(Scheme):
    """A kernel a convolution; statistics travel with the activations, because a norm over the image cannot fold."""

    def stem(self, weights: Packer, images: Tensor, grid: Grid) -> Value:
        conv, affine = weights.stem.conv, weights.stem.affine
        raw, x = self.value(grid, conv.channels), self.value(grid, conv.channels)
        self.plan.call("stem", _OPS.stem, images, conv.weight, conv.bias, False, *[None] * 3, raw.x, None, raw.partials)
        self.plan.call(
            "stem", _OPS.normalise, raw.x, raw.partials, affine, self.eps, x.x, x.partials, *raw.size
        )  # fmt: skip
        return x

    def block(self, block: Block, value: Value, readers: Readers, low: Buffer | None = None) -> Value:
        return self.finish(block, value, self.begin(block, value), readers, low)

    def begin(self, block: Block, value: Value) -> Value:
        for affine, conv in zip(block.affines, block.convs[:-1]):
            value = self.convolve(block.name, value, affine, conv, self.value(value.grid, conv.channels))
        return value

    def finish(self, block: Block, value: Value, inner: Value, readers: Readers, low: Buffer | None) -> Value:
        out = self.value(value.grid, block.channels, self.exact, statistics=readers.next is not None)
        residual = (value.x, block.skip_weight, low)
        self.convolve(block.name, inner, block.affines[-1], block.convs[-1], out, residual)
        return self.with_pooled(block.name, out, readers)

    def score(self, stack: StackWeights, value: Value, heatmaps: Tensor) -> None:
        scores = self.value(value.grid, stack.score.channels, exact=True, statistics=False)
        self.convolve(stack.name, self.features(stack, value, exact=True), stack.affine, stack.score, scores)
        self.plan.call(stack.name, _take_heatmaps, scores.x, heatmaps, value.grid, writes=(1,))

    def merge(self, stack: StackWeights, value: Value, trunk: Value, readers: Readers) -> Value:
        assert stack.merge is not None
        out = self.value(value.grid, stack.merge.channels, self.exact)
        residual = (trunk.x, None, None)
        self.convolve(stack.name, self.features(stack, value), stack.affine, stack.merge, out, residual)
        return self.with_pooled(stack.name, out, readers)

    def features(self, stack: StackWeights, value: Value, exact: bool = False) -> Value:
        """The stack's features before their norm."""
        features = self.value(value.grid, stack.features.channels, exact)
        self.convolve(stack.name, Value(value.grid, value.x), None, stack.features, features)
        return features

    def convolve(
        self,
        name: str,
        value: Value,
        affine: Tensor | None,
        conv: Conv,
        out: Value,
        residual: tuple[Buffer | None, Tensor | None, Buffer | None] = (None, None, None),
    ) -> Value:
        """One convolution of the normalised value; residual: what is added, its projection, the lower branch."""
        before = (value.x, value.partials, affine, self.eps, conv.weight, conv.bias)
        after = (out.x, out.partials, *value.size)
        if conv.weight.ndim == 3:
            self.plan.call(name, _OPS.norm_conv3x3, *before, *after)
        else:
            self.plan.call(name, _OPS.norm_conv1x1, *before, *residual, *after)
        return out

    def value(self, grid: Grid, channels: int, exact: bool = False, statistics: bool = True) -> Value:
        """New activations, with room for their statistics where somebody normalises them."""
        return Value(grid, Buffer(grid, channels, exact), partials=Buffer(grid, 0) if statistics else None)

    def with_pooled(self, name: str, value: Value, readers: Readers) -> Value:
        """The value, and its pooled self where somebody reads that."""
        if readers.pool is None:
            return value
        assert value.x is not None
        pooled = self.value(value.grid.half(), value.x.channels, value.x.exact)
        self.plan.call(name, _OPS.max_pool, value.x, pooled.x, pooled.partials, *value.size)
        return Value(value.grid, value.x, partials=value.partials, pooled=pooled)


def _take_heatmaps(rows: Tensor, heatmaps: Tensor, grid: Grid) -> None:
    """The first channels of a buffer, as heatmaps [N, J, h, w]."""
    heatmaps.copy_(grid.images(rows)[:, : heatmaps.shape[1]])


def _pooled(value: Value) -> Value:
    assert value.pooled is not None
    return value.pooled


def _weights(convs: Sequence[Conv]) -> list[Tensor]:
    return [tensor for conv in convs for tensor in (conv.weight, conv.bias)]


def _entrance(reader: Block | None) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """What makes a reader's t: its first norm's affine and its first convolution."""
    return (None, None, None) if reader is None else (reader.affines[0], reader.convs[0].weight, reader.convs[0].bias)


def _outputs(value: Value) -> tuple[Buffer | None, ...]:
    pooled = value.pooled
    return value.x, value.t, None if pooled is None else pooled.x, None if pooled is None else pooled.t
