"""What is compared of an artefact: one crop's huge heatmaps do not decide over int8, a broken graph does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fasthg.data.crops import load_crops
from fasthg.export.compare import Answers, Comparison, compare


def compared(scale: torch.Tensor, precision: str) -> Comparison:
    """Heatmaps of the crops that ship, the first a hundred times as large as the others', and the same by `scale`."""
    crops = load_crops(None)
    torch.manual_seed(0)
    heatmaps = torch.rand(len(crops), 16, 8, 8)
    heatmaps[0] *= 100
    keypoints = np.zeros((len(crops), 16, 2))
    found = Answers(keypoints, heatmaps * scale.view(-1, 1, 1, 1))
    return compare(found, Answers(keypoints, heatmaps), crops, precision)


def test_int8_may_clip_one_crop() -> None:
    scale = torch.ones(len(load_crops(None)))
    scale[0] = 0.01
    assert not compared(scale, "int8").failures()
    assert compared(scale, "fp16").failures()


@pytest.mark.parametrize("wrong", [-1.0, float("nan")])
def test_int8_may_not_answer_something_else(wrong: float) -> None:
    assert compared(torch.full((len(load_crops(None)),), wrong), "int8").failures()
