"""What a run tells while it goes on: progress, `log.csv`, TensorBoard, and `curves.png` at the end.

Only the rank that leads writes. Everything but the progress is made from the history, a list with one dictionary an
epoch, so a resumed run rewrites it without gaps or doubles.
"""

from __future__ import annotations

import csv
import io
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from fasthg.console import note, progress_bar
from fasthg.data.dataset import Dataset
from fasthg.files import write_bytes, write_text
from fasthg.metrics.pck import MEANS, MPII_MEANS, Scores
from fasthg.pixels import geometry
from fasthg.pixels.draw import draw_poses
from fasthg.pixels.image import read_crop

CSV, CURVES, TENSORBOARD = "log.csv", "curves.png", "tensorboard"
_NOTE_SECONDS = 60.0  # between lines of progress where no terminal shows a bar


@dataclass
class EpochMeter:
    """Sums over the steps of an epoch; `seconds` and `wait_seconds` leave validation and saving out."""

    losses: float = 0.0
    steps: int = 0
    images: int = 0
    seconds: float = 0.0
    wait_seconds: float = 0.0

    @property
    def loss(self) -> float:
        return self.losses / max(1, self.steps)

    @property
    def images_per_s(self) -> float:
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def data_wait(self) -> float:
        """Share of the time that was spent waiting for the next batch."""
        return self.wait_seconds / self.seconds if self.seconds else 0.0


def score_columns(scores: Scores) -> dict[str, float]:
    """The measures of the data's protocol, such as PCKh, by every mean, as columns of the history."""
    columns = {
        f"{mean}_{name}": value for name, found in scores.measures.items() for mean, value in found.means.items()
    }
    return {**columns, "rmse_px": scores.rmse}


def measures_of(row: dict[str, Any]) -> list[str]:
    """The measures, the protocol's own first, of a row of the history: those that a data set is scored by."""
    first = means_in(row)[:1]
    return [name.removeprefix(f"{mean}_") for mean in first for name in row if name.startswith(f"{mean}_")]


def means_in(row: dict[str, Any]) -> list[str]:
    """The means that a row of the history holds: MPII's, those of any other skeleton, or none without validation."""
    return [mean for mean in (*MPII_MEANS, *MEANS) if any(name.startswith(f"{mean}_") for name in row)]


def draw_predictions(dataset: Dataset, predictions: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The first people of a dataset with their predicted joints [N,J,2] in image pixels; uint8 [S,4 S,3]."""
    crops = []
    for row in range(min(4, len(dataset))):
        image, matrix = read_crop(dataset.image_path(row), dataset.people.center[row], dataset.people.scale[row])
        crops.append(draw_poses(image, [geometry.apply(matrix, predictions[row])], dataset.people.skeleton))
    return np.hstack(crops)


@dataclass
class RunLog:
    """The user's view of a run.

    folder       where files go; None to write none
    total_steps  steps of the whole run
    """

    folder: Path | None
    total_steps: int
    start_step: int = 0
    show_progress: bool = True
    use_tensorboard: bool = True
    _bar: Progress | None = field(default=None, init=False)
    _writer: Any = field(default=None, init=False)
    _started: float = field(default_factory=time.monotonic, init=False)
    _noted: float = field(default_factory=time.monotonic, init=False)

    def __post_init__(self) -> None:
        if self.folder:
            import matplotlib  # noqa: F401  for the curves at the end, when it would be too late to say so
        if self.folder and self.use_tensorboard:
            import tensorboard  # noqa: F401
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.folder / TENSORBOARD), purge_step=self.start_step)
        if self.show_progress and sys.stderr.isatty():
            self._bar = progress_bar()
            self._task = self._bar.add_task("starting", total=self.total_steps, completed=self.start_step)
            self._bar.start()

    def step(self, step: int, epoch: int, loss: float, lr: float, meter: EpochMeter) -> None:
        """Tell about step number `step`, just done."""
        text = f"epoch {epoch + 1}  loss {loss:.3e}  {meter.images_per_s:.1f} images/s  data wait {meter.data_wait:.0%}"
        if self._bar:
            self._bar.update(self._task, completed=step, description=text)
        elif self.show_progress and meter.seconds and time.monotonic() - self._noted > _NOTE_SECONDS:
            self._noted = time.monotonic()
            minutes_a_step = (self._noted - self._started) / (step - self.start_step) / 60
            eta = minutes_a_step * (self.total_steps - step)
            note(f"step {step} of {self.total_steps}  {text}  ETA {eta:.0f} min")
        if self._writer:
            values = {"loss": loss, "lr": lr, "images_per_s": meter.images_per_s, "data_wait": meter.data_wait}
            for name, value in values.items():
                self._writer.add_scalar(f"train/{name}", value, step)

    def epoch(self, history: Sequence[dict[str, Any]], picture: NDArray[np.uint8] | None) -> None:
        """Tell about the epoch that ended last; `picture` uint8 [H,W,3] shows predictions."""
        row = history[-1]
        means = means_in(row)
        scores = {name: value for name, value in row.items() if name.startswith((*means, "rmse_px"))} if means else {}
        if self.show_progress:
            measure = next(iter(measures_of(row)), "")
            shown = "  ".join(f"{name} {row[f'{name}_{measure}']:.2f}" for name in means)
            shown += f"  RMSE {row['rmse_px']:.2f} px" if scores else ""
            note(
                f"epoch {row['epoch']}  step {row['step']}  loss {row['loss']:.3e}  {row['images_per_s']:.1f} images/s"
                f"  data wait {row['data_wait']:.0%}  {shown and f'{measure} {shown}'}".rstrip()
            )
        if self.folder:
            write_csv(self.folder / CSV, history)
        if self._writer:
            for name, value in scores.items():
                self._writer.add_scalar(f"validation/{name}", value, row["step"])
            if picture is not None:
                self._writer.add_image("validation/predictions", picture, row["step"], dataformats="HWC")
            self._writer.flush()

    def close(self, history: Sequence[dict[str, Any]]) -> None:
        """End the bar and the writer, and draw the curves."""
        if self._bar:
            self._bar.stop()
        if self._writer:
            self._writer.close()
        if self.folder and history:
            draw_curves(self.folder / CURVES, history)


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows as a table; a row that lacks a column, as an epoch without validation does, leaves it empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()})
    write_text(path, text.getvalue())


def draw_curves(path: Path, history: Sequence[dict[str, Any]]) -> None:
    """Draw loss, learning rate and PCKh over the epochs as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), layout="constrained")
    loss, rate, pckh = figure.subplots(1, 3)
    epochs = [row["epoch"] for row in history]
    loss.semilogy(epochs, [row["loss"] for row in history])
    rate.plot(epochs, [row["lr"] for row in history])
    scored = [row for row in history if measures_of(row)]
    for measure, style in zip(measures_of(scored[0]) if scored else (), ("-", "--")):
        for protocol, colour in zip(means_in(scored[0]), ("C0", "C1", "C2")):
            values = [row[f"{protocol}_{measure}"] for row in scored]
            pckh.plot([row["epoch"] for row in scored], values, style, color=colour, label=f"{protocol} {measure}")
    if scored:
        pckh.legend()
    for axes, title in ((loss, "training loss"), (rate, "learning rate"), (pckh, "joints found on validation, %")):
        axes.set(title=title, xlabel="epoch")
        axes.grid(alpha=0.3)
    png = io.BytesIO()  # drawn before a file is begun: a launcher that ends its processes would leave an empty one
    figure.savefig(png, dpi=100, format="png")
    write_bytes(path, png.getvalue())
