"""The right table and the right entry for a device and a shape, and a clear word where there is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.gpu.tune import CHOICES, neighbours
from fasthg.kernels import tuning
from fasthg.kernels.tuning import Config, Entry

SMALL, LARGE, WIDE, ANY = Config(32), Config(128), Config(64, num_warps=8), Config(16)
ENTRIES = (
    Entry("bottleneck", 64, 1, 4096, SMALL),
    Entry("bottleneck", 64, 64, 4096, LARGE),
    Entry("bottleneck", 64, 64, 64, ANY),
    Entry("bottleneck", 128, 1, 4096, WIDE),
    Entry("head", 256, 1, 4096, ANY),
)


@pytest.mark.parametrize(
    ("operator", "channels", "batch", "pixels", "expected"),
    [
        ("bottleneck", 64, 1, 4096, SMALL),
        ("bottleneck", 64, 4, 4096, SMALL),  # nearer to one image than to 64
        ("bottleneck", 64, 16, 4096, LARGE),
        ("bottleneck", 64, 64, 64, ANY),  # as many pixels as one image of 64x64, but in images of 8x8
        ("bottleneck", 64, 1, 64, ANY),
        ("bottleneck", 16, 64, 4096, LARGE),  # a narrower network takes the next wider entry
        ("bottleneck", 128, 64, 4096, WIDE),
        ("bottleneck", 256, 1, 4096, None),
        ("head", 128, 1, 1, ANY),
        ("stem", 64, 1, 1, None),
    ],
)
def test_nearest_measured_shape_is_chosen(
    operator: str, channels: int, batch: int, pixels: int, expected: Config | None
) -> None:
    assert tuning.choose(ENTRIES, operator, channels, batch, pixels) == expected


@pytest.mark.parametrize(
    ("capability", "table"),
    [((8, 0), (8, 0)), ((8, 6), (8, 0)), ((8, 9), (8, 0)), ((9, 0), (9, 0)), ((10, 3), (10, 0))],
)
def test_chips_without_a_table_take_the_one_of_their_generation(capability: tuple, table: tuple) -> None:
    assert tuning.shipped_capability(capability) == table


@pytest.mark.parametrize("capability", [(7, 5), (11, 0)])
def test_unknown_generations_are_refused_by_name(capability: tuple[int, int]) -> None:
    name = f"{capability[0]}.{capability[1]}"
    with pytest.raises(ValueError, match=f"no configurations for compute capability {name}; there are for 8.0, 9.0"):
        tuning.shipped_capability(capability)


def test_every_shipped_table_serves_every_width_up_to_256_feats() -> None:
    for path in tuning.TABLES.glob("sm_*.json"):
        entries = tuning.read_table(path)
        widest = {"head": 512, "score": 512, "bottleneck": 256, "bottleneck_pool": 256, "bottleneck_skip": 256}
        for operator in tuning.KERNELS:
            for channels in (16, 64, widest.get(operator, 64)):
                assert tuning.choose(entries, operator, channels, 1, 4096), (path, operator)


def test_what_was_measured_on_a_device_goes_before_what_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuning.write_table(tmp_path / "sm_90.json", list(ENTRIES))
    tuning.write_table(tmp_path / "nvidia-h100-80gb-hbm3.json", [Entry("head", 256, 1, 4096, LARGE)])
    monkeypatch.setattr(tuning, "TABLES", tmp_path)
    measured, shipped = tuning.tables.__wrapped__((9, 0), "NVIDIA H100 80GB HBM3")
    assert tuning.choose(measured, "head", 256, 1, 1) == LARGE
    assert set(shipped) == set(ENTRIES)


def test_a_broken_table_is_named(tmp_path: Path) -> None:
    path = tmp_path / "sm_90.json"
    path.write_text('[{"operator": "head", "channels": 256, "batch": 1, "pixels": 1, "config": {"block": 1}}]')
    with pytest.raises(ValueError, match=f"{path} is not a table of configurations"):
        tuning.read_table(path)


@pytest.mark.parametrize("operator", list(tuning.KERNELS))
def test_the_tuner_offers_what_the_kernel_has_and_its_buffers_hold(operator: str) -> None:
    start, seen = tuning.KERNELS[operator].only(Config(64)), set()
    for candidate in neighbours(operator, start, tensor_maps=True):
        assert tuning.KERNELS[operator].problem(candidate) is None
        (changed,) = [name for name in CHOICES if getattr(candidate, name) != getattr(start, name)]
        seen.add(changed)
    assert seen == set(tuning.KERNELS[operator].numbers), "and everything that it has"


def test_every_operator_launches_the_constants_that_its_configuration_says() -> None:
    """Numbers that a kernel is said to have change what it is launched with; others do not exist for it."""
    pytest.importorskip("triton")
    from fasthg.kernels.triton.offline import example_launches

    for operator, kernel in tuning.KERNELS.items():
        base, changed = kernel.only(Config(64, 32, 32, 4, 3, 2)), Config(128, 16, 16, 8, 2, 1, tma=True, parts=2)
        for name in kernel.numbers:
            other = replace(base, **{name: getattr(changed, name)})
            before, after = (example_launches(Entry(operator, 64, 1, 4096, config))[0] for config in (base, other))
            constants = [{n: v for n, v in launch.arguments.items() if n.isupper()} for launch in (before, after)]
            assert constants[0] != constants[1] or name == "num_warps", (operator, name)


def test_a_table_without_repetitions_chooses_the_same_for_every_shape_once_it_is_read_again(tmp_path: Path) -> None:
    """Images of 1024 pixels are as near to those of 4096 as to those of 256: the first in the file goes."""
    pytest.importorskip("triton")
    from fasthg.kernels.triton.ship import without_repetition

    found = [
        Entry("bottleneck", 128, 1, pixels, config) for pixels, config in ((1024, LARGE), (4096, LARGE), (256, SMALL))
    ]
    tuning.write_table(tmp_path / "table.json", without_repetition(found))
    table = tuning.read_table(tmp_path / "table.json")
    assert len(table) < len(found)
    for entry in found:
        assert tuning.choose(table, "bottleneck", 128, 1, entry.pixels) == entry.config, entry.pixels


@pytest.mark.parametrize("path", sorted(tuning.TABLES.glob("sm_*.json")), ids=lambda path: path.stem)
def test_tables_share_out_the_channels_of_small_levels(path: Path) -> None:
    """At batch 1, where tiles of 16 pixels are few: 64 programs at 16x16, 8 a tile below; none where tiles do."""
    entries = tuning.read_table(path)
    for operator in ("bottleneck", "bottleneck_pool", "expand"):
        for side, programs in ((32, 64), (16, 64), (8, 32), (4, 8)):
            config = tuning.choose(entries, operator, 128, 1, side * side)
            assert config is not None
            assert side * side // config.block_m * config.parts == programs, (operator, side)
            narrow = tuning.choose(entries, operator, 64, 1, side * side)
            assert narrow is not None
            assert narrow.parts == 1 or operator == "expand", "one launch takes less than two of so few weights"
        large = tuning.choose(entries, operator, 128, 16, 64 * 64)
        assert large is not None
        assert large.parts == 1, operator


def test_tables_give_small_images_tiles_short_enough_to_share_out() -> None:
    """At batch 1 a level of 64x64 and one of 32x32 take tiles that reach half of an H100's multiprocessors."""
    entries = tuning.read_table(tuning.TABLES / "sm_90.json")
    for operator in ("bottleneck", "bottleneck_pool", "expand", "conv3x3"):
        for side in (64, 32):
            config = tuning.choose(entries, operator, 128, 1, side * side)
            assert config is not None
            assert side * side / config.block_m >= 64, (operator, side)
        one, many = (tuning.choose(entries, operator, 128, n, side * side) for n, side in ((1, 64), (64, 8)))
        assert operator in ("bottleneck_pool", "expand") or one != many, "as many pixels, but in images of 8x8"
