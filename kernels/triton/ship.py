"""Write the tables that ship: `python -m fasthg.kernels.triton.ship [FOLDER ..]`.

An entry stays that compiles without spills and fits the chip, by the Triton that is installed and by those in the
folders (`fasthg.kernels.triton.versions` says how they get there). For each other operator, width, image size and batch
it is the first of a list of configurations, best first on paper. What is best on a device is measured by
`python -m bench.gpu.tune`, into a table of its own.

On paper: a tile as long as leaves the chip enough programs, since each program reads all weights; tensor maps for long
tiles of images whose borders are a small part of their rows.

Levels of few pixels cannot fill a chip with tiles of pixels, and a program waits for its weights: a multiprocessor
takes 64 bytes a clock from the second-level cache, 425 kB at 128 feats in 4 us. Programs that share out a tile's output
channels read 74 kB of the 3x3's and, since each computes x' for its readers' channels, 82 kB of the rest: 1.5 us in two
launches. That pays while the second-level cache serves them all at once, which is up to about 64 programs. It does not
at 64 feats, where one program's 106 kB take 1 us, less than a launch.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

from fasthg.kernels.triton.offline import SHARED_MEMORY
from fasthg.kernels.triton.versions import Triton
from fasthg.kernels.tuning import (
    KERNELS,
    TABLES,
    Config,
    Entry,
    choose,
    in_order,
    read_table,
    shipped_capability,
    write_table,
)

#: Tried in this order at each tile's length: deep loops hide more latency.
_LOOPS = (
    Config(128, 64, 64, 8, 4, 2),
    Config(128, 64, 64, 8, 3, 2),
    Config(128, 32, 64, 8, 4, 2),
    Config(128, 32, 32, 8, 3, 2),
    Config(128, 32, 32, 8, 3, 1),
    Config(128, 32, 16, 8, 2, 1),
)
_SHARED_OUT = Config(16, 128, 64, 4, 5, 2)  # tried before them where programs share out channels: their loads are small
_ENOUGH = 128  # programs: three quarters of the multiprocessors of a GeForce RTX 5090, 97 % of an H100's
_SERVED = 64  # programs that the second-level cache serves at once
_SIDES, _BATCHES = (64, 32, 16, 8, 4), (1, 16, 64)
_TENSOR_MAP_SIDE = 16  # from here on borders are less than an eighth of the rows
_WIDTHS = {
    "bottleneck": (64, 128, 256),
    "bottleneck_pool": (64, 128, 256),
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


def parts(pixels: int) -> int:
    """Programs that share out the channels of the shortest tiles."""
    return next((count for count in (8, 4, 2) if -(-pixels // 16) * count <= _SERVED), 1)


def candidates(operator: str, channels: int, capability: int, batch: int, side: int) -> Iterator[Config]:
    """Configurations to try, best first on paper."""
    shared = parts(batch * side * side)
    if shared > 1 and operator == "conv3x3":
        yield KERNELS[operator].only(replace(_SHARED_OUT, block_n=max(16, 128 // shared)))
    elif shared > 1 and channels > 64 and "parts" in KERNELS[operator].numbers:
        yield KERNELS[operator].only(replace(_SHARED_OUT, parts=shared))
    longest = min(longest_tile(batch * side * side), _LONGEST.get(operator, 128))
    maps = capability >= 90 and side >= _TENSOR_MAP_SIDE and "tma" in KERNELS[operator].numbers
    for size in (128, 64, 32, 16):
        ways = product((True, False) if maps and size >= 64 else (False,), (4, 8) if size < 64 else (8, 4))
        for tma, warps in ways:
            for loop in _LOOPS[3 if operator in _LONGEST else 0 :] if size <= longest else ():
                config = replace(loop, block_m=size, num_warps=warps, tma=tma)
                if operator == "conv3x3" and size == 16:
                    config = replace(config, block_n=32)  # programs share out output channels, too
                yield KERNELS[operator].only(config)


class Tritons:
    """What several versions of Triton together say of a configuration, asked once."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._versions = [Triton(), *map(Triton, folders)]
        self._said: dict[tuple[str, int, int, Config], str | None] = {}

    def problem(self, operator: str, channels: int, capability: int, config: Config) -> str | None:
        """Why a configuration does not run well on a chip's generation by one of them; None where it does by all."""
        key = operator, channels, capability, config
        if key not in self._said:
            entry = Entry(operator, channels, 1, 1, config)
            chips = [chip for chip in SHARED_MEMORY if shipped_capability(divmod(chip, 10)) == divmod(capability, 10)]
            answers = (version.problem(entry, chip) for version in self._versions for chip in chips)
            self._said[key] = next(filter(None, answers), None)
        return self._said[key]


def first_that_fits(
    tritons: Tritons, before: tuple[Entry, ...], operator: str, channels: int, capability: int, batch: int, side: int
) -> Entry:
    """What the table had before, or the first candidate, without a problem; ValueError where every one has one."""
    had = choose(before, operator, channels, batch, side * side)
    for config in filter(None, (had, *candidates(operator, channels, capability, batch, side))):
        if tritons.problem(operator, channels, capability, config) is None:
            return Entry(operator, channels, batch, side * side, config)
    raise ValueError(f"{operator} with {channels} channels fits no tile on sm_{capability}")


def without_repetition(entries: list[Entry]) -> tuple[Entry, ...]:
    """The fewest of one operator's and width's entries, found one by one, that choose the same for every shape."""
    kept = in_order(entries)
    for entry in entries:
        rest = tuple(other for other in kept if other is not entry)
        if rest and all(choose(rest, e.operator, e.channels, e.batch, e.pixels) == e.config for e in entries):
            kept = rest
    return kept


def ship(folders: Sequence[Path] = (), capabilities: Sequence[int] = (80, 90, 100, 120)) -> None:
    """Write the tables of these capabilities, each for its whole generation."""
    tritons = Tritons(folders)
    for capability in capabilities:
        path, table = TABLES / f"sm_{capability}.json", list[Entry]()
        before = read_table(path) if path.exists() else ()
        for operator, widths in _WIDTHS.items():
            for channels in widths:
                found = [
                    first_that_fits(tritons, before, operator, channels, capability, *shape)
                    for shape in shapes(operator, channels)
                ]
                table += without_repetition(found)
                print(f"sm_{capability} {operator} {channels}: {len({e.config for e in found})} ways", flush=True)
        write_table(path, table)


if __name__ == "__main__":
    ship([Path(folder) for folder in sys.argv[1:]])
