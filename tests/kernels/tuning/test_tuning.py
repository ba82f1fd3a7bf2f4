"""The right table and the right entry for a device and a shape, and a clear word where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from fasthg.kernels import tuning
from fasthg.kernels.tuning import Config, Entry

SMALL, LARGE, WIDE, ANY = Config(32), Config(128), Config(64, num_warps=8), Config(16)
ENTRIES = (
    Entry("bottleneck", 64, 4096, SMALL),
    Entry("bottleneck", 64, 262144, LARGE),
    Entry("bottleneck", 128, 4096, WIDE),
    Entry("head", 256, None, ANY),
)


@pytest.mark.parametrize(
    ("operator", "channels", "pixels", "expected"),
    [
        ("bottleneck", 64, 4096, SMALL),
        ("bottleneck", 64, 16384, SMALL),  # nearer to one image than to 64
        ("bottleneck", 64, 65536, LARGE),
        ("bottleneck", 16, 262144, LARGE),  # a narrower network takes the next wider entry
        ("bottleneck", 128, 262144, WIDE),
        ("bottleneck", 256, 4096, None),
        ("head", 128, 1, ANY),
        ("stem", 64, 1, None),
    ],
)
def test_nearest_measured_shape_is_chosen(operator: str, channels: int, pixels: int, expected: Config | None) -> None:
    assert tuning.choose(ENTRIES, operator, channels, pixels) == expected


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
        for operator, widest in [
            ("bottleneck", 256),
            ("bottleneck_pool", 256),
            ("bottleneck_skip", 256),
            ("head", 512),
        ]:
            assert all(tuning.choose(entries, operator, channels, 4096) for channels in (16, 64, widest)), path


def test_what_was_measured_on_a_device_goes_before_what_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuning.write_table(tmp_path / "sm_90.json", list(ENTRIES))
    tuning.write_table(tmp_path / "nvidia-h100-80gb-hbm3.json", [Entry("head", 256, 4096, LARGE)])
    monkeypatch.setattr(tuning, "TABLES", tmp_path)
    measured, shipped = tuning.tables.__wrapped__((9, 0), "NVIDIA H100 80GB HBM3")
    assert tuning.choose(measured, "head", 256, 1) == LARGE
    assert set(shipped) == set(ENTRIES)


def test_a_broken_table_is_named(tmp_path: Path) -> None:
    path = tmp_path / "sm_90.json"
    path.write_text('[{"operator": "head", "channels": 256, "pixels": null, "config": {"block": 1}}]')
    with pytest.raises(ValueError, match=f"{path} is not a table of configurations"):
        tuning.read_table(path)
