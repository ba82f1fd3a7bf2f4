"""What a camera does to a picture: exposure, contrast, colour, blur and noise."""

from __future__ import annotations

import cv2
import numpy as np

from training.people.synthetic.grain import add_grain


def develop(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Change exposure, contrast, saturation and colour cast a little; blur some; add noise. uint8 RGB in and out."""
    contrast, saturation = rng.normal(1.0, 0.10), rng.normal(0.95, 0.15)
    mixing = saturation * np.eye(3) + (1 - saturation) / 3
    mixing = contrast * rng.normal(1.0, 0.05, (3, 1)) * mixing
    offset = 128 * (1 - contrast) + rng.normal(0, 10)
    image = cv2.transform(image, np.hstack([mixing, np.full((3, 1), offset)]))
    blur = rng.random()
    if blur < 0.25:
        image = cv2.GaussianBlur(image, (3, 3) if blur < 0.15 else (5, 5), rng.uniform(0.4, 1.2))
    elif blur < 0.28:
        image = cv2.blur(image, (int(rng.integers(2, 7)), 1))
    return add_grain(rng, image, rng.uniform(0, 7))


def encode_jpeg(rng: np.random.Generator, image: np.ndarray) -> bytes:
    """JPEG of quality 60 to 95."""
    quality = int(rng.integers(60, 96))
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done, "OpenCV could not encode a JPEG"
    return data.tobytes()
