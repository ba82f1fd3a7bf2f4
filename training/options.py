"""What one call of the trainer is asked for, the recipe included."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from fasthg.data.reading import Reading
from fasthg.errors import FasthgError
from training.recipes import Recipe


@dataclass(frozen=True)
class TrainOptions:
    """A recipe, the data to follow it on, and how to watch and keep the run.

    Nothing is written where `out` is None. Raises FasthgError for a number below zero.
    """

    data: Annotated[Path, "folder with images/ and annotations"] = Path("data")
    recipe: Recipe = field(default_factory=Recipe)
    out: Annotated[Path | None, "folder of the run"] = None
    resume: Annotated[bool, "go on with the run in the folder; give the options that it was started with"] = False
    init_weights: Annotated[Path | None, "safetensors to start from"] = None
    start: Annotated[str | None, "weights, or a variant that ships some, whose matching layers are taken"] = None
    teacher: Annotated[Path | None, "trained network to learn from: a checkpoint or a name"] = None
    teacher_variant: Annotated[str | None, "network that the teacher must be"] = None
    val: Annotated[Path | None, "annotations to validate on, where those of the data hold one split"] = None
    category: Annotated[str | None, "kind of subject to read, where the data has several"] = None
    holdout: Annotated[str, "images to validate on where no file says: every6, 0.2@7 or a file of names"] = "every6"
    pairs: Annotated[str | None, "mirrored points, right:left,right:left, or none; by their names if left out"] = None
    device: Annotated[str, "auto, cpu, cuda or cuda:0"] = "auto"
    pack: Annotated[Path | None, "packed crops of the same people (python -m training.pack) to train on"] = None
    dali: Annotated[bool, "load by DALI, on the GPU where the network is on one"] = False
    num_workers: Annotated[int, "processes or threads that load data, for each device"] = 2
    skip_bad: Annotated[int, "people that may be replaced because their photograph cannot be read"] = 0
    max_steps: Annotated[int, "stop after this step, 0 for no limit; --resume goes on"] = 0
    max_seconds: Annotated[float, "stop after this time, 0 for no limit; --resume goes on"] = 0.0
    validate_every: Annotated[int, "epochs between validations, 0 for none"] = 1
    patience: Annotated[int, "stop after this many validations without a better one, 0 to go to the end"] = 0
    flip_test: Annotated[bool, "validate on the mean of each crop's and its mirror image's heatmaps"] = False
    checkpoint_seconds: Annotated[float, "time between checkpoints inside an epoch"] = 300.0
    tensorboard: Annotated[bool, "write TensorBoard files"] = True
    progress: Annotated[bool, "tell how far the run is"] = True

    def __post_init__(self) -> None:
        numbers = ("num_workers", "skip_bad", "max_steps", "max_seconds", "validate_every", "patience")
        for name in (*numbers, "checkpoint_seconds"):
            if not getattr(self, name) >= 0:
                raise FasthgError(f"{name} is {getattr(self, name)}; give 0 or more")

    @property
    def reading(self) -> Reading:
        """What is said of the data beside where it lies."""
        return Reading(self.category, self.holdout, self.pairs)
