"""The fused network by its Triton kernels in Triton's interpreter, through its own plan, against float64.

Run by test_interpreted.py in a process of its own: kernels must be interpreted from their import on.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.gpu.calls import Call, Oracle, distinct_calls
from bench.gpu.checks import expected_heatmaps, lively, long_tiles, reduced, relative_error, run_poisoned
from fasthg.fused.net import FusedNet
from fasthg.fused.streams import InOrder
from fasthg.kernels.ops.dispatch import by_triton
from fasthg.kernels.triton.launch import record_launches
from fasthg.kernels.tuning import KERNELS, TABLES, Choice, Config, Kernel, Question, read_table, trial
from fasthg.network.variants import VARIANTS, HourglassConfig

TOLERANCES = {torch.float16: 5e-3, torch.float32: 1e-5}


def check(config: HourglassConfig, dtype: torch.dtype, batch: int, choice: Choice, side: int = 64) -> None:
    model, images = lively(config), torch.rand(batch, 3, side, side) - 0.4
    network = FusedNet(model, images, dtype, InOrder(beside=True))
    with by_triton(), trial(choice) as asked:
        found = run_poisoned(network, images, late=True)
    calls = [step for step in network.steps(tuple(images.shape)) if hasattr(step.operator, "default")]
    assert len(asked) >= len(calls) > 10, "every call ran its kernel"
    assert relative_error(found, expected_heatmaps(model, images)) < TOLERANCES[dtype]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", list(TOLERANCES), ids=str)
def test_every_variant_answers_like_float64_over_poisoned_memory(variant: str, dtype: torch.dtype) -> None:
    check(reduced(variant), dtype, {"small": 3, "feats64-layernorm": 2}.get(variant, 1), long_tiles)


def shipped_ways() -> dict[str, list[Config]]:
    """Every distinct configuration of every shipped table, by operator."""
    found: dict[str, list[Config]] = {}
    for path in sorted(TABLES.glob("sm_*.json")):
        for entry in read_table(path):
            ways = found.setdefault(entry.operator, [])
            if entry.config not in ways:
                ways.append(entry.config)
    return found


class Rounds:
    """Configurations for runs of small networks that together take every one that ships.

    Calls with `rounds` as their `trial`: each question of an operator gets the operator's next configuration, and once
    it has had them all what `after` gives.
    """

    def __init__(self, ways: dict[str, list[Config]], after: Choice) -> None:
        self.ways, self._after, self._asked = ways, after, dict.fromkeys(ways, 0)

    def __call__(self, question: Question) -> Config | None:
        ways, asked = self.ways[question.operator], self._asked[question.operator]
        self._asked[question.operator] += 1
        return ways[asked] if asked < len(ways) else self._after(question)

    def missing(self) -> list[str]:
        """Operators that were asked for less often than they have configurations."""
        return [operator for operator, ways in self.ways.items() if self._asked[operator] < len(ways)]


def test_every_configuration_that_ships_computes_what_it_should() -> None:
    rounds = Rounds(shipped_ways(), long_tiles)
    small = HourglassConfig(num_stacks=1, num_feats=32, depths=1, stem_feats=(16, 32))
    many = replace(small, num_stacks=5, depths=(2,) * 5)
    layer = replace(small, norm="layer")
    rest = (small, "bottleneck"), (layer, ("norm", "max_pool"))
    for config, operators in ((many, ("bottleneck_pool", "head")), *rest):
        while any(missing.startswith(operators) for missing in rounds.missing()):
            check(config, torch.float16, 1, rounds, side=32)
    assert not rounds.missing()


def widest_calls(config: HourglassConfig) -> dict[str, tuple[int, Call]]:
    """Of each operator that a network asks tables for, the call with the most channels, and these."""
    images, found = torch.rand(1, 3, 16, 16) - 0.4, dict[str, tuple[int, Call]]()
    network = FusedNet(lively(config), images, torch.float16, InOrder(beside=True))
    network(images)
    for call in distinct_calls(network, (1, 3, 16, 16)):
        with by_triton(), record_launches(), trial(long_tiles) as asked:
            call.run()
        for question in asked:
            if question.channels > found.get(question.operator, (0,))[0]:
                found[question.operator] = question.channels, call
    return found


def only(operator: str, way: Config) -> Choice:
    return lambda question: way if question.operator == operator else None


def test_every_configuration_that_ships_is_right_at_a_width_that_cuts_nothing_of_it() -> None:
    """Networks of few channels take less of a configuration: here are 128 feats, as in most of the study."""
    left = shipped_ways()
    folded = HourglassConfig(num_stacks=2, num_feats=128, depths=2, num_convs=4)
    for config in (folded, HourglassConfig(num_stacks=1, num_feats=128, depths=1, norm="layer")):
        for operator, (channels, call) in widest_calls(config).items():
            oracle = Oracle(call)
            for way in left.pop(operator, ()):
                assert max(way.block_k, way.block_n) <= channels
                with by_triton(), trial(only(operator, way)):
                    assert oracle.relative_error() < call.tolerance, (operator, way)
    assert not left


def test_an_operator_with_a_configuration_of_another_kernel_is_refused() -> None:
    kernel: Kernel = KERNELS["stem"]
    assert kernel.problem(Config(64, num_warps=8)) is None
    assert "nothing else" in str(kernel.problem(Config(64, tma=True)))
    assert "room for tiles of 16 to 256" in str(kernel.problem(Config(512)))
    assert "room for tiles of 16 to 256" in str(kernel.problem(Config(8)))
