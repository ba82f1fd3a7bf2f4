"""`python -m bench.gpu.faults`: plant faults one at a time, and show which check catches each.

A fault is a change of one file's text, made while that is imported in a forked process: nothing on the disk changes.
The checks are those of `bench.gpu.checks`, on networks small enough for Triton's interpreter. Ends with exit code 3
where a fault is not caught, or where a check fails without one; the table goes to FAULTS.md beside this file.
"""

from __future__ import annotations

import importlib.machinery
import linecache
import multiprocessing
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from fasthg.console import make_app, note, run_app
from fasthg.errors import ParityError
from fasthg.files import write_text


@dataclass(frozen=True)
class Fault:
    """What is wrong, and the text that makes it so: in `path`, `right` becomes `wrong` wherever it stands."""

    what: str
    path: str
    right: str
    wrong: str


TABLE = Path(__file__).with_name("FAULTS.md")
_TILES, _BLOCK, _HEAD = "kernels/triton/tiles.py", "kernels/triton/bottleneck.py", "kernels/triton/head.py"
_STATISTICS, _PLAN, _NET = "kernels/triton/statistics.py", "fasthg/fused/plan.py", "fasthg/fused/net.py"
FAULTS = (
    Fault("a tap shifted", _TILES, "+ tap % 3 - 1\n        a = tl.load", "+ tap % 3\n        a = tl.load"),
    Fault("a tap shifted, TMA", _TILES, "+ tap % 3 - 1, chunk", "+ tap % 3, chunk"),
    Fault("a bias left out", _BLOCK, "+ tl.load(expand_bias_ptr + columns)[None, :]", ""),
    Fault("a dropped residual", _TILES, "y += load_tile(x_ptr, rows, columns, CO)", "y += 0.0"),
    Fault("a skip cut by BLOCK_K", _TILES, "range(0, CI // SK,", "range(0, CI // 64 * 64 // SK,"),
    Fault("a wrong pool window", _TILES, "* 2 + index // 2 % 2", "* 2 + index % 2"),
    Fault("a pool a column off", "kernels/triton/pointwise.py", "rows += width + 1", "rows += width"),
    Fault("the lower branch transposed", _BLOCK, "grid_rows(n, h // 2, w // 2,", "grid_rows(n, w // 2, h // 2,"),
    Fault("a border written", _BLOCK, "y = tl.where(inside[:, None], y, 0.0).to(x_out", "y = y.to(x_out"),
    Fault(
        "swapped next and pool readers",
        "kernels/triton/launch.py",
        'reader_pointers("next", out.next) | reader_pointers("pool", out.pool)',
        'reader_pointers("next", out.pool or out.next) | reader_pointers("pool", out.next and out.pool and out.next)',
    ),
    Fault("too few programs", _BLOCK, "tiles(grid.pixel_count, config.block_m)", "tiles(grid.pixel_count, 2 * 64)"),
    Fault("output channels left out", "kernels/triton/conv3x3.py", "feats // bn)", "max(1, feats // bn - 1))"),
    Fault("a reader's channels twice for others", _TILES, "return part * (C // PARTS) +", "return 0 * part +"),
    Fault("channels that no program writes", _TILES, "(columns // (C // PARTS) == part)", "(columns < 0)"),
    Fault("columns of the first program by each", _BLOCK, "first = part * (CO // PARTS)", "first = 0 * part"),
    Fault("stale partial statistics", _STATISTICS, "mask=entry < tiles", "mask=(entry < tiles) & (i == 0)"),
    Fault("a miscounted tile", _STATISTICS, "tl.sum(exists.to(tl.float32), axis=0) * C", "1.0 * BM * C"),
    Fault(
        "variance between tiles left out",
        _STATISTICS,
        "        squares += tl.load(entry, mask=there, other=0.0) * distance * distance\n",
        "",
    ),
    Fault("a border normalised", "kernels/triton/norm_conv.py", "a = tl.where(inside[:, None], a, 0.0)", "a = a"),
    Fault("the stem a column off", "kernels/triton/stem.py", "[None, :] - 3", "[None, :] - 2"),
    Fault(
        "rounded features in the last head",
        _HEAD,
        "scores = dot(features,",
        "scores = dot(features.to(y_ptr.dtype.element_ty),",
    ),
    Fault("the last head in halves", "fasthg/fused/weights.py", "exact=stack.merge_features is None", "exact=False"),
    Fault(
        "a reader's bias of another layer", "fasthg/fused/schemes.py", "reader.convs[0].bias", "reader.convs[1].bias"
    ),
    Fault("a missing wait for the side stream", _PLAN, 'self._join and self._stream == "main"', "False"),
    Fault("a missing wait for the main stream", _PLAN, 'self._fork and self._stream == "side", ', "False, "),
    Fault("a buffer given away a step early", _PLAN, "last_use[b] == index]", "last_use[b] == index + 1]"),
    Fault(
        "a buffer given away before the join",
        _PLAN,
        'if step.stream == "side":\n                done',
        "if False:\n                done",
    ),
    Fault(
        "a buffer given away before the join, in the second half",
        _PLAN,
        'if step.stream == "side":\n                done',
        'if step.stream == "side" and index < len(self.steps) // 2:\n                done',
    ),
    Fault("an overflow looked for before it is there", _NET, "step.run()\n", "self._streams.launch(step)\n"),
    Fault(
        "a configuration of tiles that buffers have no room for",
        "kernels/triton/ship.py",
        "for size in (128, 64, 32, 16):",
        "for size in (128, 64, 32, 16, 8):",
    ),
)


def plant(fault: Fault) -> None:
    """Have this process import the fault's file with the fault in it."""
    importer: Any = importlib.machinery.SourceFileLoader
    unchanged = importer.get_code

    def get_code(loader: Any, name: str) -> Any:
        if not loader.path.endswith(fault.path):
            return unchanged(loader, name)
        source = loader.get_data(loader.path).decode()
        if fault.right not in source:
            raise LookupError(f"{fault.path} does not hold {fault.right!r}")
        source = source.replace(fault.right, fault.wrong)
        # Triton reads its kernels' source again.
        linecache.cache[loader.path] = len(source), None, source.splitlines(keepends=True), loader.path
        return compile(source, loader.path, "exec")

    importer.get_code = get_code


def networks() -> list[tuple[Any, Any]]:
    """Models and images that together have every operator."""
    import torch

    from bench.gpu.checks import lively
    from fasthg.network.variants import HourglassConfig

    # The first network's third block projects 32 channels to 64: fewer than the 64 of one product.
    batch = HourglassConfig(num_stacks=2, num_feats=32, depths=1, num_convs=4, stem_feats=(16, 16))
    layer = HourglassConfig(num_stacks=1, num_feats=16, depths=1, norm="layer", stem_feats=(16, 16))
    brighter = torch.linspace(-2, 2, 32)[:, None]  # row by row, so that the means of tiles differ
    return [(lively(config), torch.rand(1, 3, 32, 32) - 0.4 + brighter) for config in (batch, layer)]


def plan_and_order() -> str | None:
    """Plans for a side stream, by plain PyTorch in float64: right with that late, steps in order, the head exact."""
    import torch

    from bench.gpu import checks
    from fasthg.fused.net import FusedNet
    from fasthg.fused.streams import InOrder

    for model, images in networks():
        exact, shape = FusedNet(model, images.double(), torch.float64, InOrder(beside=True)), tuple(images.shape)
        if checks.unordered(exact.steps(shape)) or checks.unordered(checks.crossing_plan().steps):
            return "order of steps"
        found = checks.run_poisoned(exact, images.double(), late=True)
        if not checks.relative_error(found, checks.expected_heatmaps(model, images)) < 1e-12:
            return "plan by plain PyTorch"
        last = [
            step for step in FusedNet(model, images, torch.float16, InOrder()).steps(shape) if step.name == "stacks.1"
        ]
        weights = [tensor.dtype for step in last for tensor in step.tensors()[1:4:2]]
        if any(dtype != torch.float32 for dtype in weights):
            return "the last head's dtype"
    return None if checks.finds_a_late_overflow() else "late overflow"


def tables() -> str | None:
    """What is tried for the tables fits the kernels' buffers."""
    from fasthg.kernels.triton.ship import candidates
    from fasthg.kernels.tuning import KERNELS

    for operator, kernel in KERNELS.items():
        if any(kernel.problem(config) for config in candidates(operator, 128, 90, 64, 64)):
            return "tables"
    return None


def kernels() -> str | None:
    """Each operator's kernel by the GPU run's oracle, over poisoned memory; then the heatmaps."""
    import torch

    from bench.gpu import checks
    from fasthg.fused.net import FusedNet
    from fasthg.fused.streams import InOrder
    from fasthg.kernels.ops.dispatch import by_triton
    from fasthg.kernels.tuning import KERNELS, Choice, Config, trial

    def cut(config: Config) -> Choice:
        return lambda question: KERNELS[question.operator].only(config)

    ways = [cut(Config(64, 64, 16)), cut(Config(64, 16, 16, tma=True)), cut(Config(64, 16, 16, parts=2))]
    for model, images in networks():
        network = FusedNet(model, images, torch.float16, InOrder(beside=True))
        with by_triton(), trial(ways[0]):
            for call, error in checks.check_calls(network, images, ways):
                if not error <= call.tolerance:
                    return f"oracle: {call.operator}"
        found = network.heatmaps(tuple(images.shape))
        if not checks.relative_error(found, checks.expected_heatmaps(model, images)) < 5e-3:
            return "heatmaps by the kernels"
    return None


CHECKS: tuple[Callable[[], str | None], ...] = (tables, plan_and_order, kernels)


def first_catch(fault: Fault | None, answer: Any) -> None:
    """Run the checks with the fault in place, and send what caught it: a finding, or an error it stumbled on."""
    if fault is not None:
        plant(fault)
    for check in CHECKS:
        try:
            found = check()
        except Exception as error:
            found = f"{check.__name__}: {type(error).__name__}"
        if found is not None:
            answer.send(found)
            return
    answer.send(None)


def caught(fault: Fault | None) -> tuple[str | None, float]:
    """What caught the fault, in a process of its own, and after how many processor seconds."""
    context, before = multiprocessing.get_context("fork"), os.times()
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=first_catch, args=(fault, sender))
    process.start()
    sender.close()
    found = receiver.recv()
    process.join()
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return found, spent


def faults(
    out: Annotated[Path, typer.Option(help="The table, in Markdown.")] = TABLE,
) -> None:
    """Plant each fault, and show what catches it."""
    os.environ["TRITON_INTERPRET"] = "1"
    import torch._dynamo  # noqa: F401
    import triton  # noqa: F401  here once, for every process

    rows, missed = [], []
    for fault in (None, *FAULTS):
        found, seconds = caught(fault)
        what = "none planted" if fault is None else fault.what
        if (found is None) == (fault is not None):
            missed.append(what)
        rows.append((what, found or "nothing", seconds))
        note(f"{what}: {found or 'nothing'}, {seconds:.1f} s")
    write_text(out, page(rows))
    if missed:
        raise ParityError(f"faults: not as it should be: {', '.join(missed)}; see {out}")


def page(rows: Sequence[tuple[str, str, float]]) -> str:
    """What was planted, what caught it and after how many processor seconds, in Markdown."""
    total = sum(seconds for _, _, seconds in rows)
    lines = [
        "# Seeded faults of the fused network",
        "",
        "Written by `python -m bench.gpu.faults`: each fault planted alone, and the first check that finds it.",
        f"In all {total:.0f} processor seconds, on {platform.processor() or platform.machine()}.",
        "",
        "| fault | found by | seconds |",
        "| --- | --- | ---: |",
        *(f"| {what} | {found} | {seconds:.1f} |" for what, found, seconds in rows),
    ]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    app = make_app()
    app.command()(faults)
    return run_app(app, argv, prog="python -m bench.gpu.faults")


if __name__ == "__main__":
    sys.exit(main())
