"""What stands behind and before people: rooms, fields and clutter made of gradients, shapes and grain."""

from __future__ import annotations

import cv2
import numpy as np

from training.people.synthetic.cloth import fabric, fabric_color, sample_skin, shade
from training.people.synthetic.grain import add_grain
from training.people.synthetic.raster import Canvas

OCCLUDER = 255  # owner of whatever stands before everybody


def sample_background(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """A cluttered background, uint8 RGB [height, width, 3]."""
    coarse = rng.integers(0, 256, (rng.integers(2, 6), rng.integers(2, 7), 3), dtype=np.uint8)
    mood = np.array(fabric_color(rng), np.uint8)
    coarse = (0.45 * coarse + 0.55 * mood).astype(np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.7:
        _lay_floor(rng, image)
    for _ in range(rng.integers(3, 16)):
        _add_shape(rng, image)
    for _ in range(rng.integers(0, 4)):
        _add_limb(rng, image)
    if rng.random() < 0.5:
        image = cv2.blur(image, (int(rng.integers(2, 9)),) * 2)
    return add_grain(rng, image, rng.uniform(0, 16), int(rng.integers(1, 7)))


def _lay_floor(rng: np.random.Generator, image: np.ndarray) -> None:
    height, width = image.shape[:2]
    horizon = int(height * rng.uniform(0.45, 0.95))
    color = fabric_color(rng)
    blend = np.hstack([0.35 * np.eye(3), 0.65 * np.array(color)[:, None]])
    image[horizon:] = cv2.transform(image[horizon:], blend)
    if rng.random() < 0.4:  # boards or tiles running toward a vanishing point
        vanishing, step = (int(rng.uniform(0, width)), horizon - 20), int(rng.integers(30, 110))
        for x in range(-2 * width, 3 * width, step):
            cv2.line(image, (x, height), vanishing, shade(color, 0.7), 1, cv2.LINE_AA)


def _add_shape(rng: np.random.Generator, image: np.ndarray) -> None:
    height, width = image.shape[:2]
    x, y = int(rng.uniform(0, width)), int(rng.uniform(0, height))
    size = rng.uniform(0.03, 0.35, 2) * height
    w, h = int(size[0]), int(size[1])
    color, kind = fabric_color(rng), rng.integers(5)
    if kind == 0:
        cv2.rectangle(image, (x, y), (x + w, y + h), color, -1)
    elif kind == 1:
        cv2.ellipse(image, (x, y), (w // 2 + 1, h // 2 + 1), rng.uniform(0, 180), 0, 360, color, -1, cv2.LINE_AA)
    elif kind == 2:
        corners = rng.uniform(-0.5, 0.5, (int(rng.integers(3, 7)), 2)) * size * 1.4 + (x, y)
        cv2.fillPoly(image, [corners.astype(np.int32)], color, cv2.LINE_AA)
    elif kind == 3:
        end = (int(x + rng.normal(0, 0.4) * width), int(y + rng.normal(0, 0.4) * height))
        cv2.line(image, (x, y), end, color, int(rng.integers(1, 7)), cv2.LINE_AA)
    else:
        region = image[y : y + h, x : x + w]
        if region.size:
            region[...] = cv2.resize(fabric(rng, color, 24, 24), (region.shape[1], region.shape[0]))


def _add_limb(rng: np.random.Generator, image: np.ndarray) -> None:
    """A bent, skin- or cloth-coloured bar: a branch or pipe that looks a little like an arm."""
    height, width = image.shape[:2]
    start = rng.uniform((0, 0), (width, height))
    steps = np.cumsum([start, *rng.normal(0, 0.13 * height, (2, 2))], axis=0)
    color = sample_skin(rng) if rng.random() < 0.5 else fabric_color(rng)
    thickness = int(rng.uniform(0.02, 0.06) * height) + 1
    cv2.polylines(image, [steps.astype(np.int32)], False, color, thickness, cv2.LINE_AA)


def draw_occluder(rng: np.random.Generator, canvas: Canvas, around: np.ndarray, unit: float) -> None:
    """Put a thing (a box, a post, a ball, a table's edge) before everybody, near the point `around` [2]."""
    height, width = canvas.depth.shape
    mask = np.zeros((height, width), np.uint8)
    x, y = (int(value) for value in around + rng.normal(0, 0.12, 2) * unit)
    kind = rng.integers(4)
    if kind == 0:
        w, h = (int(value) for value in rng.uniform(0.08, 0.28, 2) * unit)
        cv2.rectangle(mask, (x - w, y - h // 2), (x + w, y + h), 255, -1)
    elif kind == 1:
        lean = rng.normal(0, 0.15) * height
        cv2.line(mask, (int(x - lean), 0), (int(x + lean), height), 255, int(rng.uniform(0.02, 0.07) * unit) + 1)
    elif kind == 2:
        radius = int(rng.uniform(0.05, 0.13) * unit) + 1
        cv2.circle(mask, (x, y), radius, 255, -1)
    else:
        thickness = int(rng.uniform(0.04, 0.12) * unit) + 1
        cv2.line(mask, (0, y), (width, int(y + rng.normal(0, 0.1) * height)), 255, thickness)
    x0, y0, w, h = cv2.boundingRect(mask)
    if w == 0 or h == 0:
        return
    window = (slice(y0, y0 + h), slice(x0, x0 + w))
    covered = mask[window] > 0
    cloth = cv2.resize(fabric(rng, fabric_color(rng), 32, 32), (w, h), interpolation=cv2.INTER_LINEAR)
    shade = np.linspace(rng.uniform(0.8, 1.1), rng.uniform(0.6, 1.0), w, dtype=np.float32)[None, :, None]
    cloth = np.clip(cloth * shade, 0, 255).astype(np.uint8)
    np.copyto(canvas.color[window], cloth, where=covered[..., None])
    canvas.depth[window][covered] = -np.inf
    canvas.owner[window][covered] = OCCLUDER
