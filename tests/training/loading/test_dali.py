"""DALI delivers what the reference delivers, in every epoch, to the last batch, and says what is missing."""

from dataclasses import replace

import pytest
import torch

from fasthg.data.dataset import load_dataset
from fasthg.errors import BackendUnavailable, FasthgError
from training.loading.augment import NO_AUGMENTATION, Augmentation
from training.loading.dali import make_dali_loader
from training.loading.loader import LoaderOptions, ReferenceLoader, make_loader
from training.loading.packed import make_packed_loader
from training.pack import pack

pytest.importorskip("nvidia.dali")

OPTIONS = {"size": 128, "batch_size": 5, "shuffle": True, "seed": 3}
PIXEL = 1 / 255


@pytest.fixture(scope="module")
def packed(tiny_dataset, tmp_path_factory):
    return pack(tiny_dataset, tmp_path_factory.mktemp("packed") / "crops.h5", progress=False)


@pytest.fixture
def tiny(tiny_dataset):
    return load_dataset(tiny_dataset, "train")


def compare(batches, references):
    """Mean absolute difference of the pixels; the joints agree to 0.05 pixels of the crop and the rest is equal."""
    differences = []
    for batch, reference in zip(batches, references, strict=True):
        assert torch.equal(batch.rows, reference.rows)
        assert torch.equal(batch.weights, reference.weights)
        torch.testing.assert_close(batch.joints, reference.joints, rtol=0, atol=0.05 / 4)
        assert batch.images.shape == reference.images.shape
        differences.append((batch.images.cpu().float() - reference.images).abs().mean())
    return torch.stack(differences).mean().item()


@pytest.mark.parametrize("augmentation", [NO_AUGMENTATION, Augmentation()], ids=["plain", "augmented"])
def test_photographs_come_as_the_reference_reads_them(tiny, augmentation):
    dali, reference = (make(tiny, augmentation=augmentation, **OPTIONS) for make in (make_dali_loader, make_loader))
    for epoch in (0, 1):
        dali.set_epoch(epoch)
        reference.set_epoch(epoch)
        assert compare(dali, reference) <= 0.5 * PIXEL


def test_real_photographs_come_as_the_reference_reads_them(mpii_dir):
    everyone = load_dataset(mpii_dir, "all", check_files=False)
    there = [row for row, name in enumerate(everyone.people.images) if (everyone.image_dir / name).is_file()]
    dataset = replace(everyone, people=everyone.people.select(there))
    reference = ReferenceLoader(dataset, LoaderOptions(batch_size=2))
    assert compare(make_dali_loader(dataset, batch_size=2), reference) <= 1.5 * PIXEL


def test_packed_crops_come_as_the_threads_read_them(packed):
    options = {**OPTIONS, "augmentation": Augmentation(), "rank": 1, "world_size": 2}
    dali = make_dali_loader(packed, num_workers=2, **options)
    threads = make_packed_loader(packed, **options)
    assert [len(batch.rows) for batch in threads] == [5, 5, 2]
    assert compare(dali, threads) <= 0.5 * PIXEL


def test_half_precision_channels_last_is_what_tensor_cores_take(packed):
    options = {**OPTIONS, "augmentation": Augmentation()}
    batches = list(make_dali_loader(packed, "val", dtype=torch.float16, channels_last=True, **options))
    assert [len(batch.rows) for batch in batches] == [5, 3]
    for batch in batches:
        assert batch.images.dtype == torch.float16
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert compare(batches, make_packed_loader(packed, "val", **options)) <= 0.5 * PIXEL


def test_an_epoch_that_was_left_early_leaves_nothing_behind(packed):
    loader = make_dali_loader(packed, **OPTIONS)
    whole = torch.cat([batch.rows for batch in loader])
    next(iter(loader))
    assert torch.equal(torch.cat([batch.rows for batch in loader]), whole)


def test_a_missing_gpu_is_named(packed):
    with pytest.raises(BackendUnavailable, match="no GPU 99 here"):
        make_dali_loader(packed, device_id=99)


def test_another_number_format_is_refused(packed):
    with pytest.raises(FasthgError, match="bfloat16"):
        make_dali_loader(packed, dtype=torch.bfloat16)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", ["raw", "packed"])
def test_the_gpu_sees_what_the_reference_reads(tiny, packed, kind):
    data = tiny if kind == "raw" else packed
    options = {**OPTIONS, "augmentation": Augmentation()}
    reference = make_loader(tiny, **options) if kind == "raw" else make_packed_loader(packed, **options)
    loader = make_dali_loader(data, device_id=0, dtype=torch.float16, channels_last=True, **options)
    batch = next(iter(loader))
    assert batch.images.is_cuda
    assert compare(loader, reference) <= 1.5 * PIXEL
