"""The published study's own figures, which stand beside ours in every report.

MPII at 256x256, 50 epochs at batch 20 (`SHORT_RUNS`), and up to 220 epochs (`LONG_RUNS`). An epoch is the 22,246 people
of training; inference is the 2,958 of validation. PCKh@0.5 leaves pelvis and thorax out. The study does not say what
hardware it ran on, so its minutes are for comparing its rows with each other.
"""

from __future__ import annotations

from dataclasses import dataclass

TRAIN_PEOPLE = 22_246
VALIDATION_PEOPLE = 2_958
PARTS = ("head", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")


@dataclass(frozen=True)
class StudyRun:
    """One row of the study: minutes for an epoch and for validation, PCKh@0.5 in percent for each pair of joints."""

    label: str
    variant: str
    batch_size: int
    epoch_minutes: float
    pckh: float
    validation_minutes: float
    parts: tuple[float, ...]


def _run(label: str, variant: str, batch: int, epoch: float, pckh: float, validation: float, parts: str) -> StudyRun:
    return StudyRun(label, variant, batch, epoch, pckh, validation, tuple(float(part) for part in parts.split()))


SHORT_RUNS = (
    _run("1", "original", 20, 18.0, 83.18, 1.2, "93.89 92.05 85.04 79.66 81.27 77.27 74.92"),
    _run("2", "feats64", 20, 14.3, 80.48, 1.03, "93.62 90.66 82.09 75.95 77.06 73.83 69.04"),
    _run("3", "stacks6", 20, 14.4, 83.13, 1.05, "93.93 91.86 84.73 79.46 81.79 76.53 72.22"),
    _run("4", "stacks6-feats64-blocks4", 20, 14.3, 80.73, 1.08, "93.32 90.83 82.44 75.66 79.52 73.38 68.42"),
    _run("5", "feats64-layernorm", 20, 14.7, 78.83, 1.1, "92.70 89.83 81.42 74.10 75.42 70.84 65.64"),
    _run("6", "feats64-deepening", 20, 14.3, 80.68, 1.1, "93.76 90.69 82.34 76.01 78.81 73.95 67.62"),
    _run("7", "feats64-shallowing", 20, 14.8, 81.47, 1.15, "93.79 90.69 83.13 75.38 80.56 75.80 69.49"),
    _run("8", "convs4", 20, 14.6, 84.23, 1.06, "93.55 92.88 85.96 80.16 83.09 78.52 72.69"),
)

LONG_RUNS = (
    _run("A", "original", 6, 18.0, 86.7, 1.2, "95.63 94.17 88.36 83.57 84.92 82.14 77.49"),
    _run("B", "original", 20, 14.8, 86.4, 1.1, "94.98 93.35 87.68 82.37 84.44 81.97 78.64"),
    _run("C", "stacks6", 20, 14.4, 85.8, 1.08, "94.95 93.16 87.17 82.35 83.99 80.46 77.47"),
    _run("D", "convs4", 20, 14.6, 86.38, 1.06, "95.02 93.41 87.76 82.51 84.63 82.05 77.21"),
)

BY_VARIANT = {run.variant: run for run in SHORT_RUNS}


def epoch_minutes(images_per_second: float) -> float:
    """Minutes that one epoch of MPII's 22,246 people would take at this rate; an extrapolation."""
    return TRAIN_PEOPLE / images_per_second / 60


def validation_minutes(images_per_second: float) -> float:
    """Minutes that MPII's 2,958 people of validation would take at this rate; an extrapolation."""
    return VALIDATION_PEOPLE / images_per_second / 60
