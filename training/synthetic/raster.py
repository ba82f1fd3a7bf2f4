"""Two solids in a depth buffer: the tapered tube (limbs, torso) and the ellipsoid (head, hands), textured and shaded."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

TOWARD_VIEWER = np.array([0.0, 0.0, -1.0])
_TABLE = 64  # steps of a tube's radius profile


@dataclass(frozen=True)
class Light:
    """One far light and what the surroundings give: brightness = ambient + diffuse * cos(angle)."""

    direction: np.ndarray  # [3], unit, toward the light
    ambient: float
    diffuse: float


@dataclass(frozen=True)
class Tube:
    """A generalised cylinder between two points, seen in parallel projection.

    `radius` is its half width in pixels at equal steps from bottom to top, `flatness` its depth over its width, and
    `front` the direction in which the middle of `texture` (uint8 RGB, first row at the top) faces. `cap` flattens the
    ends: 1 is a hemisphere, 3 a third of one.
    """

    bottom: np.ndarray  # [3] pixels: x, y and depth
    top: np.ndarray  # [3]
    radius: tuple[float, ...]
    front: np.ndarray  # [3]
    texture: np.ndarray  # uint8 [h, w, 3]
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
    texture: np.ndarray  # uint8 [h, w, 3], its middle faces front, its first row up

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

    def window(self, low: np.ndarray, high: np.ndarray) -> tuple[slice, slice] | None:
        """Rows and columns that cover the box, or None where it misses the image."""
        height, width = self.depth.shape
        x0, y0 = max(int(low[0]), 0), max(int(low[1]), 0)
        x1, y1 = min(int(high[0]) + 1, width), min(int(high[1]) + 1, height)
        return (slice(y0, y1), slice(x0, x1)) if x0 < x1 and y0 < y1 else None

    def put(
        self, window: tuple[slice, slice], depth: np.ndarray, cover: np.ndarray, color: np.ndarray, owner: int
    ) -> None:
        """Blend `color` in where it is nearer than what is there."""
        near = depth < self.depth[window]
        alpha = cover * near
        under = self.color[window]
        under[...] = cv2.blendLinear(color, np.ascontiguousarray(under), alpha, 1 - alpha)
        solid = alpha > 0.5
        np.copyto(self.depth[window], depth, where=solid)
        np.copyto(self.owner[window], np.uint8(owner), where=solid)


def draw(canvas: Canvas, solid: Tube | Ellipsoid, light: Light, owner: int) -> None:
    """Draw one solid; `owner` (1 to 255) marks its pixels in `canvas.owner`."""
    if isinstance(solid, Tube):
        _draw_tube(canvas, solid, light, owner)
    else:
        _draw_ellipsoid(canvas, solid, light, owner)


def _grid(window: tuple[slice, slice], origin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixel centres relative to `origin`: x [1, w] and y [h, 1]."""
    rows, columns = window
    x = np.arange(columns.start, columns.stop, dtype=np.float32) + np.float32(0.5 - origin[0])
    y = np.arange(rows.start, rows.stop, dtype=np.float32) + np.float32(0.5 - origin[1])
    return x[None, :], y[:, None]


def _shaded(texture: np.ndarray, x: np.ndarray, y: np.ndarray, brightness: np.ndarray) -> np.ndarray:
    color = cv2.remap(texture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return cv2.multiply(color, cv2.merge([brightness] * 3), dtype=cv2.CV_8U)


def _draw_tube(canvas: Canvas, tube: Tube, light: Light, owner: int) -> None:
    bottom, top = tube.bottom, tube.top
    axis = top[:2] - bottom[:2]
    length = float(np.hypot(*axis))
    dx, dy = axis / length if length > 1e-3 else (0.0, -1.0)
    length = max(length, 1e-3)
    side = np.array([-dy, dx, 0.0])  # up x toward-the-viewer: the body's left where it faces us

    # Cross-section: an ellipse turned by `turn`; its visible outline point at angle phi is texture angle phi - shift.
    turn = float(np.arctan2(tube.front @ side, tube.front @ TOWARD_VIEWER))
    cos, sin, flat = np.cos(turn), np.sin(turn), tube.flatness
    shift = float(np.arctan2(flat * sin, cos))
    spread = float(np.hypot(cos, flat * sin))
    shear = float(-sin * np.cos(shift) + flat * cos * np.sin(shift)) / spread
    bulge = float(sin * np.sin(shift) + flat * cos * np.cos(shift)) / spread

    profile = np.interp(np.linspace(0, len(tube.radius) - 1, _TABLE), np.arange(len(tube.radius)), tube.radius)
    profile = (profile * spread).astype(np.float32)
    reach = float(profile.max()) + 1
    window = canvas.window(np.minimum(bottom, top)[:2] - reach, np.maximum(bottom, top)[:2] + reach)
    if window is None:
        return
    x, y = _grid(window, bottom)
    along = x * np.float32(dx) + y * np.float32(dy)
    across = x * np.float32(-dy) + y * np.float32(dx)
    on_axis = np.clip(along, 0, length)
    position = on_axis / np.float32(length)
    radius = profile.take((position * (_TABLE - 1) + 0.5).astype(np.intp))
    distance = np.sqrt(across * across + ((along - on_axis) * np.float32(tube.cap)) ** 2)
    cover = np.clip(radius - distance + 0.5, 0, 1)
    lateral = np.clip(across / radius, -1, 1)
    height = np.sqrt(np.clip(1 - (distance / radius) ** 2, 0, 1))
    depth = position * np.float32(top[2] - bottom[2]) + np.float32(bottom[2])
    depth -= (lateral * np.float32(shear) + height * np.float32(bulge)) * radius

    rows, columns = tube.texture.shape[:2]
    angle = (np.arctan2(lateral, height) - np.float32(shift)) * np.float32(0.5 / np.pi) + np.float32(1.5)
    texture_x = (angle - np.floor(angle)) * np.float32(columns - 1)
    texture_y = (1 - position) * np.float32(rows - 1)
    brightness = lateral * np.float32(light.diffuse * (side @ light.direction))
    brightness += height * np.float32(light.diffuse * (TOWARD_VIEWER @ light.direction)) + np.float32(light.ambient)
    canvas.put(window, depth, cover, _shaded(tube.texture, texture_x, texture_y, brightness), owner)


def _draw_ellipsoid(canvas: Canvas, solid: Ellipsoid, light: Light, owner: int) -> None:
    reach = solid.half_extent + 1
    window = canvas.window(solid.centre[:2] - reach, solid.centre[:2] + reach)
    if window is None:
        return
    x, y = _grid(window, solid.centre)
    # Points p on the surface have p' form p = 1; along a ray that is a quadratic in p's depth.
    form = ((solid.rotation / solid.radii**2) @ solid.rotation.T).astype(np.float32)
    half_b = x * form[0, 2] + y * form[1, 2]
    c = x * x * form[0, 0] + x * y * (2 * form[0, 1]) + y * y * form[1, 1] - 1
    discriminant = half_b * half_b - form[2, 2] * c
    z = (-half_b - np.sqrt(np.maximum(discriminant, 0))) / form[2, 2]
    inside = np.sqrt(np.maximum(1 - discriminant / form[2, 2], 0))
    cover = np.clip((1 - inside) * np.float32(min(solid.half_extent)) + 0.5, 0, 1)

    to_body = (solid.rotation / solid.radii).T.astype(np.float32)
    left, up, front = (x * row[0] + y * row[1] + z * row[2] for row in to_body)
    rows, columns = solid.texture.shape[:2]
    texture_x = (np.arctan2(left, front) * np.float32(0.5 / np.pi) + np.float32(0.5)) * np.float32(columns - 1)
    texture_y = (np.float32(0.5) - np.arcsin(np.clip(up, -1, 1)) * np.float32(1 / np.pi)) * np.float32(rows - 1)

    nx, ny, nz = (x * row[0] + y * row[1] + z * row[2] for row in form)
    toward = (
        nx * np.float32(light.direction[0]) + ny * np.float32(light.direction[1]) + nz * np.float32(light.direction[2])
    )
    facing = toward / np.sqrt(nx * nx + ny * ny + nz * nz + np.float32(1e-12))
    brightness = facing * np.float32(light.diffuse) + np.float32(light.ambient)
    depth = z + np.float32(solid.centre[2])
    canvas.put(window, depth, cover, _shaded(solid.texture, texture_x, texture_y, brightness), owner)
