"""A network with everything around it in one graph: crops of pixels in, keypoints and scores out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fasthg.kernels.reference import decode_heatmaps
from fasthg.network.model import HourglassNet
from fasthg.network.variants import STRIDE
from fasthg.pixels.geometry import flip_heatmaps

OUTPUT_NAMES = ("keypoints", "scores")


class EndToEnd(nn.Module):
    """Crops uint8 RGB [N, H, W, 3] -> keypoints float32 [N, J, 2] in crop pixels, scores float32 [N, J].

    flip  average the heatmaps of each crop and of its mirror image, both in one batch of 2N
    """

    mean: Tensor

    def __init__(self, model: HourglassNet, flip: bool = True) -> None:
        super().__init__()
        self.model = model
        self.flip = flip
        self.register_buffer("mean", torch.tensor(model.config.mean).view(3, 1, 1))

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        images = crops.float().permute(0, 3, 1, 2) / 255.0 - self.mean  # TensorRT only casts uint8, and permutes floats
        if self.flip:
            straight, mirrored = self.model.final(torch.cat([images, images.flip(-1)])).unflatten(0, (2, -1)).unbind(0)
            heatmaps = (straight + flip_heatmaps(mirrored, self.model.config.skeleton)) / 2
        else:
            heatmaps = self.model.final(images)
        points, scores = decode_heatmaps(heatmaps)
        return points * STRIDE, scores
