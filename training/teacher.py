"""A trained network that another one learns from (Zhang, Zhu, Ye: "Fast Human Pose Estimation", CVPR 2019).

The student's heatmaps, of every stack, are held to the teacher's last ones as well as to the labels. The teacher sees
the same augmented crops, and answers for a joint that a person has no label of, where others have one. A joint that
the data never labels has no answer: a teacher from the same data gives anything there, and its error would be most of
the loss.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fasthg.data.people import People
from fasthg.errors import FasthgError
from fasthg.network.checkpoint import weights_digest
from fasthg.network.load import load_network
from fasthg.network.variants import HourglassConfig
from fasthg.pixels.geometry import flip_heatmaps
from fasthg.pixels.skeleton import check_same_points
from training.loss import heatmap_loss
from training.options import TrainOptions
from training.recipes import Recipe

HALF = 0.5  # the paper's share of the teacher in the loss


class Teacher:
    """A network in evaluation mode that gives heatmaps to learn from.

    weights   a `.safetensors` checkpoint or a name that `fasthg list --weights` shows
    variant   what the network must be; None takes it from the file
    student   the network that learns: any other with the same joints, since all have heatmaps of a quarter of the crop
    share     of the loss that is held to the teacher, 0 to 1; the rest is held to the labels
    labelled  bool [J], the joints that the data labels in somebody
    flip      answer with the mean of the heatmaps of a crop and of its mirror image: better, and twice the work

    Raises FasthgError where the teacher has other joints, or cannot see the student's crops.
    """

    def __init__(
        self,
        weights: str | Path,
        variant: str | None,
        student: HourglassConfig,
        share: float,
        labelled: NDArray[np.bool_],
        flip: bool = False,
    ) -> None:
        self.model, self.share, self.flip = load_network(weights, variant).requires_grad_(False), share, flip
        theirs, ours = self.model.config, student
        check_same_points(f"teacher {weights}", theirs.skeleton, ours.skeleton)
        if ours.input_size % theirs.min_input_multiple:
            both = math.lcm(ours.min_input_multiple, theirs.min_input_multiple)
            raise FasthgError(
                f"teacher {weights} takes crops whose side is a multiple of {theirs.min_input_multiple}, and the "
                f"student's is {ours.input_size}; give --size {both * math.ceil(ours.input_size / both)}"
            )
        self.digest = weights_digest(self.model)
        self._labelled = torch.from_numpy(labelled).float()
        shift = [our - their for our, their in zip(ours.mean, theirs.mean)]
        self._shift = torch.tensor(shift)[:, None, None] if any(shift) else None

    def to(self, device: torch.device, memory_format: torch.memory_format) -> Teacher:
        """The teacher itself, moved to a device and a memory format."""
        self.model = self.model.to(device, memory_format=memory_format)  # type: ignore[call-overload]
        self._shift = self._shift if self._shift is None else self._shift.to(device)
        self._labelled = self._labelled.to(device)
        return self

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Images [N, 3, S, S] less the student's mean -> heatmaps float32 [N, J, S/4, S/4]."""
        images = images if self._shift is None else images + self._shift
        heatmaps = self.model.final(images).float()
        if not self.flip:
            return heatmaps
        mirrored = self.model.final(images.flip(-1)).float()
        return (heatmaps + flip_heatmaps(mirrored, self.model.config.skeleton)) / 2

    def mix(self, loss: Tensor, heatmaps: Tensor, taught: Tensor) -> Tensor:
        """The student's loss against the labels, mixed with that against the teacher.

        heatmaps  [N, S, J, h, w] of the student's stacks
        taught    float32 [N, J, h, w], the teacher's answer
        """
        counted = self._labelled.expand(len(taught), -1)
        return (1 - self.share) * loss + self.share * heatmap_loss(heatmaps, taught, counted)


def make_teacher(options: TrainOptions, recipe: Recipe, people: People) -> Teacher | None:
    """The teacher that a run of `recipe` asks for, if any; raises FasthgError for one that is half asked for."""
    if options.teacher is None:
        if recipe.teacher_share or recipe.teacher_flip or options.teacher_variant:
            what = "a share of the loss" if recipe.teacher_share else "a mirror" if recipe.teacher_flip else "a variant"
            raise FasthgError(f"the teacher has {what} and no weights; give --teacher F.safetensors")
        return None
    share = recipe.teacher_share or HALF
    labelled = np.asarray(people.labelled.any(axis=0))
    return Teacher(options.teacher, options.teacher_variant, recipe.config, share, labelled, recipe.teacher_flip)
