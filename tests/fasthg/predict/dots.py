"""A network whose answer is known: its heatmaps are the crop's brightness, so that every joint is where a white dot was
painted.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fasthg.predict.predictor import Pose

SIZE = 64  # of crops; their heatmaps have 16 x 16 pixels


def brightness(images: Tensor) -> Tensor:
    """Crops [N, 3, 64, 64] -> 16 equal heatmaps [N, 16, 16, 16]."""
    return F.avg_pool2d(images.mean(1, keepdim=True), 4).expand(-1, 16, -1, -1)


def dotted(x: float, y: float, width: int = 200, height: int = 150, radius: int = 4) -> NDArray[np.uint8]:
    """A black photograph with a white dot about (x, y), continuous pixels."""
    image = np.zeros((height, width, 3), np.uint8)
    centre = round((x - 0.5) * 16), round((y - 0.5) * 16)  # OpenCV: pixel 0's centre is 0, four bits of fraction
    cv2.circle(image, centre, radius * 16, (255, 255, 255), cv2.FILLED, cv2.LINE_AA, 4)
    return image


def write_video(path: Path, positions: list[tuple[float, float]], codec: str = "mpeg4") -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(10), options={"g": "3"})
        stream.width, stream.height, stream.pix_fmt = 200, 150, "yuv420p"
        for x, y in positions:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(dotted(x, y), format="rgb24")))
        container.mux(stream.encode())


def assert_on_the_dot(pose: Pose, x: float, y: float, side: float) -> None:
    """Within a heatmap pixel, of which the crop of 1.25 x `side` has 16."""
    assert np.abs(pose.joints - [x, y]).max() < 1.25 * side / 16
