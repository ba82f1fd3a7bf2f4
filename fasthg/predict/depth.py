"""How many stacks of a network run: a number, as many as a budget allows, or until two of them agree.

Each stack of an hourglass network is trained to answer, so its first stacks are a network of their own, less exact and
sooner done.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor

from fasthg.errors import FasthgError
from fasthg.files import default_cache_dir, make_folder, write_json
from fasthg.network.model import HourglassNet, Stack
from fasthg.network.stacks import first_stacks
from fasthg.pixels.heatmap import decode
from fasthg.runtimes.measured import device_model
from fasthg.runtimes.paths import parse_path, prepare
from fasthg.runtimes.pytorch import placed
from fasthg.runtimes.request import Mode, Prepared, device_name, resolve_device
from fasthg.version import __version__

_REPEAT_S = 0.5  # seconds of timed repeats, of which there are at least
_REPEATS = 5
_BY_STACK = ("eager", "channels_last")  # paths that can stop between two stacks


@dataclass(frozen=True)
class Depth:
    """How many stacks run; all of them where nothing is said.

    stacks      the first so many
    budget_ms   the most that fit into so many milliseconds a person, as measured on this machine
    early_exit  stop for a person once no joint moves further than this from one stack to the next, heatmap pixels
    """

    stacks: int | None = None
    budget_ms: float | None = None
    early_exit: float | None = None

    def __post_init__(self) -> None:
        given = [name for name, value in asdict(self).items() if value is not None]
        if len(given) > 1:
            raise FasthgError(f"{' and '.join(given)} both given; give one of them")
        if self.budget_ms is not None and not self.budget_ms > 0:
            raise FasthgError(f"budget is {self.budget_ms:g} ms; give more than 0")
        if self.early_exit is not None and not self.early_exit >= 0:
            raise FasthgError(f"early exit is {self.early_exit}; give 0 or more heatmap pixels")


WHOLE = Depth()


def parse_budget(text: str) -> float:
    """Milliseconds of "40ms", "0.04s" or "40"; raises FasthgError for anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|)\s*", text)
    if not match or not float(match[1]):
        raise FasthgError(f"budget {text!r} is no time; give milliseconds a person, such as 40ms")
    return float(match[1]) * (1000 if match[2] == "s" else 1)


def cut(
    model: HourglassNet,
    depth: Depth,
    path: str,
    example: Tensor,
    device: str | torch.device = "auto",
    threads: int | None = None,
    mode: Mode = "latency",
) -> tuple[HourglassNet, str]:
    """The part of a network that `depth` says, and what was chosen in words, empty where there was nothing to choose.

    Raises FasthgError for more stacks than there are, and for a budget that not even the first one fits into.
    """
    total = model.config.num_stacks
    if depth.stacks is not None:
        return first_stacks(model, depth.stacks), f"the first {depth.stacks} of {total} stacks"
    if depth.budget_ms is None:
        return model, ""

    @cache
    def took(count: int) -> float:
        return remembered_ms(first_stacks(model, count), path, example, device, threads, mode)

    below, above = (total, total + 1) if took(total) <= depth.budget_ms else (0, total)
    while above - below > 1:  # more stacks take longer, so halving finds the deepest that fits
        middle = (below + above) // 2
        below, above = (middle, above) if took(middle) <= depth.budget_ms else (below, middle)
    if not below:
        raise FasthgError(
            f"budget {depth.budget_ms:g} ms: the first stack alone takes {took(1):.3g} ms a person by {path} here; give"
            " more time, another path or a smaller network"
        )
    chosen = f"{below} of {total} stacks take {took(below):.3g} ms a person here, budget {depth.budget_ms:g} ms"
    return first_stacks(model, below), chosen


def remembered_ms(
    model: HourglassNet, path: str, example: Tensor, device: str | torch.device, threads: int | None, mode: Mode
) -> float:
    """`measured_ms`, measured once for a machine and kept in the cache where there is one."""
    target = resolve_device(device)
    conditions = {
        "config": asdict(model.config),
        "path": path,
        "shape": list(example.shape),
        "device": device_model(str(target)),
        "threads": 0 if target.type == "cuda" else threads or torch.get_num_threads(),
        "mode": mode,
        "versions": [__version__, torch.__version__],
    }
    key = hashlib.sha256(json.dumps(conditions, sort_keys=True).encode()).hexdigest()[:16]
    folder = default_cache_dir()
    if folder is None:
        return measured_ms(prepare(model, path, example, device=device, threads=threads, mode=mode), example)
    file = make_folder(folder) / "depth.json"
    if (known := _read(file).get(key)) is not None:
        return known
    took = measured_ms(prepare(model, path, example, device=device, threads=threads, mode=mode), example)
    with FileLock(f"{file}.lock"):
        write_json(file, _read(file) | {key: took})
    return took


def _read(file: Path) -> dict[str, float]:
    """What was measured; nothing where the file is missing or damaged."""
    try:
        content = json.loads(file.read_text())
        return {str(key): float(value) for key, value in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def measured_ms(runner: Callable[[Tensor], Tensor], example: Tensor) -> float:
    """Median milliseconds for one of the images of `example`, of a runner that has answered before."""
    times: list[float] = []
    while len(times) < _REPEATS or sum(times) < _REPEAT_S:
        start = time.perf_counter()
        if runner(example).is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times) / len(example)


@dataclass
class EarlyExit:
    """Images float32 [N, 3, H, W] -> heatmaps of the stack at which each person's joints have come to rest.

    A person leaves after the first stack whose joints lie within `tolerance` heatmap pixels of those of the stack
    before, all of them; the rest goes on. `exits` counts the people that left after each stack; an image that repeats
    the one before it fills up a batch, and does not count.
    """

    model: HourglassNet
    tolerance: float
    device: torch.device
    layout: torch.memory_format
    exits: Counter[int] = field(default_factory=Counter)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        trunk = self.model.stem(images.to(self.device, torch.float32, memory_format=self.layout))
        rows = torch.arange(len(images), device=self.device)
        counted = torch.ones(len(images), dtype=torch.bool, device=self.device)
        counted[1:] = (images[1:] != images[:-1]).flatten(1).any(dim=1)
        answers, before = trunk.new_empty(0), trunk.new_empty(0)
        for number, stack in enumerate(self.model.stacks, start=1):
            assert isinstance(stack, Stack)
            trunk, heatmaps = stack(trunk)
            points, _scores = decode(heatmaps)
            if number == 1:
                answers = torch.empty_like(heatmaps)
                rested = torch.zeros(len(rows), dtype=torch.bool, device=self.device)
            else:
                rested = (points - before).norm(dim=-1).amax(dim=-1) <= self.tolerance
            if number == len(self.model.stacks):
                rested = torch.ones_like(rested)
            answers[rows[rested]] = heatmaps[rested]
            if leaving := int(counted[rows[rested]].sum()):
                self.exits[number] += leaving
            rows, trunk, before = rows[~rested], trunk[~rested], points[~rested]
            if not len(rows):
                break
        return answers


def leave_early(
    model: HourglassNet,
    tolerance: float,
    path: str,
    example: Tensor,
    device: str | torch.device = "auto",
    threads: int | None = None,
) -> Prepared:
    """A network that stops for each person where `EarlyExit` says; `run` of what is returned counts the exits.

    Raises FasthgError for a path that runs all stacks in one go.
    """
    name, _precision = parse_path(path)
    if name not in _BY_STACK:
        raise FasthgError(f"early exit stops between stacks, which {name} cannot; give --path {' or '.join(_BY_STACK)}")
    target = resolve_device(device)
    if target.type == "cpu" and threads:
        torch.set_num_threads(threads)
    layout = torch.contiguous_format if name == "eager" else torch.channels_last
    run = EarlyExit(placed(copy.deepcopy(model).eval(), target, layout), tolerance, target, layout)
    run(example)
    run.exits.clear()
    return Prepared(run, name, device_name(target), "fp32", {"torch": torch.__version__})
