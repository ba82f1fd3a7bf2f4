"""A wrong answer or a wrong backward pass must not get a time, and rounding must not be called wrong."""

import math

import numpy as np
import pytest
import torch

from bench.measure import parity
from bench.measure.first_step import FirstStep, take_first_step
from fasthg.metrics.agreement import TOLERANCES, relative_error
from fasthg.network.variants import HourglassConfig
from fasthg.runtimes.pytorch import unavailable
from training.distributed import join_world
from training.learner import Learner
from training.loading.batches import Batch
from training.recipes import Recipe

SIZE = 64
CONFIG = HourglassConfig(num_stacks=2, num_feats=16, depths=2)
BATCH = Batch(
    torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) - 0.4,
    torch.full((1, 16, 2), 7.3),
    torch.ones(1, 16),
    torch.zeros(1, dtype=torch.int64),
)


def learner(path="eager"):
    recipe = Recipe(variant=CONFIG, size=SIZE, batch_size=1, schedule="constant", path=path)
    return Learner(recipe, 1, join_world(torch.device("cpu")))


@pytest.fixture(scope="module")
def eager():
    return take_first_step(learner(), BATCH)


def errors(found: FirstStep, eager: FirstStep):
    return (abs(found.loss - eager.loss) / eager.loss, parity.gradient_error(found.gradients, eager.gradients))


def judged(found, eager, precision):
    return [
        bool(parity.verdict(error, precision, what)) for error, what in zip(errors(found, eager), ("loss", "gradients"))
    ]


def test_distance_of_a_hand_worked_case():
    # The difference has norm 1, the reference 5.
    assert relative_error(torch.tensor([3.0, 5.0]), torch.tensor([3.0, 4.0])) == pytest.approx(0.2)
    parts = {"a": torch.tensor([3.0]), "b": torch.tensor([4.0])}
    assert parity.gradient_error(parts | {"b": torch.tensor([5.0])}, parts) == pytest.approx(0.2)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_answers_that_are_not_finite_are_wrong_in_every_precision(value):
    reference = torch.ones(4)
    for precision in TOLERANCES:
        error = relative_error(torch.full((4,), value), reference)
        assert "not finite" in parity.verdict(error, precision)
    assert relative_error(reference, torch.full((4,), value)) == math.inf  # nor is anything like such a reference
    unlike = {"w": torch.full((4,), value)}
    assert parity.rounding_verdict({"w": reference}, unlike, {"w": reference + 1})
    assert parity.rounding_verdict(unlike, unlike, {"w": reference})
    assert parity.gradient_error({"w": torch.full((4,), value)}, {"w": reference}) == math.inf


def test_a_parameter_without_gradient_or_of_another_shape_is_wrong():
    whole = {"a": torch.ones(3), "b": torch.ones(2)}
    assert parity.gradient_error({"a": torch.ones(3)}, whole) == math.inf
    assert parity.gradient_error(whole | {"b": torch.ones(1)}, whole) == math.inf
    assert parity.gradient_error(whole, whole) == 0.0


def test_reason_says_what_is_off_and_what_is_allowed():
    assert parity.verdict(1e-4, "fp32") == "relative error 1.0e-04 of the heatmaps from eager's, fp32 allows 1e-05"
    assert parity.verdict(1e-4, "bf16") == ""


def test_true_backward_passes_in_other_layouts_and_precisions_are_right(eager):
    assert judged(take_first_step(learner("channels_last"), BATCH), eager, "fp32") == [False, False]
    if not unavailable(torch.device("cpu"), "bf16"):
        assert judged(take_first_step(learner("amp"), BATCH), eager, "bf16") == [False, False]


def test_gradients_are_those_of_float64(eager):
    exact = learner()
    exact.model.double()
    found = take_first_step(exact, BATCH._replace(images=BATCH.images.double()))
    assert max(errors(eager, found)) < 1e-4


def test_fp32_gradients_far_from_eagers_are_right_where_eagers_are_as_far_from_exact_ones():
    def off(error):
        return {"w": torch.tensor([3.0 + 5.0 * error, 4.0], dtype=torch.float64)}  # the exact one has norm 5

    assert parity.rounding_verdict(off(-2e-4), off(1e-4), off(0.0)) == ""
    assert parity.rounding_verdict(off(4e-4), off(1e-4), off(0.0)) == "4.0e-04 from float64's, eager's own 1.0e-04"
    assert parity.rounding_verdict(off(math.nan), off(1e-4), off(0.0)) != ""


def test_wrong_backward_pass_behind_a_right_answer_is_wrong(eager):
    broken = learner()
    inner = broken.model.stacks[0].hourglass.low1
    inner.register_full_backward_hook(lambda _module, inputs, _outputs: tuple(1.5 * grad for grad in inputs))
    found = take_first_step(broken, BATCH)
    assert errors(found, eager)[0] < 1e-6
    for precision in ("fp32", "bf16", "fp16"):
        assert judged(found, eager, precision)[1], precision


def test_the_look_at_the_gradients_leaves_the_first_step_as_it_is(eager):
    plain = learner()
    assert float(plain.learn(BATCH, 0)) == eager.loss
    looked = learner()
    take_first_step(looked, BATCH)
    for name, value in plain.model.state_dict().items():
        assert torch.equal(looked.model.state_dict()[name], value), name


def test_first_step_comes_back_from_its_file(eager, tmp_path):
    eager.save(tmp_path / "first.safetensors")
    again = FirstStep.load(tmp_path / "first.safetensors")
    assert again.loss == eager.loss
    assert errors(again, eager) == (0.0, 0.0)


def found(lost, gained, count=1000):
    """A reference that finds every second joint, and a path that loses and gains some."""
    reference = np.arange(count) % 2 == 0
    path = reference.copy()
    path[np.flatnonzero(reference)[:lost]] = False
    path[np.flatnonzero(~reference)[:gained]] = True
    return path, reference, count


def test_a_loss_of_two_points_is_wrong_in_int8_and_one_that_chance_makes_is_not():
    reason = parity.pckh_verdict(*found(lost=20, gained=0), "int8")
    assert reason == "PCKh -2.00 over 1,000 joints, int8 allows -0.30 and -0.89 by chance"
    assert parity.pckh_verdict(*found(lost=3, gained=0), "int8") == ""
    assert parity.pckh_verdict(*found(lost=40, gained=38), "int8") == ""
    assert parity.pckh_verdict(*found(lost=0, gained=50), "int8") == ""


def test_rounding_may_lose_a_joint_but_not_twenty():
    assert parity.pckh_verdict(*found(lost=1, gained=0), "bf16") == ""
    assert "bf16 allows -0.10" in parity.pckh_verdict(*found(lost=20, gained=2), "bf16")
