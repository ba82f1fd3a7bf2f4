"""PCKh by many views: the joints must follow the crops, and one joint must weigh less than what is judged."""

import numpy as np
import pytest
import torch

from bench.sweep.materials import scored_rows
from bench.sweep.views import make_views, score
from fasthg.data.dataset import load_dataset
from fasthg.pixels import geometry
from fasthg.pixels.heatmap import render_targets
from fasthg.pixels.image import read_crop

SIZE = 64


@pytest.fixture(scope="module")
def dataset(tiny_dataset):
    return load_dataset(tiny_dataset, "val")


@pytest.fixture(scope="module")
def views(dataset):
    return make_views(dataset, scored_rows(dataset, 4), 5, SIZE, seed=0)


def test_first_view_of_a_person_is_the_plain_crop(dataset, views):
    people = dataset.people
    row = scored_rows(dataset, 4)[2]
    crop, matrix = read_crop(dataset.image_path(row), people.center[row], people.scale[row], SIZE)
    np.testing.assert_array_equal(views.crops[2], crop)
    np.testing.assert_allclose(views.joints[2], geometry.apply(matrix, people.joints[row]))


def test_joints_follow_the_change_of_the_crop(dataset, views):
    # The joints of a view and of the plain crop differ by a zoom and a shift, the same for all joints; so do the heads.
    plain, view, seen = views.joints[2], views.joints[2 + 4 * 3], views.labelled[2]
    zoom = views.lengths[2 + 4 * 3] / views.lengths[2]
    assert 0.9 < zoom < 1.1
    shift = view[seen] - zoom * plain[seen]
    np.testing.assert_allclose(shift, np.broadcast_to(shift[0], shift.shape), atol=1e-9)
    assert not np.allclose(view[seen], plain[seen])


def test_true_heatmaps_score_full_marks_and_empty_ones_few(views):
    points, weights = views.points(SIZE)
    answers = iter(render_targets(points, weights, (SIZE, SIZE)).split(7))

    def truth(images):
        heatmaps = next(answers)
        return torch.cat([heatmaps, torch.zeros(len(images) - len(heatmaps), *heatmaps.shape[1:])])

    inside = score(truth, views, 7).weighted14
    assert inside > 95  # joints outside the crop cannot be found
    assert score(lambda images: torch.zeros(len(images), 16, SIZE, SIZE), views, 7).weighted14 < 20


def test_every_batch_that_a_path_gets_is_full(views):
    sizes = []
    score(lambda images: sizes.append(len(images)) or torch.zeros(len(images), 16, 16, 16), views, 8)
    assert sizes == [8, 8, 8]
