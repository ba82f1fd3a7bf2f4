"""Every configuration that ships compiles for its chips without spilling, fits them, and uses their tensor cores.

No GPU is needed: Triton's wheel holds the assembler for all of them.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("TRITON_INTERPRET is set: kernels are not compiled", allow_module_level=True)

from fasthg.kernels.layout import Grid
from fasthg.kernels.ops.dispatch import by_triton
from fasthg.kernels.triton.launch import Launch, record_launches
from fasthg.kernels.triton.offline import Report, compile_launch, example_launches
from fasthg.kernels.tuning import TABLES, Entry, read_table

WITHOUT_PRODUCTS = ("max_pool", "normalise")


def shipped(capability: int) -> list[Entry]:
    return list(read_table(TABLES / f"sm_{capability}.json"))


def largest(capability: int) -> list[Entry]:
    """Of every operator, width and way to share out channels the entry with the longest tile, which takes the most."""
    found: dict[tuple[str, int, bool], Entry] = {}
    for entry in sorted(shipped(capability), key=lambda e: e.config.block_m):
        found[entry.operator, entry.channels, entry.config.parts > 1] = entry
    return list(found.values())


def cases() -> list[Any]:
    """The longest tiles of each table on its own chip; some of the 8.0 table on the other chips of its generation."""
    pairs = [(capability, entry) for capability in (80, 90, 100, 120) for entry in largest(capability)]
    widest = [entry for entry in largest(80) if entry.channels == 128]
    pairs += [(chip, entry) for chip in (86, 89) for entry in widest if entry.operator.startswith("bottleneck")]
    return [
        pytest.param(chip, entry, id=f"sm_{chip}-{entry.operator}-{entry.channels}-{entry.config.parts}")
        for chip, entry in pairs
    ]


def compiled(launch: Launch, capability: int) -> Report:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Triton announces the defaults of its next version
        return compile_launch(launch, capability)


@pytest.mark.parametrize(("capability", "entry"), cases())
def test_shipped_configuration_compiles_without_spills_and_fits_the_chip(capability: int, entry: Entry) -> None:
    for launch in example_launches(entry, torch.bfloat16, torch.float32):
        report = compiled(launch, capability)
        assert report.problem() is None
        assert report.tensor_core or entry.operator in WITHOUT_PRODUCTS


@pytest.mark.parametrize("capability", [80, 90, 100])
def test_halves_of_either_kind_take_the_same_and_a_float32_trunk_no_less(capability: int) -> None:
    """So the dtype is no part of the tables' key."""
    entry = next(e for e in largest(capability) if (e.operator, e.channels) == ("bottleneck", 128))
    fp16, bf16, wide = (
        compiled(example_launches(entry, dtype, trunk)[0], capability)
        for dtype, trunk in ((torch.float16, None), (torch.bfloat16, None), (torch.bfloat16, torch.float32))
    )
    assert fp16.problem() is None
    assert fp16.shared == bf16.shared <= wide.shared
    assert abs(fp16.registers - bf16.registers) <= 8


@pytest.mark.parametrize("capability", [80, 90, 120])
def test_heatmap_kernels_compile(capability: int) -> None:
    from fasthg.kernels.triton.heatmaps import decode_heatmaps, render_targets

    with record_launches() as launches:
        decode_heatmaps(torch.zeros(1, 16, 64, 64, dtype=torch.float16))
        render_targets(torch.zeros(1, 16, 2), torch.zeros(1, 16), 64, 64, 1.0)
    assert [compiled(launch, capability).problem() for launch in launches] == [None, None]


def test_tables_use_tensor_maps_only_where_they_pay() -> None:
    """Compute capability 8.0 has none; on 12.0 Triton 3.6 spills with them."""
    assert not any(entry.config.tma for capability in (80, 120) for entry in shipped(capability))
    for capability in (90, 100):
        assert any(entry.config.tma for entry in shipped(capability) if entry.operator == "bottleneck")


def test_oversized_tiles_are_seen_and_not_shipped() -> None:
    entry = next(e for e in shipped(100) if e.operator == "bottleneck" and e.channels == 256)
    entry = replace(entry, config=replace(entry.config, block_m=256, block_n=128, num_stages=2, num_warps=8))
    (launch,) = example_launches(entry)
    report = compiled(launch, 100)
    assert report.problem() is not None


def test_operators_launch_what_their_arguments_ask_for() -> None:
    """A recorded call carries None for what is not wanted: such a kernel has no code for it."""
    t = Grid(1, 4, 4).empty(32)
    with by_triton(), record_launches() as launches:
        torch.ops.fasthg.conv3x3(t, torch.zeros(9, 32, 32).half(), torch.zeros(32), t.clone(), 1, 4, 4)
    assert [launch.arguments["C"] for launch in launches] == [32]
    assert launches[0].arguments["BK"] == 32, "a narrow network takes a wide one's configuration, cut to its width"
