"""How activations and weights lie in memory for the fused operators.

Activations: the shared-zero-border grid. Images [N, H, W, C] become rows of a matrix [rows, C], pixel after pixel, with
one zero column after each image row and one zero row after each image, shared by neighbours:

    lead zero rows | image 0: H rows of (W pixels, 1 zero), then W + 1 zeros | image 1 ... | fill and lead zero rows

A 3x3 tap (dh, dw) of pixel m is row m + dh * (W + 1) + dw, whatever the pixel: a tile of consecutive rows meets its
nine taps at nine uniform offsets, with no masks and no im2col. The price is (H + 1)(W + 1) / HW: 3.1 % at 64x64, 27 %
at 8x8.

Every buffer's borders are zero when an operator starts and when it ends: `Grid.empty` makes them so once.

Weights: 1x1 convolutions are [in, out], 3x3 convolutions [9, in, out] with tap 3 * (dh + 1) + dw + 1, the stem [7,
32, out].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_TILE = 256  # rows; no kernel's tile is longer
STATISTICS_PIXELS = 16  # of one image, for each entry of its partial statistics; a longer tile owns several entries
STEM_TAPS = 32  # one row of the stem's 7x7x3 kernel, 4 channels of 8 columns, the fourth of each zero


@dataclass(frozen=True)
class Grid:
    """Images [batch, height, width] in the shared-zero-border layout."""

    batch: int
    height: int
    width: int

    def __post_init__(self) -> None:
        if min(self.batch, self.height, self.width) < 1:
            raise ValueError(f"a grid of {self.batch} images of {self.height}x{self.width} is empty; give at least 1")

    @property
    def size(self) -> tuple[int, int, int]:
        """Batch, height and width: the last arguments of most operators."""
        return self.batch, self.height, self.width

    @property
    def pixel_count(self) -> int:
        """Pixels of all images, without borders."""
        return self.batch * self.height * self.width

    @property
    def pitch(self) -> int:
        """Rows from one image row to the next."""
        return self.width + 1

    @property
    def image_rows(self) -> int:
        """Rows from one image to the next."""
        return (self.height + 1) * self.pitch

    @property
    def lead(self) -> int:
        """Zero rows before the first pixel and after the last tile: the reach of a 3x3."""
        return self.width + 2

    @property
    def used_rows(self) -> int:
        """Rows of all images with their borders, the lead apart."""
        return self.batch * self.image_rows

    @property
    def rows(self) -> int:
        """Rows of a buffer: the last tile may run past the last image, and its taps past the tile."""
        return self.lead + -(-self.used_rows // MAX_TILE) * MAX_TILE + self.lead

    @property
    def statistics_tiles(self) -> int:
        """Partial statistics of each image."""
        return -(-self.height * self.width // STATISTICS_PIXELS)

    def half(self) -> Grid:
        """The grid after a 2x2 max-pool; raises ValueError for odd sides."""
        if self.height % 2 or self.width % 2:
            raise ValueError(f"{self.height}x{self.width} cannot be halved; give even sides")
        return Grid(self.batch, self.height // 2, self.width // 2)

    def empty(
        self, channels: int, dtype: torch.dtype = torch.float16, device: torch.device | str | None = None
    ) -> Tensor:
        """A buffer [rows, channels] with zero borders (and zero pixels)."""
        return torch.zeros(self.rows, channels, dtype=dtype, device=device)

    def empty_partials(self, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
        """Partial statistics [batch, statistics_tiles, 3]: count, mean and sum of squared deviations of each tile."""
        return torch.zeros(self.batch, self.statistics_tiles, 3, dtype=dtype, device=device)

    def pixels(self, buffer: Tensor) -> Tensor:
        """The images within a buffer [rows, C]: a view [batch, height, width, C]."""
        padded = buffer[self.lead : self.lead + self.used_rows]
        return padded.view(self.batch, self.height + 1, self.pitch, -1)[:, : self.height, : self.width]

    def images(self, buffer: Tensor) -> Tensor:
        """The same view as [batch, C, height, width]."""
        return self.pixels(buffer).permute(0, 3, 1, 2)

    def pack(self, images: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Images [batch, C, height, width] copied into a new buffer."""
        buffer = self.empty(images.shape[1], dtype or images.dtype, images.device)
        self.images(buffer).copy_(images)
        return buffer


def padded_channels(channels: int) -> int:
    """Channels of a buffer for `channels` channels of a network: a power of two, at least 16. The rest are zeros."""
    return max(16, 1 << (channels - 1).bit_length())


def _pad(tensor: Tensor, *sizes: int | None) -> Tensor:
    """Zeros appended until the last dimensions have `sizes`; None leaves a dimension as it is."""
    if all(want in (None, have) for have, want in zip(tensor.shape, sizes)):
        return tensor.contiguous()
    dims = zip(reversed(tensor.shape), reversed(sizes))
    return F.pad(tensor, [n for have, want in dims for n in (0, 0 if want is None else want - have)]).contiguous()


def pack_conv1x1(weight: Tensor) -> Tensor:
    """[out, in, 1, 1] -> [padded in, padded out]."""
    out, inp = weight.shape[:2]
    return _pad(weight.reshape(out, inp).t(), padded_channels(inp), padded_channels(out))


def pack_conv3x3(weight: Tensor) -> Tensor:
    """[out, in, 3, 3] -> [9, padded in, padded out]."""
    out, inp = weight.shape[:2]
    return _pad(weight.permute(2, 3, 1, 0).reshape(9, inp, out), None, padded_channels(inp), padded_channels(out))


def pack_stem(weight: Tensor) -> Tensor:
    """[out, 3, 7, 7] -> [7, 32, padded out]: row of the kernel, 8 * channel + column, output."""
    out = weight.shape[0]
    columns = F.pad(weight.permute(2, 1, 3, 0), (0, 0, 0, 1, 0, 1))  # [7, 4, 8, out]
    return _pad(columns.reshape(7, STEM_TAPS, out), None, None, padded_channels(out))


def unpack_stem(weight: Tensor) -> Tensor:
    """The inverse of `pack_stem`, padded outputs kept: [7, 32, out] -> [out, 3, 7, 7]."""
    return weight.view(7, 4, 8, -1)[:, :3, :7].permute(3, 1, 0, 2)


def pack_bias(bias: Tensor) -> Tensor:
    """[C] -> [padded C]."""
    return _pad(bias, padded_channels(bias.shape[0]))


def pack_affine(scale: Tensor, shift: Tensor) -> Tensor:
    """Scale and shift [C] each -> [2, padded C]; what is padded stays zero under ReLU(x * scale + shift)."""
    return _pad(torch.stack([scale, shift]), None, padded_channels(scale.shape[0]))
