"""One image and its annotation: a labelled person, others around, things before and behind, and a camera."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fasthg.pixels.skeleton import MPII
from training.people.synthetic.background import draw_occluder, sample_background
from training.people.synthetic.effects import develop
from training.people.synthetic.look import sample_look
from training.people.synthetic.people import draw_person
from training.people.synthetic.pose import sample_figure
from training.people.synthetic.raster import Canvas, Light
from training.people.synthetic.skeleton import (
    HEAD,
    HEAD_DIAGONAL,
    LANK,
    LHIP,
    NECK,
    PELV,
    RANK,
    RHIP,
    THOR,
    Figure,
    project,
)

_NUMBER_OF_OTHERS = (0.60, 0.28, 0.10, 0.02)  # shares of 0, 1, 2, 3; MPII has more, and smaller ones
_OCCLUDED = 0.14  # share of images with a thing before the people
_SURFACE = np.full(len(MPII), 0.06)  # how far a joint may lie under the surface and still be seen, units of 200 * scale
_SURFACE[[RHIP, LHIP, PELV, THOR]] = 0.105
_SURFACE[[NECK, HEAD]] = 0.09
_SURFACE[[RANK, LANK]] = 0.05


@dataclass(frozen=True)
class Person:
    """What MPII would record of one person; pixels, corner origin."""

    joints: np.ndarray  # [J, 2]; NaN where not labelled
    visible: np.ndarray  # bool [J]
    center: np.ndarray  # [2]
    scale: float
    head_box: np.ndarray  # [4] x1, y1, x2, y2


@dataclass(frozen=True)
class Scene:
    image: np.ndarray  # uint8 RGB [H, W, 3]
    people: list[Person]  # the labelled person first
    owner: np.ndarray  # uint8 [H, W]: 0 background, 1 the labelled person, 2 ... the others, 255 an occluder


def render_scene(rng: np.random.Generator, width: int = 480, height: int = 360) -> Scene:
    """Render a person among others. The same generator state and size give the same image, byte for byte."""
    main = _place(rng, sample_figure(rng), width, height)
    others = rng.choice(len(_NUMBER_OF_OTHERS), p=_NUMBER_OF_OTHERS)
    figures = [main, *(_place_beside(rng, sample_figure(rng), main) for _ in range(others))]
    canvas = draw_figures(rng, figures, sample_background(rng, width, height))
    people = [_annotate(rng, figure, canvas) for figure in figures]
    return Scene(develop(rng, canvas.color), people, canvas.owner)


def draw_figures(rng: np.random.Generator, figures: list[Figure], background: np.ndarray) -> Canvas:
    """Dress and draw `figures` over `background` (uint8 RGB, changed in place), sometimes with a thing before them.

    In the canvas's `owner`, figure i has the value i + 1.
    """
    canvas = Canvas(background)
    light = _sample_light(rng)
    for index in sorted(range(len(figures)), key=lambda index: -figures[index].joints[PELV, 2]):
        draw_person(canvas, figures[index], sample_look(rng), light, index + 1)
    if rng.random() < _OCCLUDED:
        draw_occluder(rng, canvas, figures[0].joints[rng.integers(len(MPII)), :2], figures[0].unit)
    return canvas


def _sample_light(rng: np.random.Generator) -> Light:
    direction = np.array([rng.normal(0, 0.8), -abs(rng.normal(0, 0.7)) - 0.2, -abs(rng.normal(0, 0.6)) - 0.3])
    diffuse = rng.uniform(0.3, 0.65)
    return Light(direction / np.linalg.norm(direction), 1.02 - 0.8 * diffuse, diffuse)


def _place(rng: np.random.Generator, body: Figure, width: int, height: int) -> Figure:
    """Put the labelled person into the image: mostly whole, sometimes cut off below or at a side, as in MPII."""
    unit = height * float(np.clip(np.exp(rng.normal(np.log(0.72), 0.24)), 0.4, 1.3))
    seen = project(body, unit, distance=rng.uniform(3, 9), tilt=rng.normal(0.08, 0.14))
    low, high = seen.joints[:, :2].min(axis=0), seen.joints[:, :2].max(axis=0)
    size, extent = np.array([width, height]), high - low
    centre = size / 2 + rng.normal(0, (0.27, 0.18)) * np.maximum(size - extent, 0.15 * height)
    if extent[1] > 0.9 * height and rng.random() < 0.8:  # too tall for the image: keep the head in, cut the legs
        centre[1] = rng.uniform(0.06, 0.16) * height + extent[1] / 2
    centre = np.clip(centre, 0.25 * extent, size - 0.25 * extent)  # three quarters of either side are in the image
    return seen.moved(np.append(centre - (low + high) / 2, 0.0))


def _place_beside(rng: np.random.Generator, body: Figure, main: Figure) -> Figure:
    """Put somebody beside the labelled person, mostly a little behind, sometimes partly in front."""
    behind = rng.random() < 0.8
    size = rng.uniform(0.65, 0.95) if behind else rng.uniform(0.95, 1.2)
    x = rng.choice([-1, 1]) * rng.uniform(0.38 if behind else 0.5, 1.1)
    z = rng.uniform(1.0, 2.5) * (1 if behind else -1)
    seen = project(body, main.unit * size, distance=rng.uniform(4, 9), tilt=rng.normal(0.08, 0.05))
    return seen.moved(main.joints[PELV] + main.unit * np.array([x, rng.normal(0, 0.08), z]))


def _annotate(rng: np.random.Generator, figure: Figure, canvas: Canvas) -> Person:
    """Labels as MPII gives them: nothing outside the image; occluded joints labelled, marked not visible."""
    height, width = canvas.depth.shape
    joints = figure.joints[:, :2].copy()
    inside = np.all((joints >= 0) & (joints < (width, height)), axis=1)
    column, row = np.where(inside[:, None], joints, 0).astype(int).T
    visible = inside & (canvas.depth[row, column] >= figure.joints[:, 2] - _SURFACE * figure.unit)
    joints[~inside] = np.nan
    box = figure.head_box()
    scale = float(np.hypot(*(box[2:] - box[:2]))) / HEAD_DIAGONAL / 200
    return Person(joints, visible, _center(rng, joints, scale), scale, box)


def _center(rng: np.random.Generator, joints: np.ndarray, scale: float) -> np.ndarray:
    """MPII's objpos: about the middle of the labelled joints, 0.03 units higher, off by 0.055 units either way."""
    if np.isnan(joints).all():
        return np.zeros(2)
    middle = (np.nanmin(joints, axis=0) + np.nanmax(joints, axis=0)) / 2
    return middle + 200 * scale * (np.clip(rng.normal(0, 1, 2), -2.2, 2.2) * 0.055 - (0, 0.03))


def record(scene: Scene, name: str, index: int, validation: bool, person: int = 0) -> dict[str, Any]:
    """The bearpaw JSON record of one person of a scene: 1-based pixels, a missing joint 0, 0, 0, plus `head_box`."""
    height, width = scene.image.shape[:2]
    this, others = scene.people[person], [other for other in scene.people if other is not scene.people[person]]
    others = [other for other in others if not np.isnan(other.joints).all()]

    def one_or_all(values: list[Any]) -> Any:
        return values[0] if len(values) == 1 else values

    return {
        "dataset": "synthetic",
        "isValidation": float(validation),
        "img_paths": name,
        "img_width": float(width),
        "img_height": float(height),
        "objpos": _one_based(this.center),
        "joint_self": _joint_list(this),
        "scale_provided": round(this.scale, 4),
        "joint_others": one_or_all([_joint_list(other) for other in others]),
        "scale_provided_other": one_or_all([round(other.scale, 4) for other in others]),
        "objpos_other": one_or_all([_one_based(other.center) for other in others]),
        "annolist_index": float(index),
        "people_index": float(person + 1),
        "numOtherPeople": float(len(others)),
        "head_box": _one_based(this.head_box),
    }


def _one_based(values: np.ndarray) -> list[float]:
    return [round(float(value) + 0.5, 3) for value in values]


def _joint_list(person: Person) -> list[list[float]]:
    return [
        [0.0, 0.0, 0.0] if np.isnan(x) else [*_one_based(np.array([x, y])), float(seen)]
        for (x, y), seen in zip(person.joints, person.visible)
    ]
