"""Which joints a path finds: the truth finds all that lie in the crop, nothing finds few; views stay near."""

import numpy as np
import pytest
import torch

from bench.sweep.people import Found, find_in_crops, find_in_photographs, make_crops, scored_rows, vary, views_of
from fasthg.data.dataset import load_dataset
from fasthg.metrics.evaluate import EvalOptions, evaluate
from fasthg.network.variants import VARIANTS
from fasthg.pixels import geometry
from fasthg.pixels.heatmap import render_targets
from fasthg.pixels.image import read_crop

SIZE = 64
MEAN = VARIANTS["small"].mean


@pytest.fixture(scope="module")
def views(tiny_dataset):
    return views_of(load_dataset(tiny_dataset, "val"), 4, 20, seed=0)


def test_there_are_as_many_views_as_asked_for_the_plain_crops_first(tiny_dataset, views):
    dataset = load_dataset(tiny_dataset, "val")
    rows = scored_rows(dataset, 4)
    assert len(views) == 20
    np.testing.assert_array_equal(views.people.center[:4], dataset.people.center[rows])
    assert not np.allclose(views.people.center[4:8], views.people.center[:4])
    row = rows[2]
    crop, _matrix = read_crop(dataset.image_path(row), dataset.people.center[row], dataset.people.scale[row], SIZE)
    np.testing.assert_array_equal(make_crops(views, SIZE)[2], crop)


def test_views_of_a_person_stay_near_it(views):
    people = vary(views.people, np.arange(4), 50, seed=1)
    zoom = people.scale / np.tile(views.people.scale[:4], 50)
    assert 0.95 <= zoom.min() < 0.97
    assert 1.03 < zoom.max() <= 1.05


def test_true_heatmaps_find_what_lies_in_the_crop_and_empty_ones_little(views):
    matrices = geometry.crop_matrix(views.people.center, views.people.scale, SIZE)
    joints = np.nan_to_num(geometry.apply(matrices, views.people.joints), nan=-9.0)
    inside = ((joints >= 0) & (joints < SIZE)).all(-1)
    truth = render_targets(torch.from_numpy(joints).float(), torch.from_numpy(inside).float(), (SIZE, SIZE))
    answers = iter(torch.cat([truth, truth[:1]]).split(7))
    crops = make_crops(views, SIZE)
    found = find_in_crops(lambda images: next(answers), views, crops, 7, MEAN)
    assert (found.found == (inside & found.counted)).mean() > 0.99
    assert find_in_crops(lambda images: torch.zeros(len(images), 16, SIZE, SIZE), views, crops, 7, MEAN).pckh < 20


def test_pckh_is_that_of_the_evaluation(views, tiny_dataset):
    def runner(images):
        return torch.nn.functional.avg_pool2d(images, 4).repeat(1, 6, 1, 1)[:, :16]

    expected = evaluate(runner, views, None, EvalOptions(SIZE, 4, mean=MEAN)).at.means["weighted14"]
    assert find_in_photographs(runner, views, SIZE, 4, MEAN).pckh == pytest.approx(expected)


def test_found_joints_come_back_as_they_were_written(tmp_path):
    found = Found(np.array([[True, False]]), np.array([[True, True]]))
    found.save(tmp_path / "found.npz")
    again = Found.load(tmp_path / "found.npz")
    assert again.pckh == found.pckh == 50.0
