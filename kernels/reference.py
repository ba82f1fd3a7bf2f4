"""What each operator means, in plain PyTorch: the truth for tests and for benchmarks, on every device and dtype."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fasthg.kernels.layout import unpack_stem

# Heatmaps and targets. Coordinates are continuous heatmap pixels: pixel j covers [j, j + 1), its centre is j + 0.5.


def decode_heatmaps(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    """Heatmaps [N, J, h, w] -> points [N, J, 2] (x, y) and scores [N, J], both float32.

    The first largest pixel, moved a quarter of a pixel toward the larger of its two neighbours on each axis (not at the
    border, not between equal neighbours); the score is that pixel's value. Newell et al., ECCV 2016, section 3.
    """
    height, width = heatmaps.shape[2:]
    flat = heatmaps.float().flatten(2)
    index = flat.argmax(dim=2, keepdim=True)
    x, y = index % width, index // width

    def quarter(position: Tensor, length: int, step: int) -> Tensor:
        inside = (position > 0) & (position < length - 1)
        after = flat.gather(2, (index + step).clamp(max=height * width - 1))
        before = flat.gather(2, (index - step).clamp(min=0))
        return torch.where(inside, 0.25 * ((after > before).float() - (after < before).float()), 0.0)

    points = torch.cat([x + 0.5 + quarter(x, width, 1), y + 0.5 + quarter(y, height, width)], dim=2)
    return points, flat.gather(2, index).squeeze(2)


def render_targets(points: Tensor, weights: Tensor, height: int, width: int, sigma: float) -> Tensor:
    """Points [N, J, 2] (x, y) and weights [N, J] -> targets [N, J, height, width] float32.

    A Gaussian with its peak of 1 at the point itself, not at the nearest pixel, cut at 3 sigma on each axis; all zero
    where the weight is not positive or the point is outside the map (or NaN).
    """
    points = points.float()
    x, y = points[..., 0], points[..., 1]
    drawn = (weights > 0) & (x >= 0) & (x < width) & (y >= 0) & (y < height)

    def profile(centre: Tensor, length: int) -> Tensor:
        distance = torch.arange(length, device=points.device) + 0.5 - centre[..., None]
        return torch.where(distance.abs() <= 3 * sigma, torch.exp(-distance.square() / (2 * sigma * sigma)), 0.0)

    targets = profile(y, height)[..., :, None] * profile(x, width)[..., None, :]
    return torch.where(drawn[..., None, None], targets, 0.0)


# The fused network's operators, on images [N, C, H, W] and weights packed as in `fasthg.kernels.layout`. Half-precision
# inputs are computed in float32; the caller rounds what it stores.


def conv1x1(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """[N, in, H, W] and [in, out] -> [N, out, H, W]."""
    return F.conv2d(x, weight.t()[:, :, None, None].to(x.dtype), None if bias is None else bias.to(x.dtype))


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """[N, in, H, W] and [9, in, out] -> [N, out, H, W], zero padding of 1."""
    kernel = weight.view(3, 3, *weight.shape[1:]).permute(3, 2, 0, 1)
    return F.conv2d(x, kernel.to(x.dtype), bias.to(x.dtype), padding=1)


def conv_stem(images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """[N, 3, H, W] and the packed 7x7 kernel -> [N, out, ceil(H / 2), ceil(W / 2)]."""
    return F.conv2d(images, unpack_stem(weight).to(images.dtype), bias.to(images.dtype), stride=2, padding=3)


def project(x: Tensor, affine: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The first third of a bottleneck: ReLU(ReLU(x * scale + shift) @ weight + bias), what a 3x3 then reads."""
    scale, shift = affine.to(x.dtype)[:, :, None, None]
    return F.relu(conv1x1(F.relu(x * scale + shift), weight, bias))


def add_residual(y: Tensor, x: Tensor, skip_weight: Tensor | None = None, low: Tensor | None = None) -> Tensor:
    """y plus x (projected where `skip_weight` is given), plus `low` upsampled to nearest."""
    y = y + (x if skip_weight is None else conv1x1(x, skip_weight))
    return y if low is None else y + F.interpolate(low, scale_factor=2.0, mode="nearest")


def statistics(x: Tensor, tiles: int) -> Tensor:
    """Partial statistics [N, tiles, 3] of x over C, H and W of each image; here the first tile holds everything."""
    flat = x.flatten(1)
    mean = flat.mean(dim=1)
    partials = x.new_zeros(x.shape[0], tiles, 3)
    partials[:, 0] = torch.stack(
        [torch.full_like(mean, flat.shape[1]), mean, (flat - mean[:, None]).square().sum(1)], 1
    )
    return partials


def group_norm_relu(x: Tensor, partials: Tensor, affine: Tensor, eps: float) -> Tensor:
    """ReLU(GroupNorm with one group), from partial statistics combined as Chan, Golub and LeVeque (1983) do."""
    count, mean, squares = partials.to(x.dtype).unbind(2)
    total = count.sum(1, keepdim=True)
    centre = (count * mean).sum(1, keepdim=True) / total
    variance = (squares + count * (mean - centre).square()).sum(1, keepdim=True) / total
    inverse = torch.rsqrt(variance + eps)
    scale, shift = affine.to(x.dtype)
    scale, shift = scale * inverse, shift - centre * inverse * scale
    return F.relu(x * scale[:, :, None, None] + shift[:, :, None, None])
