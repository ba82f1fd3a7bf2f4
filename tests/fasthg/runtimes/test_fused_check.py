"""`fused` on a GPU is checked against the network at the first batch of a shape; on a CPU it lets go of the network."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import Tensor

from fasthg.errors import ParityError
from fasthg.network.model import HourglassNet
from fasthg.network.variants import HourglassConfig
from fasthg.runtimes.fused import check, checked
from fasthg.runtimes.paths import prepare

CONFIG = HourglassConfig(num_stacks=1, num_feats=16, depths=1, stem_feats=(16, 16))


@pytest.fixture(scope="module")
def model() -> HourglassNet:
    torch.manual_seed(0)
    return HourglassNet(CONFIG).eval()


def test_the_networks_own_answer_passes(model: HourglassNet) -> None:
    check(lambda images: model.final(images.bfloat16().float()), model, torch.zeros(2, 3, 32, 32), "bf16")


@pytest.mark.parametrize("wrong", [0.5, float("nan")], ids=["a quarter", "not finite"])
def test_an_answer_that_no_rounding_explains_is_refused(model: HourglassNet, wrong: float) -> None:
    def final(images: Tensor) -> Tensor:
        heatmaps = model.final(images)
        heatmaps[:, :4] *= wrong
        return heatmaps

    with pytest.raises(ParityError, match=r"fused:fp16 answers 2x3x32x32 on .* wrongly"):
        check(final, model, torch.zeros(2, 3, 32, 32), "fp16")


def test_each_shape_is_checked_once(model: HourglassNet) -> None:
    answered: list[tuple[int, ...]] = []

    def final(images: Tensor) -> Tensor:
        answered.append(tuple(images.shape))
        return model.final(images)

    run = checked(final, model, "fp16")
    for batch in (1, 1, 2, 1):
        run(torch.zeros(batch, 3, 32, 32))
    assert [shape[0] for shape in answered] == [1, 1, 1, 2, 2, 1]


def test_on_a_cpu_the_network_is_not_kept_beside_its_packed_weights() -> None:
    images, network = torch.zeros(1, 3, 32, 32), HourglassNet(CONFIG).eval()
    prepared, kept = prepare(network, "fused:fp32", images), weakref.ref(network)
    del network
    gc.collect()
    assert prepared(images).isfinite().all()
    assert kept() is None
