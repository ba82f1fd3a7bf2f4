"""Write the tables that ship: `python -m fasthg.kernels.triton.ship`.

For each operator, width, image size and batch, the first of a list of configurations, best first on paper, that
compiles without spills and fits the chip. What is best on a device is measured by `python -m bench.gpu.tune`, into a
table of its own.

On paper: a tile as long as leaves the chip enough programs, since each program reads all weights; tensor maps for long
tiles of images whose borders are a small part of their rows. Levels of few pixels cannot fill a chip with tiles of
pixels. Sharing out output columns would repeat the 3x3, or take three launches for one, and the weights that one
program reads (425 kB at 128 feats, 4 us from the second-level cache) take no longer than two launches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import torch

from fasthg.kernels.triton.offline import compile_launch, example_launches
from fasthg.kernels.tuning import KERNELS, TABLES, Config, Entry, choose, write_table

#: Tried in this order at each tile's length: deep loops hide more latency.
_LOOPS = (
    Config(128, 64, 64, 8, 4, 2),
    Config(128, 64, 64, 8, 3, 2),
    Config(128, 32, 64, 8, 4, 2),
    Config(128, 32, 32, 8, 3, 2),
    Config(128, 32, 32, 8, 3, 1),
    Config(128, 32, 16, 8, 2, 1),
)
_ENOUGH = 128  # programs: three quarters of the multiprocessors of a GeForce RTX 5090, 97 % of an H100's
_SIDES, _BATCHES = (64, 32, 16, 8, 4), (1, 16, 64)
_TENSOR_MAP_SIDE = 16  # from here on borders are less than an eighth of the rows
_WIDTHS = {
    "bottleneck": (128, 256),
    "bottleneck_pool": (128, 256),
    "bottleneck_skip": (128, 256),
    "expand": (128, 256),
    "conv3x3": (128, 256),
    "head": (256, 512),
    "score": (256, 512),
    "stem": (64,),
    "norm_conv1x1": (256,),
    "norm_conv1x1_fp32": (256,),
    "norm_conv3x3": (128,),
    "max_pool": (256,),
    "normalise": (256,),
}
_LONGEST = {"score": 32, "norm_conv1x1_fp32": 64}  # float32 products: longer tiles, or deeper loops, spill everywhere
_AT_ONE_SIDE = {"stem": (128,)} | dict.fromkeys(("bottleneck_skip", "head", "score", "norm_conv1x1_fp32"), (64,))


def shapes(operator: str, channels: int) -> list[tuple[int, int]]:
    """Batches and sides that an operator's entries are for; one for the widest, which no variant of the study has."""
    sides = _AT_ONE_SIDE.get(operator, _SIDES)
    return (
        [(_BATCHES[0], sides[0])]
        if channels == _WIDTHS[operator][-1] != _WIDTHS[operator][0]
        else [(batch, side) for side in sides for batch in _BATCHES]
    )


def longest_tile(pixels: int) -> int:
    """Pixels of the longest tile that gives enough programs; 16 where none does."""
    return next((size for size in (128, 32) if pixels >= size * _ENOUGH), 16)


def candidates(operator: str, capability: int, batch: int, side: int) -> Iterator[Config]:
    """Configurations to try, best first on paper."""
    longest = min(longest_tile(batch * side * side), _LONGEST.get(operator, 128))
    maps = capability >= 90 and side >= _TENSOR_MAP_SIDE and "tma" in KERNELS[operator].numbers
    for size in (128, 64, 32, 16):
        for tma in (True, False) if maps and size >= 64 else (False,):
            for loop in _LOOPS[3 if operator in _LONGEST else 0 :] if size <= longest else ():
                config = replace(loop, block_m=size, num_warps=4 if size < 64 else 8, tma=tma)
                if operator == "conv3x3" and size == 16:
                    config = replace(config, block_n=32)  # programs share out output channels, too
                yield KERNELS[operator].only(config)


@cache
def problem(operator: str, channels: int, capability: int, config: Config) -> str | None:
    """Why a configuration does not run well on a chip's generation, in bf16 beside an fp32 trunk."""
    entry = Entry(operator, channels, 1, 1, config)
    launches = example_launches(entry, torch.bfloat16, torch.float32)
    return next((found for launch in launches if (found := compile_launch(launch, capability).problem())), None)


def first_that_fits(operator: str, channels: int, capability: int, batch: int, side: int) -> Entry:
    """The first candidate without a problem; ValueError where every one has one."""
    for config in candidates(operator, capability, batch, side):
        if problem(operator, channels, capability, config) is None:
            return Entry(operator, channels, batch, side * side, config)
    raise ValueError(f"{operator} with {channels} channels fits no tile on sm_{capability}")


def without_repetition(entries: list[Entry]) -> list[Entry]:
    """The fewest of one operator's and width's entries, found one by one, that choose the same for every shape."""
    kept = list(entries)
    for entry in entries:
        rest = tuple(other for other in kept if other is not entry)
        if rest and all(choose(rest, e.operator, e.channels, e.batch, e.pixels) == e.config for e in entries):
            kept = list(rest)
    return kept


def ship(capabilities: tuple[int, ...] = (80, 90, 100, 120)) -> None:
    """Write the tables of these capabilities, each for its whole generation."""
    for capability in capabilities:
        table = []
        for operator, widths in _WIDTHS.items():
            for channels in widths:
                found = [
                    first_that_fits(operator, channels, capability, *shape) for shape in shapes(operator, channels)
                ]
                table += without_repetition(found)
                print(f"sm_{capability} {operator} {channels}: {len({e.config for e in found})} ways", flush=True)
        write_table(TABLES / f"sm_{capability}.json", table)


if __name__ == "__main__":
    ship()
