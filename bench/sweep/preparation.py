"""What is made before anything of a network is timed, in processes of their own, as many at once as there are cores.

Loading, converting and compiling a network takes far longer than timing it and mostly uses one core. So the paths of a
network prepare themselves side by side, up to the point where each holds; then they take their times in turns on a
quiet machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.measure.isolate import Isolated, Outcome
from bench.measure.jobs import LEFT_OUT, Job, run_jobs
from bench.measure.record import Cell
from bench.sweep.cells import measure_cell
from bench.sweep.loaders import PACKED_FILE
from bench.sweep.materials import CONVERTED, convert, make_reference
from bench.sweep.reduced import make_reduced_reference, make_scored_crops
from bench.sweep.settings import SAME_REDUCED, Settings


def first_jobs(cells: Sequence[Cell], settings: Settings) -> list[list[Job]]:
    """Weights and reference heatmaps of every variant, and what PCKh is compared on; each list needs the one before."""
    variants = list(dict.fromkeys(cell.variant for cell in cells if cell.mode == "infer"))
    reduced = [v for v in variants if settings.reduced(v) and not settings.trained(v)]
    of_their_own = list(dict.fromkeys(SAME_REDUCED.get(v, v) for v in reduced))
    crops = [Job("crops", make_scored_crops, (settings,))] if reduced else []
    references = [Job(f"reference {v}", make_reference, (settings, v)) for v in reversed(variants)]
    scores = [Job(f"reduced {v}", make_reduced_reference, (settings, v)) for v in of_their_own]
    return [crops, [*references, *scores]]


def jobs_of(cells: Sequence[Cell], settings: Settings) -> list[list[Job]]:
    """What the cells of one group take to be ready; each list needs the one before.

    Eager's first training step goes before the others', who compare theirs with it.
    """
    if cells[0].mode == "loader":
        pack = [Job("packed crops", pack_crops, (settings,))] if cells[0].path.endswith("packed") else []
        return [pack, [cell_job(cell, settings) for cell in cells]]
    eager = [cell for cell in cells if cell.path == "eager"]
    others = [cell for cell in cells if cell.path != "eager"]
    if cells[0].mode == "train":
        return [[cell_job(cell, settings) for cell in some] for some in (eager, others)]
    plain = [cell for cell in others if cell.path not in CONVERTED]
    converted = [cell for cell in others if cell.path in CONVERTED]
    conversion = [Job(f"convert {cells[0].variant}", convert, (settings, cells[0].variant))] if converted else []
    return [[*conversion, *(cell_job(cell, settings) for cell in (*eager, *plain, *converted))]]


def prepare(
    rounds: Sequence[Sequence[Job]], workers: int, logs: Path, limit_s: float, deadline: float
) -> tuple[dict[Cell, Isolated], dict[Cell, Outcome], list[str]]:
    """Run the jobs: the cells that hold, the outcomes of those that ended, and what went wrong with anything else."""
    held: dict[Cell, Isolated] = {}
    ended: dict[Cell, Outcome] = {}
    wrong: list[str] = []
    for jobs in rounds:
        for job, result in run_jobs(jobs, workers, logs, limit_s, deadline):
            if isinstance(result, Isolated):
                assert job.cell is not None
                held[job.cell] = result
            elif job.cell:
                ended[job.cell] = result
            elif not result.ok and result is not LEFT_OUT:
                wrong.append(f"preparing {job.name}: {result.reason}")
    return held, ended, wrong


def cell_job(cell: Cell, settings: Settings) -> Job:
    return Job(cell.name, measure_cell, (cell, settings), cell)


def pack_crops(settings: Settings) -> None:
    """Pack the training split's crops for the loaders that read them."""
    from training.pack import pack

    if not (settings.cache / PACKED_FILE).exists():
        pack(settings.data, settings.cache / PACKED_FILE, splits=("train",), threads=1, progress=False)
