"""Which tile each kernel runs with: tables of configurations by device, operator and shape.

Tables are read at run time; nothing is searched for in a user's first call.

`kernels/tuned/sm_90.json` holds what ships for a compute capability: configurations that compile without spills and
within the chip's shared memory. `kernels/tuned/nvidia-h100-80gb-hbm3.json`, where there is one, holds what was
measured on a device of that name by `python -m bench.gpu.tune`, and goes first. A table is a list of entries:

    {"operator": "bottleneck", "channels": 128, "pixels": null, "config": {"block_m": 128, ...}}

`channels` is the width that the kernel keeps in registers (of the 3x3, or the head's); an entry serves narrower ones
too. `pixels` is batch x height x width where the entry was measured, null for any.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import torch

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
    slab           with tma: bands of 4 rows by 64 pixels, where the images divide into them (kernels/triton/slab.py)
    """

    block_m: int
    block_k: int = 64
    block_n: int = 64
    num_warps: int = 4
    num_stages: int = 3
    chunk_stages: int = 2
    tma: bool = False
    slab: bool = False


@dataclass(frozen=True)
class Entry:
    """A configuration and the calls that it is for."""

    operator: str
    channels: int
    pixels: int | None
    config: Config


def read_table(path: Path) -> tuple[Entry, ...]:
    """The entries of one file; ValueError names the file and what is wrong with it."""
    try:
        rows = json.loads(path.read_text())
        return tuple(Entry(**{**row, "config": Config(**row["config"])}) for row in rows)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is not a table of configurations: {error}; remove it or tune again") from error


def write_table(path: Path, entries: list[Entry]) -> None:
    """Write entries so that a change of one is a change of one line."""
    ordered = sorted(entries, key=lambda e: (e.operator, e.channels, e.pixels is not None, e.pixels or 0))
    path.write_text("[\n" + ",\n".join("  " + json.dumps(asdict(entry)) for entry in ordered) + "\n]\n")


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


def choose(entries: tuple[Entry, ...], operator: str, channels: int, pixels: int) -> Config | None:
    """The entry for the narrowest width that holds `channels`, measured nearest to `pixels`; None without one."""
    fitting = [entry for entry in entries if entry.operator == operator and entry.channels >= channels]
    if not fitting:
        return None
    narrowest = min(entry.channels for entry in fitting)

    def distance(entry: Entry) -> float:
        return math.inf if entry.pixels is None else abs(math.log(entry.pixels / pixels))

    return min((entry for entry in fitting if entry.channels == narrowest), key=distance).config


@lru_cache
def _lookup(capability: tuple[int, int], device_name: str, operator: str, channels: int, pixels: int) -> Config:
    for entries in tables(capability, device_name):
        config = choose(entries, operator, channels, pixels)
        if config is not None:
            return config
    raise ValueError(
        f"{operator} has no configuration for {channels} channels on {device_name}; the widest is 256 feats"
    )


@dataclass(frozen=True)
class Question:
    """What a call asks the tables for."""

    operator: str
    channels: int
    pixels: int


_trial: ContextVar[tuple[Config | None, list[Question]] | None] = ContextVar("trial", default=None)


@contextmanager
def trial(config: Config | None = None) -> Iterator[list[Question]]:
    """Every call in the block runs with `config` (None: the tables'); yields the questions that the calls asked."""
    questions: list[Question] = []
    token = _trial.set((config, questions))
    try:
        yield questions
    finally:
        _trial.reset(token)


def lookup(operator: str, channels: int, pixels: int, device: torch.device) -> Config:
    """The configuration of one call on a CUDA device; ValueError where none fits."""
    tried = _trial.get()
    if tried is not None:
        config, questions = tried
        questions.append(Question(operator, channels, pixels))
        if config is not None:
            return config
    return _lookup(
        torch.cuda.get_device_capability(device), torch.cuda.get_device_name(device), operator, channels, pixels
    )
