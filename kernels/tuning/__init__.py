"""Which tile each kernel runs with: tables of configurations by device, operator and shape.

Tables are read at run time; nothing is searched for in a user's first call.

`tables/sm_90.json` holds what ships for a compute capability: configurations that compile without spills and within
the chip's shared memory. `tables/nvidia-h100-80gb-hbm3.json`, where there is one, holds what was measured on a device
of that name by `python -m bench.gpu.tune`, and goes first. A table is a list of entries:

    {"operator": "bottleneck", "channels": 128, "batch": 1, "pixels": 4096, "config": {"block_m": 32, ...}}

`channels` is the width that the kernel keeps in registers (of the 3x3, or the head's); an entry serves narrower ones
too. `batch` images of `pixels` each are what the entry is for; a call takes the nearest. The last head, which is
float32, goes by names of its own (`score`, `norm_conv1x1_fp32`). Else the dtype is no part of the key: float16 and
bfloat16 take the same bytes and registers, and what ships compiles in bfloat16 beside a float32 trunk, which takes the
most.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, astuple, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from fasthg.kernels.layout import MAX_TILE, STATISTICS_PIXELS

TABLES = Path(__file__).parent / "tables"


@dataclass(frozen=True)
class Config:
    """One way to run a kernel.

    block_m        pixels of a tile
    block_k        input channels of one product
    block_n        output channels of one turn of the 1x1 that follows
    num_warps      warps of a program
    num_stages     loads in flight of the main loop
    chunk_stages   the same of the loop over block_n
    tma            move tiles by the tensor memory accelerator (compute capability 9.0 and above)
    parts          programs that share out the output channels of a tile; a bottleneck takes two launches for it
    """

    block_m: int
    block_k: int = 64
    block_n: int = 64
    num_warps: int = 4
    num_stages: int = 3
    chunk_stages: int = 2
    tma: bool = False
    parts: int = 1


@dataclass(frozen=True)
class Entry:
    """A configuration and the calls that it is for."""

    operator: str
    channels: int
    batch: int
    pixels: int
    config: Config

    def __post_init__(self) -> None:
        problem = KERNELS[self.operator].problem(self.config)
        if problem is not None:
            raise ValueError(f"{self.operator}: {problem}")


@dataclass(frozen=True)
class Kernel:
    """What a kernel can be run with: the numbers of a configuration that it has, its smallest tile."""

    numbers: tuple[str, ...]

    def only(self, config: Config) -> Config:
        """The configuration without what this kernel has no use for."""
        return Config(**{name: getattr(config, name) for name in self.numbers})

    def problem(self, config: Config) -> str | None:
        """Why the kernel's buffers have no room for this configuration, or the kernel no use; None where it fits."""
        if config != self.only(config):
            return f"the kernel has {', '.join(self.numbers)} to choose, nothing else"
        if not STATISTICS_PIXELS <= config.block_m <= MAX_TILE:
            return f"block_m is {config.block_m}; buffers have room for tiles of {STATISTICS_PIXELS} to {MAX_TILE}"
        return None


_LOOP = ("block_m", "block_k", "num_warps", "num_stages")
_CHUNKS = (*_LOOP, "block_n", "chunk_stages")
_POINTWISE = ("block_m", "num_warps")
KERNELS = {
    "bottleneck": Kernel((*_CHUNKS, "tma", "parts")),
    "bottleneck_pool": Kernel((*_CHUNKS, "parts")),
    "bottleneck_skip": Kernel(_CHUNKS),
    "expand": Kernel(("block_m", "block_n", "num_warps", "chunk_stages", "parts")),
    "conv3x3": Kernel((*_LOOP, "block_n", "tma")),
    "head": Kernel(_CHUNKS),
    "score": Kernel((*_LOOP, "block_n")),
    "stem": Kernel(_POINTWISE),
    "norm_conv1x1": Kernel(_LOOP),
    "norm_conv1x1_fp32": Kernel(_LOOP),
    "norm_conv3x3": Kernel(_LOOP),
    "max_pool": Kernel(_POINTWISE),
    "normalise": Kernel(_POINTWISE),
}


def read_table(path: Path) -> tuple[Entry, ...]:
    """The entries of one file; ValueError names the file and what is wrong with it."""
    try:
        rows = json.loads(path.read_text())
        return tuple(_entry(row) for row in rows)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is not a table of configurations: {error}; remove it or tune again") from error


def _entry(row: dict[str, Any]) -> Entry:
    return Entry(**{**row, "config": Config(**row["config"])})


def in_order(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Entries as a table holds them: of two that are as near to a call, it takes the first."""
    return tuple(sorted(entries, key=lambda e: (e.operator, e.channels, e.batch, e.pixels)))


def write_table(path: Path, entries: Iterable[Entry]) -> None:
    """Write entries so that a change of one is a change of one line."""
    path.write_text("[\n" + ",\n".join("  " + json.dumps(_row(entry)) for entry in in_order(entries)) + "\n]\n")


def _row(entry: Entry) -> dict[str, Any]:
    numbers = KERNELS[entry.operator].numbers
    return {**asdict(entry), "config": {name: getattr(entry.config, name) for name in numbers}}


def device_table_name(device_name: str) -> str:
    """File name of what was measured on a device: "NVIDIA H100 80GB HBM3" -> "nvidia-h100-80gb-hbm3.json"."""
    return re.sub(r"[^a-z0-9]+", "-", device_name.lower()).strip("-") + ".json"


def shipped_capability(capability: tuple[int, int]) -> tuple[int, int]:
    """The nearest capability below, of the same generation, that a table ships for; ValueError where there is none."""
    shipped = [divmod(int(path.stem.removeprefix("sm_")), 10) for path in TABLES.glob("sm_*.json")]
    older = [known for known in shipped if known[0] == capability[0] and known <= capability]
    if not older:
        names = ", ".join(f"{major}.{minor}" for major, minor in sorted(shipped))
        raise ValueError(
            f"no configurations for compute capability {capability[0]}.{capability[1]}; there are for {names}"
        )
    return max(older)


@lru_cache
def tables(capability: tuple[int, int], device_name: str) -> tuple[tuple[Entry, ...], ...]:
    """The tables of a device, the one that goes first first."""
    measured = TABLES / device_table_name(device_name)
    shipped = TABLES / "sm_{}{}.json".format(*shipped_capability(capability))
    return tuple(read_table(path) for path in (measured, shipped) if path.exists())


def choose(entries: tuple[Entry, ...], operator: str, channels: int, batch: int, pixels: int) -> Config | None:
    """The entry for the narrowest width that holds `channels`, nearest in all pixels and in those of an image.

    None without one.
    """
    fitting = [entry for entry in entries if entry.operator == operator and entry.channels >= channels]
    if not fitting:
        return None
    narrowest = min(entry.channels for entry in fitting)

    def distance(entry: Entry) -> float:
        image = abs(math.log(entry.pixels / pixels))
        return image + abs(math.log(entry.batch * entry.pixels / (batch * pixels)))

    return min((entry for entry in fitting if entry.channels == narrowest), key=distance).config


@dataclass(frozen=True)
class Question:
    """What a call asks the tables for."""

    operator: str
    channels: int
    batch: int
    pixels: int


@lru_cache
def _lookup(capability: tuple[int, int], device_name: str, question: Question) -> Config:
    for entries in tables(capability, device_name):
        config = choose(entries, *astuple(question))
        if config is not None:
            return config
    raise ValueError(
        f"{question.operator} has no configuration for {question.channels} channels on {device_name};"
        " the widest is 256 feats"
    )


Choice = Callable[[Question], Config | None]
_trial: ContextVar[tuple[Choice, list[Question]] | None] = ContextVar("trial", default=None)


@contextmanager
def trial(choice: Choice = lambda question: None) -> Iterator[list[Question]]:
    """Calls in the block run with what `choice` gives (None: the tables'); yields the questions that they asked."""
    questions: list[Question] = []
    token = _trial.set((choice, questions))
    try:
        yield questions
    finally:
        _trial.reset(token)


def lookup(operator: str, channels: int, batch: int, pixels: int, device: torch.device) -> Config:
    """The configuration of one call on a CUDA device; ValueError where none fits.

    On the CPU, where calls are recorded or interpreted, it is what ships for compute capability 9.0.
    """
    question, tried = Question(operator, channels, batch, pixels), _trial.get()
    if tried is not None:
        choice, questions = tried
        questions.append(question)
        config = choice(question)
        if config is not None:
            return config
    if device.type == "cpu":
        return _lookup((9, 0), "the CPU", question)
    return _lookup(torch.cuda.get_device_capability(device), torch.cuda.get_device_name(device), question)
