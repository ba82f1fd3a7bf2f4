"""Crop, flip and the way back: an error here moves every joint of every result."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fasthg.data.people import People
from fasthg.pixels import geometry, heatmap
from fasthg.pixels.skeleton import MPII


def test_crop_is_the_published_box_of_mpii() -> None:
    # Section 3.2 of the hourglass code's convention: side 200 * 1.25 * scale about (x, y + 15 * scale).
    matrix = geometry.crop_matrix([100.0, 200.0], 2.0, size=256)
    corners = geometry.apply(matrix, [[100 - 250, 230 - 250], [100 + 250, 230 + 250], [100, 230]])
    np.testing.assert_allclose(corners, [[0, 0], [256, 256], [128, 128]], atol=1e-9)


def test_rotation_is_clockwise_about_the_crops_centre() -> None:
    matrix = geometry.crop_matrix([100.0, 85.0], 1.0, size=250, rotation=90.0)  # one crop pixel for one of the image
    np.testing.assert_allclose(geometry.apply(matrix, [[100, 100], [110, 100]]), [[125, 125], [125, 135]], atol=1e-9)


def test_flip_mirrors_the_crop_and_zoom_widens_the_box() -> None:
    point = [[130.0, 90.0]]
    plain = geometry.apply(geometry.crop_matrix([100.0, 85.0], 1.0, 250), point)
    flipped = geometry.apply(geometry.crop_matrix([100.0, 85.0], 1.0, 250, flip=True), point)
    zoomed = geometry.apply(geometry.crop_matrix([100.0, 85.0], 1.0, 250, zoom=2.0), point)
    np.testing.assert_allclose(flipped, [[250 - plain[0, 0], plain[0, 1]]])
    np.testing.assert_allclose(zoomed, (plain - 125) / 2 + 125)


def test_many_crops_at_once_are_the_crops_one_by_one() -> None:
    rng = np.random.default_rng(0)
    center, scale = rng.uniform(50, 900, (6, 2)), rng.uniform(0.5, 8, 6)
    rotation, flip, zoom = rng.uniform(-30, 30, 6), rng.random(6) < 0.5, rng.uniform(0.75, 1.25, 6)
    many = geometry.crop_matrix(center, scale, 256, rotation, flip, zoom)
    single = [geometry.crop_matrix(center[i], scale[i], 256, rotation[i], flip[i], zoom[i]) for i in range(6)]
    np.testing.assert_array_equal(many, single)
    points = rng.uniform(0, 900, (6, 16, 2))
    np.testing.assert_array_equal(
        geometry.apply(many, points), [geometry.apply(matrix, own) for matrix, own in zip(many, points)]
    )


def test_maps_invert_and_compose() -> None:
    first = geometry.crop_matrix([300.0, 200.0], 2.0, 256, 25.0, True)
    second = geometry.crop_matrix([100.0, 120.0], 1.1, 64)
    points = np.random.default_rng(1).uniform(0, 500, (9, 2))
    np.testing.assert_allclose(geometry.apply(geometry.invert(first), geometry.apply(first, points)), points)
    composed = geometry.compose(second, first)
    np.testing.assert_allclose(geometry.apply(composed, points), geometry.apply(second, geometry.apply(first, points)))


def test_box_fills_the_crop_with_mpiis_margin() -> None:
    center, scale = geometry.box_to_center_scale(40, 60, 100, 300)
    matrix = geometry.crop_matrix(center, scale, 250)
    np.testing.assert_allclose(
        geometry.apply(matrix, [[90, 60], [90, 210], [90, 360]]), [[125, 25], [125, 125], [125, 225]]
    )


def test_warp_samples_at_pixel_centres() -> None:
    columns, rows = np.meshgrid(np.arange(60), np.arange(60))
    image = np.stack([columns * 4, rows * 4, np.full_like(rows, 255)], axis=-1).astype(np.uint8)
    matrix = geometry.crop_matrix([30.0, 30.0 - 15 * 0.16], 0.16, size=80)  # a box of 40 pixels, doubled
    crop = geometry.warp(image, matrix, 80)
    centres = geometry.apply(geometry.invert(matrix), np.stack([np.arange(80) + 0.5] * 2, axis=1))[:, 0]
    expected = (centres - 0.5) * 4  # colour of the ramp at a continuous coordinate; half a pixel off would be 2 levels
    np.testing.assert_allclose(crop[40, :, 0], expected, atol=0.51)
    np.testing.assert_allclose(crop[:, 40, 1], expected, atol=0.51)


def test_warp_is_black_outside_the_photograph() -> None:
    image = np.full((20, 20, 3), 200, np.uint8)
    crop = geometry.warp(
        image, geometry.crop_matrix([10.0, 10.0 - 1.5], 0.1, size=25), 25
    )  # a box of 25 about its centre
    assert (crop[12] == 0).any()
    assert (crop[4:-4, 4:-4] == 200).all()


def test_flipped_heatmaps_belong_to_the_unflipped_crop() -> None:
    points = torch.rand(2, 16, 2, dtype=torch.float64) * 30 + 1
    mirrored = points[:, list(MPII.flip_order)] * torch.tensor([-1.0, 1.0]) + torch.tensor([32.0, 0.0])
    weights = torch.ones(2, 16)
    plain = heatmap.render_targets(points, weights, (32, 32))
    flipped = heatmap.render_targets(mirrored, weights, (32, 32))
    torch.testing.assert_close(geometry.flip_heatmaps(flipped, MPII), plain, atol=1e-5, rtol=0)
    stacked = torch.stack([flipped, flipped], dim=1)
    torch.testing.assert_close(geometry.flip_heatmaps(stacked, MPII)[:, 1], geometry.flip_heatmaps(flipped, MPII))


@pytest.mark.parametrize("augmented", [False, True], ids=["plain", "rotated and flipped"])
def test_real_joints_come_back_within_half_a_heatmap_pixel(mpii_people: People, augmented: bool) -> None:
    people = mpii_people
    rng = np.random.default_rng(3)
    rotation = rng.uniform(-30, 30, len(people)) if augmented else np.zeros(len(people))
    flip = rng.random(len(people)) < 0.5 if augmented else np.zeros(len(people), bool)
    matrices = geometry.crop_matrix(people.center, people.scale, 256, rotation, flip)
    in_map = geometry.apply(matrices, people.joints) / 4
    inside = people.labelled & ((in_map >= 0) & (in_map < 64)).all(axis=-1)
    assert inside.sum() > 43_000, "nearly all labelled joints lie in their person's crop"
    back = np.empty_like(people.joints)
    for part in np.array_split(np.arange(len(people)), 12):
        maps = heatmap.render_targets(torch.tensor(in_map[part]), torch.tensor(inside[part]))
        decoded, _ = heatmap.decode(maps)
        back[part] = geometry.apply(geometry.invert(matrices[part]), decoded.double().numpy() * 4)
    image_pixels = 200 * 1.25 * people.scale[:, None] / 64  # of the photograph for one of the heatmap
    error = np.abs(back - people.joints) / image_pixels[..., None]
    distance = np.linalg.norm(back - people.joints, axis=-1) / image_pixels
    away_from_border = inside & ((in_map >= 1) & (in_map < 63)).all(axis=-1)
    if not augmented:
        assert error[inside].max() <= 0.5 + 1e-6
    assert distance[away_from_border].max() < 0.5
