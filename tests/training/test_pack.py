"""Packed crops show what the photographs show, survive interruption, and never pass when they are damaged."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from scipy import ndimage

from fasthg.data.dataset import Dataset, load_dataset
from fasthg.data.reading import Reading
from fasthg.errors import FasthgError
from fasthg.network.variants import HourglassConfig
from training import pack as pack_module
from training.loading.augment import NO_AUGMENTATION, Augmentation, Draws, crop_matrices
from training.loading.journal import Journal
from training.loading.loader import LoaderOptions, ReferenceLoader, make_loader
from training.loading.packed import PackedSource, make_packed_loader
from training.options import TrainOptions
from training.pack import PackSettings, main, pack
from training.recipes import Recipe
from training.synthesize import synthesize
from training.trainer import Trainer

SMALL = PackSettings(density=64, quality=85)
STRONG = {"batch_size": 8, "augmentation": Augmentation(), "shuffle": True, "seed": 5, "epoch": 2}


@pytest.fixture(scope="module")
def packed(tiny_dataset, tmp_path_factory):
    return pack(tiny_dataset, tmp_path_factory.mktemp("packed") / "crops.h5", settings=SMALL, progress=False)


@pytest.fixture
def own_packed(packed, tmp_path):
    """A copy of the file that may be damaged."""
    return shutil.copy(packed, tmp_path / "crops.h5")


def difference(packed_loader, raw_loader):
    """Mean absolute difference of the images in steps of 1/255; everything else has to be equal."""
    sums = []
    for crop, raw in zip(packed_loader, raw_loader, strict=True):
        assert torch.equal(crop.rows, raw.rows)
        assert torch.equal(crop.joints, raw.joints)
        assert torch.equal(crop.weights, raw.weights)
        sums.append((crop.images - raw.images).abs().mean((1, 2, 3)))
    return 255 * torch.cat(sums).mean().item()


def test_packed_crops_of_real_photographs_look_like_the_photographs(mpii_dir, tmp_path):
    """Mean absolute difference of at most 3/255 under the same full augmentation."""
    everyone = load_dataset(mpii_dir, "all", check_files=False)
    there = [row for row, name in enumerate(everyone.people.images) if (everyone.image_dir / name).is_file()]
    people = everyone.people.select(np.repeat(there, 8))
    path = _pack_people(Dataset(people, everyone.image_dir), tmp_path)
    raw = ReferenceLoader(Dataset(people, everyone.image_dir), LoaderOptions(**STRONG))
    assert difference(make_packed_loader(path, "all", num_workers=2, **STRONG), raw) <= 3.0


def test_packed_crops_of_plain_pictures_look_like_the_pictures(marked_people, tmp_path):
    path = pack(marked_people, tmp_path / "crops.h5", progress=False)
    raw = make_loader(load_dataset(marked_people, "train"), **STRONG)
    assert difference(make_packed_loader(path, **STRONG), raw) <= 3.0


def test_packed_crops_of_rendered_photographs_look_like_the_photographs(tmp_path):
    """At the size of MPII's photographs; rendered people have more fine texture than real ones."""
    folder = synthesize(tmp_path / "people", 16, 1, seed=0, size=(1280, 720), progress=False, workers=1)
    path = pack(folder, tmp_path / "crops.h5", ["train"], progress=False)
    raw = make_loader(load_dataset(folder, "train"), **STRONG)
    assert difference(make_packed_loader(path, **STRONG), raw) <= 3.0


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_crop_is_the_bilinear_picture_with_black_around_it(channels_last):
    """Against float64, pixel by pixel: turned, mirrored, partly outside the picture, with gains that clip."""
    native = pytest.importorskip("fasthg.kernels.cpu._native")
    picture = np.random.default_rng(0).integers(0, 256, (40, 56, 4), dtype=np.uint8)
    angle, size = np.deg2rad(25), 48
    to_picture = np.array([[-np.cos(angle), 0.9 * np.sin(angle), 45.0], [np.sin(angle), np.cos(angle), -6.0]])
    gain, mean = np.float32([1.2, 0.8, 1.0]), np.float32([0.4, 0.5, 0.3])
    crop = np.empty((size, size, 3) if channels_last else (3, size, size), np.float32)
    native.cut_crop(picture, to_picture, gain, mean, channels_last, crop)

    y, x = np.mgrid[:size, :size] + 0.5
    places = np.einsum("ij,jyx->iyx", to_picture, np.stack([x, y, np.ones_like(x)])) - 0.5
    expected = [
        np.minimum(ndimage.map_coordinates(np.pad(plane, 80).astype(float), places[::-1] + 80, order=1) / 255 * g, 1)
        for plane, g in zip(picture.transpose(2, 0, 1), gain)
    ]
    found = crop.transpose(2, 0, 1) if channels_last else crop
    assert (np.stack(expected) == 0).any()
    assert (np.stack(expected) == 1).any()
    np.testing.assert_allclose(found + mean[:, None, None], expected, atol=1e-4)


def test_a_crop_of_the_wrong_shape_is_refused():
    native = pytest.importorskip("fasthg.kernels.cpu._native")
    picture, matrix, three = np.zeros((8, 8, 4), np.uint8), np.eye(2, 3), np.ones(3, np.float32)
    for wrong in (np.empty((3, 8, 9), np.float32), np.empty((8, 8, 3), np.float32)):
        with pytest.raises(ValueError, match="crop must be"):
            native.cut_crop(picture, matrix, three, three, False, wrong)
    with pytest.raises(ValueError, match="picture must be"):
        native.cut_crop(picture[..., :3].copy(), matrix, three, three, False, np.empty((3, 8, 8), np.float32))


def _pack_people(dataset, tmp_path):
    """Pack people who are no whole dataset: their annotations go through HRNet's format."""
    (tmp_path / "images").symlink_to(dataset.image_dir)
    people = dataset.people
    records = [
        {
            "image": name,
            "center": (people.center[row] + 0.5).tolist(),
            "scale": people.scale[row],
            "joints": np.where(people.labelled[row, :, None], people.joints[row] + 0.5, -1).tolist(),
            "joints_vis": people.labelled[row].astype(int).tolist(),
        }
        for row, name in enumerate(people.images)
    ]
    (tmp_path / "annotations.json").write_text(json.dumps(records))
    return pack(tmp_path, tmp_path / "crops.h5", ["all"], progress=False)


def test_the_table_of_people_comes_back_whole(packed, tiny_dataset):
    for split in ("train", "val"):
        people, expected = PackedSource(packed, split).people, load_dataset(tiny_dataset, split).people
        assert people.images == expected.images
        for name in ("center", "scale", "joints", "labelled", "visible", "head_size"):
            np.testing.assert_array_equal(getattr(people, name), getattr(expected, name))


def test_the_small_crop_is_read_where_it_holds_everything(packed):
    """Unaugmented crops fit the smallest stored crop; rotation by 30 degrees at scale 1.25 needs the largest one."""
    source = PackedSource(packed)
    # 1.2, 1.05 and 0.95 times 64 pixels a box side; 1.02, 1.25 and 1.7075 box sides; multiples of 8 pixels
    assert source.sides.tolist() == [80, 88, 104]
    rows = np.arange(4)
    matrices = _crops(source, rows, scale=1.0, rotation=0.0)
    assert source.choose_views(rows, matrices, 64)[0].tolist() == [0] * 4
    matrices = _crops(source, rows, scale=1.25, rotation=30.0)
    views, from_stored = source.choose_views(rows, matrices, 64)
    assert views.tolist() == [2] * 4
    middle = from_stored[0] @ (52.0, 52.0, 1.0)
    np.testing.assert_allclose(middle, (32, 32), atol=1e-9)


def _crops(source, rows, scale, rotation):
    draws = Draws(np.full(4, scale), np.full(4, rotation), np.zeros(4, bool), np.ones((4, 3)))
    return crop_matrices(source.people, rows, draws, 64)


# A process of its own: one that other tests have given threads may leave locks that nobody opens in its fork.
FORKED = """
import os, sys
from training.loading.packed import PackedSource

source = PackedSource(sys.argv[1])
expected, children = [source.read_encoded(row, 0) for row in range(24)], []
for _ in range(2):
    if child := os.fork():
        children.append(child)
    else:
        os._exit([source.read_encoded(row, 0) for row in range(24)] != expected)
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
"""


def test_threads_and_processes_read_side_by_side(packed):
    source = PackedSource(packed)
    expected = [source.read_encoded(row, 0) for row in range(24)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda row: source.read_encoded(row, 0), list(range(24)) * 8)) == expected * 8
    done = subprocess.run([sys.executable, "-c", FORKED, packed], timeout=120, check=False)
    assert done.returncode == 0


def test_threads_change_no_value(packed):
    alone, shared = (list(make_packed_loader(packed, num_workers=n, size=64, **STRONG)) for n in (0, 3))
    for one, other in zip(alone, shared, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_an_interrupted_run_goes_on_and_ends_with_the_same_file(packed, tiny_dataset, tmp_path, monkeypatch):
    """The first run breaks at a missing photograph and then loses half a piece, as in a power cut; the second decodes
    only what is missing."""
    shutil.copytree(tiny_dataset, tmp_path / "own")
    missing = load_dataset(tmp_path / "own", "train").image_path(19)
    content = missing.read_bytes()
    missing.write_bytes(content[:2000])
    out = tmp_path / "crops.h5"
    with pytest.raises(FasthgError, match=f"{missing.name}.*cut short"):
        pack(tmp_path / "own", out, settings=SMALL, threads=1, progress=False)
    assert not out.exists()
    journal = out.with_name("crops.h5.journal")
    os.truncate(journal, journal.stat().st_size - 700)
    missing.write_bytes(content)

    decoded = []
    read = pack_module.read_image
    monkeypatch.setattr(pack_module, "read_image", lambda path: decoded.append(path) or read(path))
    pack(tmp_path / "own", out, settings=SMALL, threads=1, progress=False)
    assert out.read_bytes() == packed.read_bytes()
    assert 1 < len(decoded) < 20
    assert not journal.exists()


def test_another_runs_journal_is_not_gone_on_with(tiny_dataset, tmp_path):
    with Journal(tmp_path / "a", {"job": 1}) as journal:
        journal.append(0, b"piece")
        with pytest.raises(FasthgError, match="in use by another run"):
            Journal(tmp_path / "a", {"job": 1})
        with pytest.raises(FasthgError, match="other data or options"):
            _reopen(tmp_path / "a", {"job": 2}, journal)


def _reopen(path, identity, journal):
    shutil.copy(journal.path, path.with_name("b"))
    Journal(path.with_name("b"), identity)


def test_a_piece_whose_bytes_changed_is_done_again(tmp_path):
    path = tmp_path / "journal"
    journal = Journal(path, {})
    for key in range(3):
        journal.append(key, bytes([key]) * 100)
    content = bytearray(path.read_bytes())
    content[-150] ^= 1  # in the middle one of the three
    (tmp_path / "copy").write_bytes(content)
    with Journal(tmp_path / "copy", {}) as damaged:
        assert damaged.pieces.keys() == {0}
        assert damaged.read(0) == bytes(100)


def test_a_damaged_crop_is_named_with_its_row_and_may_be_skipped(own_packed):
    with h5py.File(own_packed, "r+") as file:
        offset = file["train"]["offset"][6, 0]
        file["jpeg"][offset + 300] ^= 0x10
    with pytest.raises(FasthgError, match=r"row 6: .*crops\.h5: .*\.jpg is damaged"):
        list(make_packed_loader(own_packed, size=64, batch_size=8))
    loader = make_packed_loader(own_packed, size=64, batch_size=8, skip_bad=1)
    assert torch.cat([batch.rows for batch in loader]).tolist() == [*range(6), 7, *range(7, 24)]


def test_a_file_that_holds_something_else_is_named(own_packed):
    """Other labels, then an earlier version, then another kind of file."""
    for name, value, named in (
        (None, None, "do not match their digest"),
        ("version", 1, r"crops\.h5: version 1, read is 2; pack again"),
        ("format", "heatmaps", "another kind"),
    ):
        with h5py.File(own_packed, "r+") as file:
            if name:
                file.attrs[name] = value
            else:
                file["train"]["joints"][3, 5, 0] += 1.0
        with pytest.raises(FasthgError, match=named):
            make_packed_loader(own_packed)


@pytest.mark.parametrize("length", [None, 0, 90, -1000], ids=["missing", "empty", "a beginning", "cut short"])
def test_a_file_that_is_missing_or_cut_short_is_named(own_packed, length):
    if length is None:
        own_packed.unlink()
    else:
        os.truncate(own_packed, length % own_packed.stat().st_size)
    named = "no such file" if length is None else "damaged or cut short"
    with pytest.raises(FasthgError, match=f"crops.h5: {named}"):
        make_packed_loader(own_packed)


def test_a_split_that_was_not_packed_is_named(packed):
    with pytest.raises(FasthgError, match="no split 'all', only train, val"):
        make_packed_loader(packed, "all")


def test_an_augmentation_that_needs_more_than_is_stored_is_refused(packed):
    make_packed_loader(packed, augmentation=replace(NO_AUGMENTATION, scale=0.7))
    with pytest.raises(FasthgError, match=r"1\.708 box sides are stored.*1\.821"):
        make_packed_loader(packed, augmentation=replace(Augmentation(), scale=1 / 3))


def test_people_may_be_packed_without_their_bad_photograph(tiny_dataset, tmp_path, capsys):
    shutil.copytree(tiny_dataset, tmp_path / "own")
    bad = load_dataset(tmp_path / "own", "train").image_path(2)
    bad.write_bytes(b"no image")
    out = str(tmp_path / "crops.h5")
    arguments = ["--data", str(tmp_path / "own"), "--out", out, "--split", "train", "--density", "32"]
    assert main(arguments) == 2
    assert f"{bad.name}: not an image" in capsys.readouterr().err
    assert main([*arguments, "--skip-bad", "1"]) == 0
    assert "1 people packed without a crop" in capsys.readouterr().err
    with pytest.raises(FasthgError, match=f"row 2: .*{bad.name} could not be read when it was packed"):
        list(make_packed_loader(out, size=64))
    assert [len(batch.rows) for batch in make_packed_loader(out, size=64, skip_bad=1)] == [20, 4]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--split", "test"], "split is 'test'"),
        (["--quality", "0"], "quality is 0"),
        (["--density", "5"], "density is 5"),
        (["--reach", "0.5"], "reach is 0.5"),
    ],
)
def test_impossible_options_end_with_one_line(tiny_dataset, tmp_path, capsys, arguments, named):
    assert main(["--data", str(tiny_dataset), "--out", str(tmp_path / "crops.h5"), *arguments]) == 2
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_too_small_is_said_before_hdf5_meets_its_end(tiny_dataset, tmp_path, capsys, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=1 << 17))
    monkeypatch.setattr(h5py, "File", lambda *arguments: pytest.fail("it was begun"))
    assert main(["--data", str(tiny_dataset), "--out", str(tmp_path / "crops.h5"), "--threads", "1"]) == 2
    assert "crops.h5: the disk is full" in capsys.readouterr().err
    assert not (tmp_path / "crops.h5").exists()


def test_a_missing_jpeg_library_is_named(packed, tiny_dataset, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    for use in (lambda: PackedSource(packed), lambda: pack(tiny_dataset, tmp_path / "crops.h5")):
        with pytest.raises(ModuleNotFoundError, match="simplejpeg"):
            use()


def test_people_who_share_a_photograph_get_their_own_crops(marked_people, tmp_path):
    """Two people on one photograph, in boxes that look at different discs."""
    first, second = json.loads((marked_people / "annotations.json").read_text())[:2]
    second |= {"img_paths": first["img_paths"], "objpos": first["joint_self"][5][:2], "scale_provided": 0.1}
    (tmp_path / "images").symlink_to(marked_people / "images")
    (tmp_path / "annotations.json").write_text(json.dumps([first, second]))
    path = pack(tmp_path, tmp_path / "crops.h5", ["train"], progress=False)
    raw = make_loader(load_dataset(tmp_path, "train"), size=64)
    assert difference(make_packed_loader(path, size=64), raw) <= 3.0


def test_a_project_is_packed_as_training_reads_it(tiny_dataset, tmp_path):
    """Two kinds of subjects, images held out by a share, and pairs that the names do not tell."""
    names = sorted(path.name for path in (tiny_dataset / "images").iterdir())
    rows, project = [], tmp_path / "project"
    for number, _name in enumerate(names):
        for kind in (1, 2):
            points = [100 * kind, 90, 2, 150 * kind, 140, 2]
            rows.append({"id": len(rows), "image_id": number, "category_id": kind, "keypoints": points})
            rows[-1] |= {"num_keypoints": 2, "bbox": [90 * kind, 80, 100, 100], "area": 10_000, "iscrowd": 0}
    document = {
        "images": [{"id": n, "file_name": name, "width": 640, "height": 480} for n, name in enumerate(names)],
        "annotations": rows,
        "categories": [{"id": n, "name": name, "keypoints": ["east", "west"]} for n, name in ((1, "cat"), (2, "dog"))],
    }
    project.mkdir()
    (project / "images").symlink_to(tiny_dataset / "images")
    (project / "annotations.json").write_text(json.dumps(document))
    chosen = {"category": "dog", "holdout": "0.25@7", "pairs": "east:west"}
    asked = [part for name, value in chosen.items() for part in (f"--{name}", value)]
    crops = tmp_path / "crops.h5"
    assert main(["--data", str(project), "--out", str(crops), "--density", "64", *asked]) == 0
    recipe = Recipe(variant=HourglassConfig(num_stacks=1, num_feats=8, depths=1), size=64, batch_size=2)
    options = TrainOptions(project, recipe, pack=crops, device="cpu", num_workers=0, progress=False, **chosen)
    assert len(Trainer(options).loader.people) == len(load_dataset(project, "train", reading=Reading(**chosen)))
    with pytest.raises(FasthgError, match=r"pack .* again, with the same --category, --holdout and --pairs"):
        Trainer(replace(options, holdout="every6"))


def test_the_list_of_images_held_out_is_not_replaced(openfield, tmp_path, capsys):
    listed = tmp_path / "held.txt"
    listed.write_text("img0000.png")
    arguments = ["--data", str(openfield), "--out", str(listed), "--overwrite", "--holdout", str(listed)]
    assert main(arguments) == 2
    assert "this command reads it" in capsys.readouterr().err
    assert listed.read_text() == "img0000.png"
