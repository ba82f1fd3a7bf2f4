"""A training run: its epochs, what is measured after each, what is kept, and how an interrupted run goes on."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fasthg.console import note
from fasthg.data.dataset import Dataset, load_dataset
from fasthg.errors import FasthgError
from fasthg.files import is_same_file, make_folder
from fasthg.metrics.evaluate import EvalOptions, predict_dataset
from fasthg.metrics.pck import Scores, score_people
from fasthg.network.checkpoint import save
from fasthg.network.model import HourglassNet
from fasthg.runtimes.request import resolve_device
from training.data import load_validation, open_loader
from training.distributed import World, join_world
from training.learner import Learner
from training.loading.batches import Batch
from training.loading.loader import Loader
from training.loading.packed import pack_digest
from training.log import CSV, CURVES, EpochMeter, RunLog, draw_predictions, score_columns
from training.options import TrainOptions
from training.recipes import Recipe
from training.state import LAST, check_same_run, load_state, save_state
from training.teacher import make_teacher

BEST, LATEST = "best.safetensors", "last.safetensors"
_KEPT_LATER = ("pack", "dali", "validation", "flip_test")  # of a run's identity: not in that of an earlier release
_CHECK_STEPS = 20  # after which losses are read and clocks compared on a GPU, which has to be waited for


@dataclass
class TrainResult:
    """How a run ended.

    model         the network in evaluation mode, averaged where the recipe has an average
    steps         number of the last step
    images        people trained on in this call, all devices together
    seconds       time in the steps of this call; validation and saving left out
    wait_seconds  of it, waiting for data
    losses        of each step of this call
    history       a row an epoch, as in log.csv, from the run's first epoch on
    scores        of the last validation in this call
    """

    model: HourglassNet
    steps: int = 0
    images: int = 0
    seconds: float = 0.0
    wait_seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    scores: Scores | None = None


class Trainer:
    """One run; `run()` does it. Raises FasthgError for what a user can get wrong, before the first step if it can."""

    def __init__(self, options: TrainOptions) -> None:
        self.options = options
        self.world: World = join_world(resolve_device(options.device))
        self.dataset = load_dataset(options.data, "train", reading=options.reading)
        self.recipe = replace(options.recipe, skeleton=self.dataset.people.skeleton)
        if self.world.leads and self.dataset.summary and options.progress:
            note(self.dataset.summary)
        self.validation = load_validation(options, self.dataset) if options.validate_every else None
        self.loader: Loader = open_loader(options, self.dataset, self.world)
        self.total_steps = self.recipe.epochs * len(self.loader)
        self.teacher = make_teacher(options, self.recipe, self.dataset.people)
        self.learner = Learner(
            self.recipe, self.total_steps, self.world, options.init_weights, options.start, self.teacher
        )
        if self.learner.matched and self.world.leads and options.progress:
            note(str(self.learner.matched))
        self.step = 0
        self.meter = EpochMeter()
        self.identity = self._identity()
        self.history: list[dict[str, Any]] = []
        self.best, self.since_best = -math.inf, 0
        self._prepare_folder()
        self._unchecked: list[Tensor] = []
        self._check_steps = 1 if self.world.device.type == "cpu" else _CHECK_STEPS
        self._saved = time.monotonic()
        self.result = TrainResult(self.learner.evaluated, history=self.history, steps=self.step)

    def run(self) -> TrainResult:
        """Train to the end, or to the limit that the options set."""
        leads = self.world.leads
        log = RunLog(
            folder=self.options.out if leads else None,
            total_steps=self.total_steps,
            start_step=self.step,
            show_progress=self.options.progress and leads,
            use_tensorboard=self.options.tensorboard,
        )
        self._stop_at = min(self.total_steps, self.options.max_steps or self.total_steps)
        self._stop_early()
        self._started = self._saved = time.monotonic()
        try:
            while self.step < self._stop_at:
                self._run_epoch(log)
        finally:
            log.close(self.history)
        if self.step % len(self.loader):  # inside an epoch: what is handed out is one network, what was kept is not it
            self.learner.average_statistics()
        self.result.model = self.learner.evaluated.eval()
        return self.result

    def _run_epoch(self, log: RunLog) -> None:
        """From the present step to the end of its epoch, or to where the run stops."""
        epoch, start = divmod(self.step, len(self.loader))
        self.loader.set_epoch(epoch, start)
        for batch in self._timed_batches():
            self._unchecked.append(self.learner.learn(batch, self.step))
            self._count(batch, log)
            save = not self._unchecked and self._read_clock()
            if self.step == self._stop_at:
                break
            if save and self.step % len(self.loader):
                self._save()
        if self.step % len(self.loader) == 0:
            self._end_epoch(log)
        self._save()

    def _read_clock(self) -> bool:
        """Whether a checkpoint is due; sets where to stop once the time is over. All ranks go by the one that leads."""
        now, options = time.monotonic(), self.options
        over = bool(options.max_seconds) and now - self._started > options.max_seconds
        over, due = self.world.as_leader((over, now - self._saved >= options.checkpoint_seconds))
        if over:
            self._stop_at = self.step
        return due

    def _timed_batches(self) -> Iterator[Batch]:
        """The loader's batches; measures the wait for each, and the time until the next one is asked for."""
        batches = iter(self.loader)
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            waited = time.perf_counter() - asked
            if batch is None:
                return
            yield batch
            seconds = time.perf_counter() - asked
            for sums in (self.meter, self.result):
                sums.seconds += seconds
                sums.wait_seconds += waited

    def _count(self, batch: Batch, log: RunLog) -> None:
        """Take a step that is done into account."""
        self.step += 1
        images = len(batch.rows) * self.world.size
        self.meter.images += images
        self.result.images += images
        self.result.steps = self.step
        if len(self._unchecked) >= self._check_steps:
            losses = self._check_losses()
            epoch = (self.step - 1) // len(self.loader)
            log.step(self.step, epoch, losses[-1], self.learner.schedule(self.step - 1), self.meter)

    def _check_losses(self) -> list[float]:
        """Losses since the last check, means over the world; raises FasthgError at the first that is not finite."""
        if not self._unchecked:
            return []
        losses = self.world.mean(torch.stack(self._unchecked)).tolist()
        self._unchecked.clear()
        for step, loss in enumerate(losses, start=self.step - len(losses) + 1):
            if not math.isfinite(loss):
                raise self._diverged(f"the loss of step {step} is {loss}")
        self.meter.losses += sum(losses)
        self.meter.steps += len(losses)
        self.result.losses += losses
        return losses

    def _diverged(self, what: str) -> FasthgError:
        out = self.options.out
        kept = (
            f"the last good checkpoint is {out / LAST}" if out and (out / LAST).exists() else "no checkpoint was kept"
        )
        return FasthgError(f"training diverged: {what}; {kept}; give a smaller --lr, a --warmup or --clip-norm 1")

    def _end_epoch(self, log: RunLog) -> None:
        """Validate, keep the weights, and tell the user."""
        self._check_losses()
        if name := self.learner.not_finite():
            raise self._diverged(f"{name} is not finite after step {self.step}")
        epoch = self.step // len(self.loader)
        meter, self.meter = self.meter, EpochMeter()
        row: dict[str, Any] = {
            "epoch": epoch,
            "step": self.step,
            "lr": self.learner.schedule(self.step - 1),
            "loss": meter.loss,
            "images_per_s": meter.images_per_s,
            "data_wait": meter.data_wait,
        }
        self.learner.average_statistics()
        picture = None
        if self.validation and (epoch % self.options.validate_every == 0 or self.step == self.total_steps):
            predictions = self._predict(self.validation)
            self.result.scores = score_people(predictions, self.validation.people, self.validation.protocol)
            row |= score_columns(self.result.scores)
            if self.options.tensorboard and self.options.out and self.world.leads:
                picture = draw_predictions(self.validation, predictions)
        self.history.append(row)
        better = self._is_better(row)
        if self.world.leads:
            self._save_weights(row, better)
            log.epoch(self.history, picture)
        self._stop_early()

    def _stop_early(self) -> None:
        """Stop here where the patience is over, and say so."""
        if self.options.patience and self.since_best >= self.options.patience:
            self._stop_at = self.step
            if self.world.leads and self.options.progress:
                note(f"stopped early: no better validation for {self.since_best} in a row")

    def _is_better(self, row: dict[str, Any]) -> bool:
        """Whether the epoch that `row` describes was validated, and better than all before."""
        scores = self.result.scores if "rmse_px" in row else None
        if scores is None:
            return False
        better = scores.selection > self.best
        self.best = max(self.best, scores.selection)
        self.since_best = 0 if better else self.since_best + 1
        return better

    def _predict(self, dataset: Dataset) -> NDArray[np.float64]:
        """Joints of everyone in image pixels, float64 [N, J, 2], each predicted by one rank."""
        rows = np.arange(self.world.rank, len(dataset), self.world.size)
        options = EvalOptions(
            self.recipe.size, self.loader.options.batch_size, self.options.flip_test, self.recipe.config.mean
        )
        mine = predict_dataset(self.learner.predict, dataset, rows.tolist(), options)
        return self.world.gather_rows(len(dataset), rows, mine.joints)

    def _prepare_folder(self) -> None:
        """Make the run's folder, or go on from the state in it."""
        out, weights = self.options.out, self.options.init_weights
        if out and weights and any(is_same_file(out / name, [weights]) for name in (LATEST, BEST)):
            raise FasthgError(f"cannot write to {out}: --init-weights lies in it; give another --out")
        if self.options.resume:
            if out is None:
                raise FasthgError("resume needs the folder of the run; give --out")
            self._load(load_state(out))
        elif out is not None:
            make_folder(out)
            if (out / LAST).exists():
                raise FasthgError(f"{out} holds a run already; give --resume to go on with it, or another --out")
            if any((out / name).exists() for name in (LATEST, BEST)):
                raise FasthgError(f"{out} holds a run's weights, and no {LAST} to go on from; give another --out")
            for name in (CSV, CURVES):
                if (out / name).exists():
                    raise FasthgError(f"{out} holds {name}, which a training writes; give another --out")
        self.world.wait()

    def _identity(self) -> dict[str, Any]:
        """What has to be the same for a run to go on."""
        options = self.options
        return {
            **self.recipe.describe(),
            "data": self.dataset.digest,
            "teacher": self.teacher.digest if self.teacher else None,
            "pack": pack_digest(options.pack) if options.pack else None,
            "dali": options.dali,
            "validation": self.validation.digest if self.validation else None,
            "flip_test": options.flip_test,
        }

    def _save(self) -> None:
        """Keep the state of the run, unless it went bad; each rank's own statistics, as when it is saved is chance."""
        self._check_losses()
        self._saved = time.monotonic()
        if self.options.out is None:
            return
        learned = self.learner.state_dict()
        if not self.world.leads:
            return
        spoilt = "" if learned["statistics"].isfinite().all() else "a batch statistic of some rank"
        if name := self.learner.not_finite() or spoilt:
            raise self._diverged(f"{name} is not finite after step {self.step}")
        state = {
            "step": self.step,
            "identity": self.identity,
            "best": self.best,
            "since_best": self.since_best,
            "history": self.history,
        }
        save_state(self.options.out, {**state, "meter": asdict(self.meter), **learned})

    def _load(self, state: dict[str, Any]) -> None:
        # A run of an earlier release says nothing of what it did not know, or did not keep.
        unsaid = {**Recipe().describe(), **{name: self.identity[name] for name in _KEPT_LATER}}
        check_same_run({**unsaid, **state["identity"]}, self.identity, free=("epochs",))
        self.learner.load_state_dict(state)
        self.step, self.best, self.history = state["step"], state["best"], state["history"]
        self.since_best = state.get("since_best", 0)
        self.meter = EpochMeter(**state["meter"])

    def _save_weights(self, row: dict[str, Any], best: bool) -> None:
        """Keep the weights of the epoch that `row` describes: as the latest, and as the best where they are."""
        if self.options.out is None:
            return
        names = [LATEST, BEST] if best else [LATEST]
        metadata = {name: f"{value:.6g}" for name, value in row.items()}
        metadata |= {"data": self.dataset.digest}
        for name in names:
            save(self.learner.evaluated, self.options.out / name, metadata=metadata)


def train(options: TrainOptions) -> TrainResult:
    """Run a training from Python; see `Trainer`."""
    return Trainer(options).run()
