"""What a camera does to a picture: exposure, colour cast, contrast, blur and noise."""

from __future__ import annotations

import cv2
import numpy as np

from training.synthetic.grain import add_grain


def develop(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Change exposure, contrast and colour a little; sometimes blur; add sensor noise. uint8 RGB in and out."""
    exposure, gamma = rng.normal(1.0, 0.10), np.exp(rng.normal(0, 0.15))
    gains = exposure * rng.normal(1.0, 0.05, 3)
    ramp = 255 * np.linspace(0, 1, 256)[:, None] ** gamma * gains + rng.normal(0, 6)
    image = cv2.LUT(image, np.clip(ramp, 0, 255).astype(np.uint8)[None])
    blur = rng.random()
    if blur < 0.25:
        image = cv2.GaussianBlur(image, (3, 3) if blur < 0.15 else (5, 5), rng.uniform(0.4, 1.2))
    elif blur < 0.28:
        image = cv2.blur(image, (int(rng.integers(2, 7)), 1))
    return add_grain(rng, image, rng.uniform(0, 8))


def encode_jpeg(rng: np.random.Generator, image: np.ndarray) -> bytes:
    """JPEG of quality 60 to 95."""
    quality = int(rng.integers(60, 96))
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done, "OpenCV could not encode a JPEG"
    return data.tobytes()
