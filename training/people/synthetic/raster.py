"""Two solids in a depth buffer: the tapered tube (limbs, trunk) and the ellipsoid (head, hair), textured and shaded."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import cv2
import numpy as np

TOWARD_VIEWER = np.array([0.0, 0.0, -1.0])
_STEPS = 64  # of a tube's profile
_DARKEST = 0.1

Window = tuple[slice, slice]  # rows and columns of the image
Coordinates = Callable[[], tuple[np.ndarray, np.ndarray]]  # where each pixel lies in a texture: x, y


@dataclass(frozen=True)
class Light:
    """One far light and what the surroundings give: brightness = ambient + diffuse * cos(angle)."""

    direction: np.ndarray  # [3], unit, toward the light
    ambient: float
    diffuse: float


@dataclass(frozen=True)
class Tube:
    """A generalised cylinder between two points, seen in parallel projection.

    `profile` times `width` is its half width in pixels at equal steps from bottom to top, `flatness` its depth over its
    width, and `front` the direction in which the middle of `texture` faces. `cap` flattens the ends: 1 is a hemisphere,
    3 a third of one.
    """

    bottom: np.ndarray  # [3] pixels: x, y and depth
    top: np.ndarray  # [3]
    width: float
    profile: tuple[float, ...]
    front: np.ndarray  # [3]
    texture: np.ndarray  # uint8 RGB [h, w, 3], its first row at the top, once around from back to back
    flatness: float = 1.0
    cap: float = 1.0

    @property
    def depth(self) -> float:
        return float(self.bottom[2] + self.top[2]) / 2


@dataclass(frozen=True)
class Ellipsoid:
    """`rotation` has the body's left, up and front as its columns; `texture` is a map of longitude and latitude."""

    centre: np.ndarray  # [3] pixels
    rotation: np.ndarray  # [3, 3]
    radii: np.ndarray  # [3] pixels along left, up, front
    texture: np.ndarray  # uint8 RGB [h, w, 3], its middle faces front, its first row up

    @property
    def depth(self) -> float:
        return float(self.centre[2])

    @property
    def half_extent(self) -> np.ndarray:
        """Half width and half height of the projection's bounding box, pixels."""
        return np.sqrt(((self.rotation[:2] * self.radii) ** 2).sum(axis=1))


@dataclass
class Canvas:
    """RGB image, depth of the nearest surface in pixels, and who owns it (0 is background)."""

    color: np.ndarray  # uint8 [H, W, 3]
    depth: np.ndarray = field(init=False)  # float32 [H, W]
    owner: np.ndarray = field(init=False)  # uint8 [H, W]

    def __post_init__(self) -> None:
        self.depth = np.full(self.color.shape[:2], np.inf, np.float32)
        self.owner = np.zeros(self.color.shape[:2], np.uint8)

    def window(self, low: np.ndarray, high: np.ndarray) -> Window | None:
        """Rows and columns that cover the box from `low` to `high` (x, y), or None where it misses the image."""
        height, width = self.depth.shape
        x0, y0 = max(int(low[0]), 0), max(int(low[1]), 0)
        x1, y1 = min(int(high[0]) + 1, width), min(int(high[1]) + 1, height)
        return (slice(y0, y1), slice(x0, x1)) if x0 < x1 and y0 < y1 else None

    def put(self, window: Window, depth: np.ndarray, cover: np.ndarray, color: np.ndarray, owner: int) -> None:
        """Blend `color` in, by `cover` from 0 to 1, where it is nearer than what is there."""
        alpha = cover * (depth < self.depth[window])
        under = self.color[window]
        under[...] = cv2.blendLinear(color, np.ascontiguousarray(under), alpha, 1 - alpha)
        solid = (alpha > 0.5).view(np.uint8)
        cv2.copyTo(depth, solid, self.depth[window])
        cv2.copyTo(np.full_like(solid, owner), solid, self.owner[window])


def draw(canvas: Canvas, solid: Tube | Ellipsoid, light: Light, owner: int) -> None:
    """Draw one solid; `owner` (1 to 255) marks its pixels in `canvas.owner`."""
    if isinstance(solid, Tube):
        _draw_tube(canvas, solid, light, owner)
    else:
        _draw_ellipsoid(canvas, solid, light, owner)


def _draw_tube(canvas: Canvas, tube: Tube, light: Light, owner: int) -> None:
    bottom, top = tube.bottom, tube.top
    axis = top[:2] - bottom[:2]
    length = float(np.hypot(*axis))
    dx, dy = axis / length if length > 1e-3 else (0.0, -1.0)
    length = max(length, 1e-3)
    side = np.array([-dy, dx, 0.0])  # up x toward the viewer: the body's left where it faces us
    shift, spread, shear, bulge = _cross_section(tube, side)
    reach = tube.width * max(tube.profile) * spread + 1
    window = canvas.window(np.minimum(bottom, top)[:2] - reach, np.maximum(bottom, top)[:2] + reach)
    if window is None:
        return
    x, y = _grid(window, bottom)
    along = x * np.float32(dx) + y * np.float32(dy)
    across = x * np.float32(-dy) + y * np.float32(dx)
    on_axis = along.clip(0, length)
    position = on_axis * np.float32(1 / length)
    step = (position * np.float32(_STEPS - 1) + np.float32(0.5)).astype(np.intp)
    radius = _table(tube.profile).take(step) * np.float32(tube.width * spread)
    beyond = (along - on_axis) * np.float32(tube.cap)
    distance = np.sqrt(across * across + beyond * beyond)
    cover = (radius - distance + np.float32(0.5)).clip(0, 1)
    lateral = (across / radius).clip(-1, 1)
    outward = distance / radius
    height = np.sqrt((1 - outward * outward).clip(0, 1))
    depth = position * np.float32(top[2] - bottom[2]) + np.float32(bottom[2])
    depth -= (lateral * np.float32(shear) + height * np.float32(bulge)) * radius

    def coordinates() -> tuple[np.ndarray, np.ndarray]:
        rows, columns = tube.texture.shape[:2]
        turns = np.arcsin(lateral) * np.float32(0.5 / np.pi) + np.float32(1.5 - shift * 0.5 / np.pi)
        return (turns - np.floor(turns)) * np.float32(columns - 1), (1 - position) * np.float32(rows - 1)

    brightness = lateral * np.float32(light.diffuse * (side @ light.direction))
    brightness += height * np.float32(light.diffuse * (TOWARD_VIEWER @ light.direction)) + np.float32(light.ambient)
    canvas.put(window, depth, cover, _shaded(tube.texture, coordinates, brightness), owner)


@cache
def _table(profile: tuple[float, ...]) -> np.ndarray:
    """A profile at `_STEPS` equal steps; there are only as many profiles as kinds of limbs."""
    last = len(profile) - 1
    return np.interp(np.linspace(0, last, _STEPS), range(last + 1), profile).astype(np.float32)


def _cross_section(tube: Tube, side: np.ndarray) -> tuple[float, float, float, float]:
    """The visible half of the tube's elliptic cross-section, which is turned against the view.

    Returns the angle by which texture and outline differ, the projected width over the width, and the depth of the
    surface in projected half widths, as shear * lateral + bulge * height.
    """
    turn = math.atan2(tube.front @ side, tube.front @ TOWARD_VIEWER)
    cos, sin, flat = math.cos(turn), math.sin(turn), tube.flatness
    shift = math.atan2(flat * sin, cos)
    spread = math.hypot(cos, flat * sin)
    shear = (flat * cos * math.sin(shift) - sin * math.cos(shift)) / spread
    bulge = (flat * cos * math.cos(shift) + sin * math.sin(shift)) / spread
    return shift, spread, shear, bulge


def _draw_ellipsoid(canvas: Canvas, solid: Ellipsoid, light: Light, owner: int) -> None:
    reach = solid.half_extent + 1
    window = canvas.window(solid.centre[:2] - reach, solid.centre[:2] + reach)
    if window is None:
        return
    x, y = _grid(window, solid.centre)
    # Points p of the surface satisfy p' form p = 1; along a ray into the image that is a quadratic in p's depth.
    form = ((solid.rotation / solid.radii**2) @ solid.rotation.T).astype(np.float32)
    half_b = x * form[0, 2] + y * form[1, 2]
    c = x * x * form[0, 0] + x * y * (2 * form[0, 1]) + y * y * form[1, 1] - 1
    discriminant = half_b * half_b - form[2, 2] * c
    z = (-half_b - np.sqrt(np.maximum(discriminant, 0))) / form[2, 2]
    outward = np.sqrt(np.maximum(1 - discriminant / form[2, 2], 0))
    cover = ((1 - outward) * np.float32(min(solid.half_extent)) + np.float32(0.5)).clip(0, 1)

    def coordinates() -> tuple[np.ndarray, np.ndarray]:
        to_body = (solid.rotation / solid.radii).T.astype(np.float32)
        left, up, front = (x * row[0] + y * row[1] + z * row[2] for row in to_body)
        rows, columns = solid.texture.shape[:2]
        longitude = np.arctan2(left, front) * np.float32(0.5 / np.pi) + np.float32(0.5)
        latitude = np.float32(0.5) - np.arcsin(up.clip(-1, 1)) * np.float32(1 / np.pi)
        return longitude * np.float32(columns - 1), latitude * np.float32(rows - 1)

    nx, ny, nz = (x * row[0] + y * row[1] + z * row[2] for row in form)
    lx, ly, lz = light.direction.astype(np.float32)
    facing = (nx * lx + ny * ly + nz * lz) / np.sqrt(nx * nx + ny * ny + nz * nz + np.float32(1e-12))
    brightness = facing * np.float32(light.diffuse) + np.float32(light.ambient)
    depth = z + np.float32(solid.centre[2])
    canvas.put(window, depth, cover, _shaded(solid.texture, coordinates, brightness), owner)


def _shaded(texture: np.ndarray, coordinates: Coordinates, brightness: np.ndarray) -> np.ndarray:
    """Texture times brightness, uint8 [h, w, 3]; a single texel needs no lookup."""
    brightness = np.maximum(brightness, np.float32(_DARKEST))
    if texture.shape[:2] == (1, 1):
        return cv2.convertScaleAbs(cv2.merge([brightness * np.float32(channel) for channel in texture[0, 0]]))
    x, y = coordinates()
    color = cv2.remap(texture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return cv2.multiply(color, cv2.merge([brightness] * 3), dtype=cv2.CV_8U)


def _grid(window: Window, origin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixel centres relative to `origin`: x [1, w] and y [h, 1]."""
    rows, columns = window
    x = np.arange(columns.start, columns.stop, dtype=np.float32) + np.float32(0.5 - origin[0])
    y = np.arange(rows.start, rows.stop, dtype=np.float32) + np.float32(0.5 - origin[1])
    return x[None, :], y[:, None]
