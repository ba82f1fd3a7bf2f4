"""Steps, learning rates and averages against values worked out in float64."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from fasthg.errors import FasthgError
from training.optim import Schedule, WeightAverage, make_optimizer, set_learning_rate

GRADIENTS = np.array([[0.5, -2.0], [0.1, 1.0], [-0.3, 0.2]])
START = np.array([1.0, -1.0])


def rmsprop(lr, momentum, decay):
    """Hinton's RMSProp with momentum on the scaled gradient, as PyTorch documents it: alpha 0.99, eps 1e-8."""
    p, square, buffer = START.copy(), np.zeros(2), np.zeros(2)
    for gradient in GRADIENTS:
        g = gradient + decay * p
        square = 0.99 * square + 0.01 * g**2
        buffer = momentum * buffer + g / (np.sqrt(square) + 1e-8)
        p = p - lr * buffer
    return p


def adam(lr, momentum, decay, decoupled):
    """Kingma and Ba, algorithm 1; `decoupled` is Loshchilov and Hutter's AdamW."""
    p, m, v = START.copy(), np.zeros(2), np.zeros(2)
    for step, gradient in enumerate(GRADIENTS, start=1):
        p = p * (1 - lr * decay) if decoupled else p
        g = gradient if decoupled else gradient + decay * p
        m = momentum * m + (1 - momentum) * g
        v = 0.999 * v + 0.001 * g**2
        p = p - lr * (m / (1 - momentum**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
    return p


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rmsprop", rmsprop(0.01, 0.9, 0.1)),
        ("adam", adam(0.01, 0.9, 0.1, decoupled=False)),
        ("adamw", adam(0.01, 0.9, 0.1, decoupled=True)),
    ],
)
def test_three_steps_agree_with_float64(name, expected):
    parameter = nn.Parameter(torch.from_numpy(START.copy()))
    optimizer = make_optimizer(name, [parameter], lr=0.01, momentum=0.9, weight_decay=0.1)
    for gradient in GRADIENTS:
        parameter.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
    np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-9)


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
