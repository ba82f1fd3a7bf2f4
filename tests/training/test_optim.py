"""Optimisers by name, and learning rates and averages against values worked out by hand."""

import math

import pytest
import torch
from torch import nn

from fasthg.errors import FasthgError
from training.optim import Schedule, WeightAverage, make_optimizer, set_learning_rate


@pytest.mark.parametrize(
    ("name", "kind", "momentum"),
    [
        ("rmsprop", torch.optim.RMSprop, {"momentum": 0.8}),
        ("adam", torch.optim.Adam, {"betas": (0.8, 0.999)}),
        ("adamw", torch.optim.AdamW, {"betas": (0.8, 0.999)}),
        ("sgd", torch.optim.SGD, {"momentum": 0.8}),
    ],
)
def test_an_optimizer_is_pytorchs_own_with_every_number_in_its_place(name, kind, momentum):
    optimizer = make_optimizer(name, [nn.Parameter(torch.zeros(1))], lr=0.01, momentum=0.8, weight_decay=0.1)
    assert type(optimizer) is kind
    assert {"lr": 0.01, "weight_decay": 0.1, **momentum}.items() <= optimizer.defaults.items()


def test_unknown_optimizer_lists_the_known_ones():
    with pytest.raises(FasthgError, match="unknown optimizer 'lion'; choose one of rmsprop, adam, adamw"):
        make_optimizer("lion", [nn.Parameter(torch.zeros(1))], 0.1)


def test_step_schedule_decays_at_each_milestone():
    schedule = Schedule("step", lr=1.0, total_steps=100, milestones=(0.6, 0.9), gamma=0.1)
    assert [schedule(step) for step in (0, 59, 60, 89, 90, 99)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_cosine_schedule_warms_up_and_ends_at_zero():
    schedule = Schedule("cosine", lr=2.0, total_steps=110, warmup=10)
    assert [schedule(step) for step in (0, 4, 9)] == pytest.approx([0.2, 1.0, 2.0])
    assert schedule(35) == pytest.approx(1.0 + math.cos(math.pi / 4))
    assert schedule(60) == pytest.approx(1.0)
    assert schedule(110) == pytest.approx(0.0)


def test_learning_rate_reaches_every_group():
    groups = [{"params": [nn.Parameter(torch.zeros(1))]}, {"params": [nn.Parameter(torch.zeros(1))]}]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    set_learning_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]


def test_average_follows_weights_and_batch_statistics():
    model = nn.BatchNorm1d(1)
    average = WeightAverage(model, decay=0.2)
    expected = 1.0
    for update, value in enumerate((2.0, 3.0, 5.0)):
        with torch.no_grad():
            model.weight.fill_(value)
            model.running_var.fill_(value)
            model.num_batches_tracked.fill_(update)
        average.update(model)
        expected += (1 - min(0.2, (1 + update) / (10 + update))) * (value - expected)
    assert average.model.weight.item() == pytest.approx(expected)
    assert average.model.running_var.item() == pytest.approx(expected)
    assert average.model.num_batches_tracked.item() == 2
    assert not average.model.training
