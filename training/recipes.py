"""What a training learns and how, as one value, and the study's runs by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any

from fasthg.errors import FasthgError
from fasthg.network.variants import STUDY_VARIANTS, HourglassConfig, get_config
from fasthg.pixels.skeleton import Skeleton
from training.loading.augment import Augmentation
from training.optim import OPTIMIZERS, SCHEDULES


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights that come out, the data aside. The command line shows each field's note.

    The defaults are the study's base: RMSProp with momentum at batch 20 for 50 epochs. It does not publish its learning
    rate and schedule: ours are those of bearpaw/pytorch-pose, 2.5e-4 and a tenth of it from each milestone on.

    Raises FasthgError for a value that no training can have.
    """

    variant: Annotated[str | HourglassConfig, "network, a name that `fasthg list` shows"] = "original"
    size: Annotated[int, "side of the crops, pixels"] = 256
    batch_size: Annotated[int, "people in a step, all devices together"] = 20
    epochs: Annotated[int, "passes over the people"] = 50
    optimizer: Annotated[str, ", ".join(OPTIMIZERS)] = "rmsprop"
    lr: Annotated[float, "learning rate after the warm-up"] = 2.5e-4
    momentum: Annotated[float, "momentum; Adam's first beta"] = 0.9
    weight_decay: Annotated[float, "weight decay"] = 0.0
    schedule: Annotated[str, ", ".join(SCHEDULES)] = "step"
    warmup: Annotated[int, "steps in which the learning rate rises from zero"] = 0
    milestones: Annotated[tuple[float, ...], "shares of the run at which `step` decays the learning rate"] = (0.6, 0.9)
    gamma: Annotated[float, "factor of each decay"] = 0.1
    accumulate: Annotated[int, "parts of a step's batch that are run one after the other, to save memory"] = 1
    clip_norm: Annotated[float, "largest norm of the gradient, 0 for no limit"] = 0.0
    path: Annotated[str, "eager, channels_last, amp, compile, or amp:fp16 and the like"] = "channels_last"
    dropout: Annotated[float, "probability of dropping a channel after each hourglass"] = 0.0
    ema: Annotated[float, "decay of the average of the weights that is validated and shipped, 0 to switch it off"] = 0.0
    sigma: Annotated[float, "radius of the target's Gaussian, heatmap pixels"] = 1.0
    teacher_share: Annotated[float, "share of the loss that is held to the teacher; half where 0 with a teacher"] = 0.0
    teacher_flip: Annotated[bool, "the teacher answers for a crop and its mirror image, and the mean counts"] = False
    freeze_norm: Annotated[bool, "keep batch statistics as they are"] = False
    sync_norm: Annotated[bool, "batch statistics over all devices (GPUs only)"] = False
    seed: Annotated[int, "of the initial weights, the order, the augmentation and the dropout"] = 0
    augmentation: Augmentation = field(default_factory=Augmentation)
    skeleton: Annotated[Skeleton | None, "the data's, which the trainer fills in"] = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "milestones", tuple(self.milestones))
        _check_name("optimizer", self.optimizer, OPTIMIZERS)
        _check_name("schedule", self.schedule, SCHEDULES)
        for name in ("batch_size", "epochs", "accumulate"):
            if getattr(self, name) < 1:
                raise FasthgError(f"{name} is {getattr(self, name)}; give at least 1")
        for name in ("momentum", "weight_decay", "warmup", "clip_norm", "seed"):
            if not getattr(self, name) >= 0:
                raise FasthgError(f"{name} is {getattr(self, name)}; give 0 or more")
        if self.seed >= 2**63:
            raise FasthgError(f"seed is {self.seed}; give less than 2**63")
        if self.optimizer in ("adam", "adamw") and not self.momentum < 1.0:
            raise FasthgError(f"momentum is {self.momentum}; {self.optimizer} takes 0 to below 1")
        if not all(share >= 0 for share in self.milestones):
            shown = ", ".join(map(str, self.milestones))
            raise FasthgError(f"milestones are {shown}; give shares of the run, 0 or more")
        for name in ("lr", "sigma", "gamma"):
            if not getattr(self, name) > 0:
                raise FasthgError(f"{name} is {getattr(self, name)}; give more than 0")
        if not 0.0 <= self.teacher_share <= 1.0:
            raise FasthgError(f"teacher_share is {self.teacher_share}; give a share from 0 to 1")
        if not 0.0 <= self.ema < 1.0:
            raise FasthgError(f"ema is {self.ema}; give a decay from 0 to below 1")
        if self.size % self.config.min_input_multiple or self.size < 1:
            raise FasthgError(
                f"size is {self.size}; {self.variant_name} takes multiples of {self.config.min_input_multiple}"
            )

    @property
    def config(self) -> HourglassConfig:
        """The network's configuration, with this recipe's dropout and skeleton."""
        config = get_config(self.variant) if isinstance(self.variant, str) else self.variant
        config = config if self.skeleton is None else replace(config, skeleton=self.skeleton)
        return replace(config, dropout=self.dropout or config.dropout, input_size=self.size)

    @property
    def variant_name(self) -> str:
        """The variant's name, or "custom" for a configuration."""
        return self.variant if isinstance(self.variant, str) else "custom"

    def describe(self) -> dict[str, Any]:
        """The recipe as plain JSON values, the network's configuration in place of its name."""
        described = {**asdict(self), "variant": asdict(self.config)}
        del described["skeleton"]  # the configuration has it
        return json.loads(json.dumps(described))


def _check_name(what: str, name: str, known: Mapping[str, Any] | tuple[str, ...]) -> None:
    if name not in known:
        raise FasthgError(f"unknown {what} {name!r}; choose one of {', '.join(known)}")


BASE = Recipe()

#: The study's runs. Table 1 is every variant at batch 20 for 50 epochs; A to D are its long runs (up to 220 epochs).
RECIPES: dict[str, Recipe] = {
    **{f"table1-{name}": replace(BASE, variant=name) for name in STUDY_VARIANTS},
    "a-original-batch6": replace(BASE, batch_size=6, epochs=220),
    "b-original-batch20": replace(BASE, epochs=220),
    "c-stacks6": replace(BASE, variant="stacks6", epochs=220),
    "d-convs4": replace(BASE, variant="convs4", epochs=220),
    "adam": replace(BASE, optimizer="adam"),
    "batch6": replace(BASE, batch_size=6),
    "dropout": replace(BASE, dropout=0.2),
    "mixed-precision": replace(BASE, path="amp"),
    "distil-small": replace(BASE, variant="small", teacher_share=0.5),
}


#: A labelled project of a hundred images or so, from weights that know what edges are, on a plain CPU.
PROJECT = Recipe(
    variant="small",
    batch_size=8,
    epochs=80,
    optimizer="adam",
    lr=1e-3,
    schedule="cosine",
    warmup=40,
    ema=0.99,
    path="amp",
)
PROJECT_PATIENCE = 20  # validations


def get_recipe(name: str) -> Recipe:
    """One of `RECIPES`; raises FasthgError that lists the names."""
    _check_name("recipe", name, RECIPES)
    return RECIPES[name]
