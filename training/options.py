"""What one call of the trainer is asked for, the recipe included."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from training.recipes import Recipe


@dataclass(frozen=True)
class TrainOptions:
    """A recipe, the data to follow it on, and how to watch and keep the run.

    Nothing is written where `out` is None.
    """

    data: Annotated[Path, "folder with images/ and annotations"] = Path("data")
    recipe: Recipe = field(default_factory=Recipe)
    out: Annotated[Path | None, "folder of the run"] = None
    resume: Annotated[bool, "go on with the run in the folder; give the options that it was started with"] = False
    init_weights: Annotated[Path | None, "safetensors to start from"] = None
    teacher: Annotated[Path | None, "trained network to learn from: a checkpoint or a name"] = None
    teacher_variant: Annotated[str | None, "network that the teacher must be"] = None
    val: Annotated[Path | None, "annotations to validate on, where those of the data hold one split"] = None
    device: Annotated[str, "auto, cpu, cuda or cuda:0"] = "auto"
    pack: Annotated[Path | None, "packed crops of the same people (python -m training.pack) to train on"] = None
    dali: Annotated[bool, "load by DALI, on the GPU where the network is on one"] = False
    num_workers: Annotated[int, "processes or threads that load data, for each device"] = 2
    skip_bad: Annotated[int, "people that may be replaced because their photograph cannot be read"] = 0
    max_steps: Annotated[int, "stop after this step, 0 for no limit; --resume goes on"] = 0
    max_seconds: Annotated[float, "stop after this time, 0 for no limit; --resume goes on"] = 0.0
    validate_every: Annotated[int, "epochs between validations, 0 for none"] = 1
    flip_test: Annotated[bool, "validate on the mean of each crop's and its mirror image's heatmaps"] = False
    checkpoint_seconds: Annotated[float, "time between checkpoints inside an epoch"] = 300.0
    tensorboard: Annotated[bool, "write TensorBoard files"] = True
    progress: Annotated[bool, "tell how far the run is"] = True
