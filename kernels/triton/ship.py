"""Write the tables that ship: `python -m fasthg.kernels.triton.ship`.

For each operator, width and capability, the first of a list of configurations, best first on paper, that compiles
without spills and fits the chip. What is best on a device is measured by `python -m bench.gpu.tune`, into a table of
its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fasthg.kernels.triton.offline import compile_launch, example_launches
from fasthg.kernels.tuning import TABLES, Config, Entry, write_table

#: Tried in this order: large tiles read weights less often, deep loops hide more latency.
_POINTERS = (
    Config(128, 64, 64, 8, 3, 2),
    Config(128, 32, 64, 8, 4, 2),
    Config(128, 32, 32, 8, 3, 2),
    Config(64, 64, 64, 8, 3, 2),
    Config(64, 32, 32, 8, 3, 2),
    Config(64, 32, 32, 8, 3, 1),
    Config(64, 32, 16, 8, 2, 1),
)
_TMA = tuple(replace(config, num_stages=stages, tma=True) for config in _POINTERS[::3] for stages in (4, 3))
_WIDE = (Config(32, 64, 64, 8, 2, 1), Config(32, 32, 32, 8, 2, 1), Config(16, 32, 32, 4, 2, 1))
_MANY, _FEW = 64 * 64 * 64, 64 * 64  # pixels of 64 and of 1 images at 64x64
_WITH_TMA = ("bottleneck", "conv3x3")
_WIDTHS = {
    "bottleneck": (64, 128, 256),
    "bottleneck_pool": (64, 128, 256),
    "bottleneck_skip": (128, 256),
    "conv3x3": (128, 256),
    "whole_bottleneck": (64,),
    "head": (256, 512),
    "stem": (64,),
    "norm_conv1x1": (256,),
    "norm_conv3x3": (128,),
    "max_pool": (256,),
    "normalise": (256,),
}


def candidates(operator: str, channels: int, capability: int, pixels: int | None) -> Iterator[Config]:
    """Configurations to try, best first on paper. With few pixels, small tiles give every multiprocessor one."""
    configs = (_TMA if operator in _WITH_TMA and capability >= 90 else ()) + _POINTERS
    if channels > 256:
        configs = _WIDE
    elif operator == "whole_bottleneck":  # a halo is shared by a larger tile
        configs = tuple(replace(config, block_m=256) for config in _POINTERS[:2]) + _POINTERS
    yield from (config for config in configs if pixels != _FEW or config.block_m <= 64)


def first_that_fits(operator: str, channels: int, capability: int, pixels: int | None) -> Entry:
    """The first candidate without a problem; ValueError where every one has one."""
    problems = []
    for config in candidates(operator, channels, capability, pixels):
        entry = Entry(operator, channels, pixels, config)
        reports = [compile_launch(launch, capability) for launch in example_launches(entry)]
        problem = next((report.problem() for report in reports if report.problem()), None)
        if problem is None:
            return entry
        problems.append(problem)
    raise ValueError(f"{operator} with {channels} channels does not fit sm_{capability}: {'; '.join(problems)}")


def ship(capabilities: tuple[int, ...] = (80, 90, 100, 120)) -> None:
    """Write the tables of these capabilities, each for its whole generation."""
    for capability in capabilities:
        entries = []
        for operator, widths in _WIDTHS.items():
            for channels in widths:
                split = operator in ("bottleneck", "bottleneck_pool") and channels < max(widths)
                for pixels in (_FEW, _MANY) if split else (None,):
                    entries.append(first_that_fits(operator, channels, capability, pixels))
                    print(f"sm_{capability}", entries[-1], flush=True)
        write_table(TABLES / f"sm_{capability}.json", entries)


if __name__ == "__main__":
    ship()
