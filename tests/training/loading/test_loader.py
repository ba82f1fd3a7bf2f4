"""Every loader yields the same people, the same crops and the same joints, and says which photograph is bad."""

import json
import logging
import os
import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from fasthg.data.dataset import load_dataset
from fasthg.errors import FasthgError
from fasthg.pixels import geometry
from fasthg.pixels.image import normalise, read_crop, read_image
from fasthg.pixels.skeleton import MPII
from training.loading.augment import NO_AUGMENTATION, Augmentation, epoch_draws
from training.loading.dali import make_dali_loader
from training.loading.loader import JpegSource, LoaderOptions, ReferenceLoader, ThreadLoader, make_loader
from training.loading.packed import make_packed_loader
from training.pack import pack

SIZE = 128
BACKGROUND = 20.0  # of the photographs of `marked_people`


def threads(dataset, **options):
    return ThreadLoader(JpegSource(dataset), LoaderOptions(**options))


def reference(dataset, **options):
    return make_loader(dataset, **options)


def dali(dataset, **options):
    pytest.importorskip("nvidia.dali")
    return make_dali_loader(dataset, **options)


RAW_LOADERS = [reference, threads, dali]


@pytest.fixture(scope="module")
def packed_marks(marked_people, tmp_path_factory):
    return pack(marked_people, tmp_path_factory.mktemp("packed") / "crops.h5", progress=False)


@pytest.fixture
def tiny(tiny_dataset):
    return load_dataset(tiny_dataset, "train")


@pytest.fixture
def own_tiny(tiny_dataset, tmp_path):
    """A copy of the dataset whose photographs may be spoilt."""
    shutil.copytree(tiny_dataset, tmp_path / "own")
    return load_dataset(tmp_path / "own", "train")


def spoil(dataset, row):
    """Cut the photograph of a row short, as an interrupted copy does."""
    path = dataset.image_path(row)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def assert_same(batches, others, atol=0.0):
    for one, other in zip(batches, others, strict=True):
        assert torch.equal(one.rows, other.rows)
        assert torch.equal(one.joints, other.joints)
        assert torch.equal(one.weights, other.weights)
        torch.testing.assert_close(one.images, other.images, rtol=0, atol=atol)


def test_without_augmentation_a_network_is_trained_on_what_it_will_predict_from(tiny):
    batch = next(iter(make_loader(tiny, size=SIZE, batch_size=3)))
    people = tiny.people
    for row in range(3):
        crop, matrix = read_crop(tiny.image_path(row), people.center[row], people.scale[row], SIZE)
        torch.testing.assert_close(batch.images[row], normalise(crop[None])[0], rtol=0, atol=1e-6)
        expected = geometry.apply(matrix, people.joints[row]) / 4
        labelled = people.labelled[row]
        np.testing.assert_allclose(batch.joints[row].numpy()[labelled], expected[labelled], rtol=1e-5)
    assert (batch.images.dtype, batch.joints.dtype, batch.weights.dtype) == (torch.float32,) * 3
    assert (batch.images.shape, batch.joints.shape, batch.weights.shape) == ((3, 3, SIZE, SIZE), (3, 16, 2), (3, 16))
    assert batch.rows.tolist() == [0, 1, 2]


def test_gain_is_applied_in_float_and_clipped_before_the_mean(tiny):
    """Against float64 on the crop's bytes."""
    augmentation = replace(NO_AUGMENTATION, gain=0.2)
    batch = next(iter(make_loader(tiny, size=SIZE, batch_size=4, augmentation=augmentation, seed=9)))
    gain = epoch_draws(augmentation, len(tiny), seed=9, epoch=0).gain
    for row in range(4):
        crop, _ = read_crop(tiny.image_path(row), tiny.people.center[row], tiny.people.scale[row], SIZE)
        expected = np.clip(crop.astype(np.float64) / 255 * gain[row], 0, 1) - np.array(geometry.MEAN)
        np.testing.assert_allclose(batch.images[row].permute(1, 2, 0).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("make", [threads, reference])
def test_workers_and_memory_format_change_no_value(tiny, make):
    options = {"size": SIZE, "batch_size": 5, "augmentation": Augmentation(), "shuffle": True, "seed": 2}
    expected = list(make_loader(tiny, **options))
    assert [len(batch.rows) for batch in expected] == [5, 5, 5, 5, 4]
    found = list(make(tiny, num_workers=2, channels_last=True, **options))
    assert found[0].images.is_contiguous(memory_format=torch.channels_last)
    assert_same(expected, found)


@pytest.mark.parametrize("make", RAW_LOADERS)
def test_an_epoch_resumes_in_the_middle_with_the_same_crops(tiny, make):
    loader = make(tiny, size=SIZE, batch_size=5, augmentation=Augmentation(), shuffle=True, num_workers=1)
    loader.set_epoch(3)
    whole = list(loader)
    assert (len(whole), len(loader), loader.num_people) == (5, 5, 24)
    loader.set_epoch(3, start_batch=2)
    assert_same(whole[2:], list(loader))
    loader.set_epoch(4)
    other = next(iter(loader))  # and leave the epoch there
    assert not torch.equal(other.rows, whole[0].rows)
    again = make(tiny, size=SIZE, batch_size=5, augmentation=Augmentation(), shuffle=True, epoch=3, start_batch=4)
    assert_same(whole[4:], list(again))
    loader.set_epoch(3)
    assert_same(whole, list(loader))


@pytest.mark.parametrize("make", RAW_LOADERS)
def test_a_batch_that_is_kept_stays_what_it_was_while_memory_of_others_is_used_again(tiny, make):
    loader = make(tiny, size=64, batch_size=3, num_workers=2, augmentation=Augmentation())
    batches = iter(loader)
    kept, crop = next(batches).images, next(batches).images[1]
    before = kept.clone(), crop.clone()
    for _ in range(3):
        for _ in batches:
            pass
        batches = iter(loader)
    assert torch.equal(kept, before[0])
    assert torch.equal(crop, before[1])


def assert_marks_lie_under_their_joints(batch, colours, flipped):
    """The disc of each joint's colour is centred on the joint; on its mirror partner where the person is mirrored."""
    pixels = (batch.images.permute(0, 2, 3, 1).numpy() + np.float32(geometry.MEAN)) * 255
    y, x = np.mgrid[: pixels.shape[1], : pixels.shape[2]] + 0.5
    checked = 0
    for row, joints, weights, image in zip(batch.rows.tolist(), batch.joints.numpy(), batch.weights.numpy(), pixels):
        for joint, (place, weight) in enumerate(zip(joints * 4, weights)):
            if not weight or (np.abs(place - image.shape[0] / 2) > image.shape[0] / 2 - 16).any():
                continue  # a disc that the crop's border cuts has its centroid elsewhere
            colour = colours[MPII.flip_order[joint] if flipped[row] else joint]
            distance = np.hypot(x - place[0], y - place[1])
            np.testing.assert_allclose(image[distance < 3].mean(axis=0), colour, atol=12)
            cover = (image - BACKGROUND) @ (colour - BACKGROUND) * (distance < 13)
            centroid = (x * cover).sum() / cover.sum(), (y * cover).sum() / cover.sum()
            np.testing.assert_allclose(centroid, place, atol=0.1)
            checked += 1
    return checked


@pytest.mark.parametrize("name", ["reference", "threads", "packed", "dali", "dali-packed"])
def test_augmented_joints_lie_on_the_same_content(marked_people, packed_marks, joint_colours, name):
    dataset = load_dataset(marked_people, "train")
    augmentation = replace(Augmentation(), gain=0.0)
    options = {"batch_size": 10, "augmentation": augmentation, "seed": 11, "epoch": 1}
    if name.endswith("packed"):
        make = dali if name == "dali-packed" else make_packed_loader
        (batch,) = make(packed_marks, **options)
    else:
        (batch,) = {"reference": reference, "threads": threads, "dali": dali}[name](dataset, **options)
    draws = epoch_draws(augmentation, len(dataset), seed=11, epoch=1)
    assert 2 <= draws.flip.sum() <= 8
    assert assert_marks_lie_under_their_joints(batch, joint_colours, draws.flip) > 100


@pytest.mark.parametrize(("free", "processes"), [(64 * 2**20, False), (2**30, True)])
def test_a_containers_shared_memory_is_not_overrun(tiny, monkeypatch, capsys, free, processes):
    """The trainer's own crops: 15 MiB a batch, six of them with two workers."""
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=free))
    monkeypatch.setattr(os.path, "isdir", lambda _path: True)
    loader = make_loader(tiny, batch_size=20, num_workers=2)
    assert isinstance(loader, ReferenceLoader) == processes
    said = capsys.readouterr().err
    assert said.count("\n") == (not processes)
    assert processes or "has 64 MiB free and 2 loader processes need 90: threads load instead" in said
    assert isinstance(make_loader(tiny, batch_size=20), ReferenceLoader)  # without workers nothing is shared


@pytest.mark.parametrize("make", RAW_LOADERS)
def test_a_bad_photograph_is_named_with_its_row(own_tiny, make):
    path = spoil(own_tiny, 13)
    with pytest.raises(FasthgError, match=f"row 13: .*{path.name}.*cut short"):
        list(make(own_tiny, size=64, batch_size=5, num_workers=1))


@pytest.mark.parametrize("make", RAW_LOADERS)
def test_skip_bad_replaces_counts_and_reports(own_tiny, make, caplog):
    for row in (7, 8, 20):
        spoil(own_tiny, row)
    expected = list(make_loader(own_tiny, size=64, batch_size=6, skip_bad=3))
    assert torch.cat([batch.rows for batch in expected]).tolist() == [*range(7), 9, 9, *range(9, 20), 21, 21, 22, 23]
    loader = make(own_tiny, size=64, batch_size=6, num_workers=1, skip_bad=3)
    with caplog.at_level(logging.WARNING):
        assert_same(expected, list(loader), atol=0.04)
    assert sorted(loader.bad) == [7, 8, 20]
    assert all(f"row {row} replaced" in caplog.text for row in loader.bad)
    list(loader)  # the same people again are no more bad people
    with pytest.raises(FasthgError, match=r"3 people cannot be read and 2 may be replaced"):
        list(make(own_tiny, size=64, batch_size=6, num_workers=1, skip_bad=2))


def test_a_jpeg_with_garbage_inside_stops_dali_with_its_name(own_tiny):
    path = own_tiny.image_path(4)
    path.write_bytes(b"\xff\xd8\xff\xe0" + bytes(500) + b"\xff\xda\xff\xd9")
    loader = dali(own_tiny, size=64, batch_size=6)
    with pytest.raises(FasthgError, match=f"row 4: .*{path.name}"):
        list(loader)
    loader = dali(own_tiny, size=64, batch_size=6, skip_bad=1)
    assert torch.cat([batch.rows for batch in loader]).tolist() == [0, 1, 2, 3, 5, *range(5, 24)]


def test_a_dataset_without_any_readable_photograph_stops_though_all_may_be_skipped(own_tiny):
    for row in range(len(own_tiny)):
        spoil(own_tiny, row)
    with pytest.raises(FasthgError, match="cannot be read"):
        list(make_loader(own_tiny, size=64, batch_size=6, skip_bad=1000))


def test_a_box_outside_the_photograph_is_named_before_the_first_epoch(tiny):
    center = tiny.people.center.copy()
    center[17] = (5000.0, 40.0)
    lost = replace(tiny, people=replace(tiny.people, center=center))
    for make in (reference, dali):
        with pytest.raises(FasthgError, match=f"row 17: .*{tiny.people.images[17]}.* pixels"):
            make(lost)


def test_a_box_is_looked_for_in_the_upright_photograph(tiny_dataset, tmp_path):
    """A photograph that EXIF turns by a quarter is 48 wide and 480 high: a person at (20, 400) is on it."""
    image = cv2.imencode(".jpg", np.zeros((48, 480, 3), np.uint8))[1].tobytes()
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    turned = image[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + image[2:]
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(turned)
    person = json.loads((tiny_dataset / "annotations.json").read_text())[0]
    person |= {"img_paths": "a.jpg", "objpos": [20.0, 400.0], "scale_provided": 0.2, "isValidation": 0.0}
    (tmp_path / "annotations.json").write_text(json.dumps([person]))
    assert read_image(tmp_path / "images" / "a.jpg").shape == (480, 48, 3)
    assert len(make_loader(load_dataset(tmp_path, "train"))) == 1


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"size": 130}, "crop size is 130"), ({"skip_bad": -1}, "skip_bad is -1"), ({"batch_size": 0}, "batch size is 0")],
)
def test_impossible_options_are_named(tiny, wrong, named):
    with pytest.raises(FasthgError, match=named):
        make_loader(tiny, **wrong)


TWO_RANKS = """
import json, sys
from dataclasses import replace
from pathlib import Path
from torch import distributed
from fasthg.data.dataset import load_dataset
from training.loading.augment import Augmentation
from training.loading.loader import make_loader
from training.loading.packed import make_packed_loader

data, packed, out = map(Path, sys.argv[1:])
distributed.init_process_group("gloo")
rank, world_size = distributed.get_rank(), distributed.get_world_size()
dataset = load_dataset(data, "train")
dataset = replace(dataset, people=dataset.people.select(range(9)))
options = dict(size=64, batch_size=2, augmentation=Augmentation(), shuffle=True, rank=rank, world_size=world_size)
for name, loader in (
    ("reference", make_loader(dataset, num_workers=1, **options)),
    ("packed", make_packed_loader(packed, num_workers=1, **options)),
):
    loader.set_epoch(1)
    mine = [batch.rows.tolist() for batch in loader]
    both = [None] * world_size
    distributed.all_gather_object(both, mine)
    if rank == 0:
        (out / name).write_text(json.dumps(both))
distributed.destroy_process_group()
"""


def test_two_ranks_over_gloo_see_every_person_exactly_once(marked_people, packed_marks, tmp_path):
    """Nine people (an odd number) as photographs, ten packed; two processes, each told its rank by torchrun."""
    script = tmp_path / "ranks.py"
    script.write_text(textwrap.dedent(TWO_RANKS))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    command += [str(marked_people), str(packed_marks), str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr
    for name, num_people in (("reference", 9), ("packed", 10)):
        first, second = json.loads((tmp_path / name).read_text())
        assert sorted(row for batch in first + second for row in batch) == list(range(num_people))
        assert abs(sum(map(len, first)) - sum(map(len, second))) <= 1
