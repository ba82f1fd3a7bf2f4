"""Everything that is made before the first timing, in processes of their own, as many at once as there are cores.

Converting and compiling deep networks takes far longer than timing them, and uses one core. So it is done for all cells
beforehand, side by side: conversions into a shared cache, and cells that are slow to start up to the point where they
hold until it is their turn. Then the cells take their times one after the other on a quiet machine.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.measure.jobs import Job
from bench.measure.record import Cell
from bench.sweep.cells import measure_cell
from bench.sweep.loaders import PACKED_FILE
from bench.sweep.materials import CONVERTED, convert, make_reference
from bench.sweep.settings import Settings
from bench.sweep.short_training import reduced_name, short_training
from fasthg.network.variants import get_config

COMPILED = ("compile", "tensorrt", "torch_tensorrt")  # paths that take long to start
COMPILE_COST, CONVERT_COST, LOAD_COST = 3.0, 0.5, 0.2  # for each convolution of a network
TRAINING_COST = 400.0  # of a short training, in the same unit


def rounds(cells: Sequence[Cell], settings: Settings) -> list[list[Job]]:
    """All jobs, in rounds that each need the one before."""
    return [
        sorted(jobs, key=lambda job: -job.cost)
        for jobs in (first_jobs(cells, settings), slow_jobs(cells, settings), load_jobs(cells, settings))
    ]


def first_jobs(cells: Sequence[Cell], settings: Settings) -> list[Job]:
    """Weights and reference heatmaps of every variant, and the packed crops."""
    jobs = [
        Job(f"reference {variant}", make_reference, (settings, variant), reference_cost(settings, variant))
        for variant in variants_of(cells, "infer")
    ]
    if any(cell.path.endswith("packed") for cell in cells if cell.mode == "loader"):
        jobs.append(Job("packed crops", pack_crops, (settings,), 1000.0))
    return jobs


def slow_jobs(cells: Sequence[Cell], settings: Settings) -> list[Job]:
    """Conversions, cells that compile or calibrate, and the short trainings."""
    infer = [cell for cell in cells if cell.mode == "infer"]
    converted = dict.fromkeys(cell.variant for cell in infer if cell.path in CONVERTED)
    jobs = [
        Job(f"convert {variant}", convert, (settings, variant), CONVERT_COST * size_of(variant))
        for variant in converted
    ]
    jobs += [cell_job(cell, settings, COMPILE_COST) for cell in infer if starts_slowly(cell)]
    if settings.short_training:
        paths = tuple(dict.fromkeys((cell.path, cell.precision) for cell in infer if cell.path not in COMPILED))
        reduced = {reduced_name(v): v for v in variants_of(cells, "infer") if not settings.trained(v)}
        jobs += [
            Job(f"train {name}", short_training, (settings, variant, paths), TRAINING_COST)
            for name, variant in reduced.items()
        ]
    return jobs


def load_jobs(cells: Sequence[Cell], settings: Settings) -> list[Job]:
    """Cells that load a converted network."""
    return [
        cell_job(cell, settings, LOAD_COST)
        for cell in cells
        if cell.mode == "infer" and cell.path in CONVERTED and not starts_slowly(cell)
    ]


def starts_slowly(cell: Cell) -> bool:
    """Whether a cell compiles, or calibrates for int8."""
    return cell.path in COMPILED or cell.precision == "int8"


def cell_job(cell: Cell, settings: Settings, cost: float) -> Job:
    return Job(cell.name, measure_cell, (cell, settings), cost * size_of(cell.variant), cell)


def pack_crops(settings: Settings) -> None:
    """Pack the training split's crops for the loaders that read them."""
    from training.pack import pack

    if not (settings.cache / PACKED_FILE).exists():
        pack(settings.data, settings.cache / PACKED_FILE, splits=("train",), threads=1, progress=False)


def variants_of(cells: Sequence[Cell], mode: str) -> list[str]:
    """The variants that some cell of a mode has, in their order."""
    return list(dict.fromkeys(cell.variant for cell in cells if cell.mode == mode))


def reference_cost(settings: Settings, variant: str) -> float:
    """One answer, and as many as PCKh takes where the weights are trained."""
    return size_of(variant) * (settings.views if settings.trained(variant) else 1)


def size_of(variant: str) -> float:
    """Convolutions of a variant, roughly: what an exporter or a compiler has to walk through."""
    config = get_config(variant)
    locations = sum(3 * depth + 2 for depth in config.stack_depths)
    return float(locations * config.num_blocks * config.num_convs)
