"""What each operator means, in plain PyTorch: the truth for tests and for benchmarks, on every device and dtype."""

from __future__ import annotations

import torch
from torch import Tensor

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
        return torch.where(inside, 0.25 * torch.sign(after - before), 0.0)

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


def crop_warp_normalise(image: Tensor, matrices: Tensor, size: int, mean: list[float]) -> Tensor:
    """Image [H, W, 3] uint8 and maps [N, 2, 3] float64, image to crop -> crops [N, 3, size, size] float32.

    Bilinear with black outside the image, divided by 255, less `mean` [3]. Coordinates have their origin at the corner.
    """
    height, width = image.shape[:2]
    linear = torch.linalg.inv(matrices[:, :, :2])
    axis = torch.arange(size, dtype=torch.float64, device=image.device) + 0.5
    grid_y, grid_x = torch.meshgrid(axis, axis, indexing="ij")
    crop_points = torch.stack([grid_x, grid_y], dim=-1).view(1, -1, 2)
    source = (crop_points - matrices[:, None, :, 2]) @ linear.transpose(1, 2)
    extent = torch.tensor([width, height], dtype=torch.float64, device=image.device)
    grid = (2 * source / extent - 1).view(-1, size, size, 2).float()
    pixels = image.permute(2, 0, 1).float().expand(len(matrices), -1, -1, -1)
    crops = torch.nn.functional.grid_sample(pixels, grid, padding_mode="zeros", align_corners=False)
    return crops / 255.0 - torch.tensor(mean, device=image.device).view(3, 1, 1)
