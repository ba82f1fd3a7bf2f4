"""Two processes learn what one does, and validate everyone exactly once."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from fasthg.errors import FasthgError
from training.distributed import World

SCRIPT = """
import sys
from pathlib import Path
import torch
from fasthg.network.variants import HourglassConfig
from training.distributed import leave_world
from training.recipes import Recipe
from training.options import TrainOptions
from training.trainer import Trainer

torch.set_num_threads(1)
data, out = map(Path, sys.argv[1:])
recipe = Recipe(
    variant=HourglassConfig(num_stacks=2, num_feats=8, depths=1, stem_feats=(4, 8)),
    size=32, batch_size=4, epochs=2, optimizer="sgd", lr=0.05, accumulate=2, freeze_norm=True, ema=0.9,
)
options = TrainOptions(data, recipe, out, device="cpu", num_workers=0, progress=False, tensorboard=False)
trainer = Trainer(options)
result = trainer.run()
if trainer.world.leads:
    torch.save({"losses": result.losses, "size": trainer.world.size, "images": result.images}, out / "result.pt")
leave_world()
"""


def run(tmp_path, data, processes):
    script, out = tmp_path / "script.py", tmp_path / str(processes)
    script.write_text(textwrap.dedent(SCRIPT))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if processes == 2 else []
    command = [sys.executable, "-W", "ignore", *launcher, str(script), str(data), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return torch.load(out / "result.pt", weights_only=True), torch.load(out / "last.pt", weights_only=True)


def test_two_processes_learn_what_one_does(tiny_dataset, tmp_path):
    """Same losses, weights and scores at the same global batch, with the batch statistics frozen.

    By SGD, whose step is linear in the gradient: RMSProp's divides by it, and so makes a visible step of rounding.
    """
    (one, alone), (two, shared) = (run(tmp_path, tiny_dataset, processes) for processes in (1, 2))
    assert (one["size"], two["size"]) == (1, 2)
    assert one["images"] == two["images"] == 48
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-4)
    for name, tensor in alone["model"].items():
        torch.testing.assert_close(shared["model"][name], tensor, rtol=1e-4, atol=1e-4)
    scores = [[row[name] for name in row if "pckh" in name] for state in (alone, shared) for row in state["history"]]
    np.testing.assert_allclose(scores[:2], scores[2:], atol=1.0)


def test_everyone_is_predicted_exactly_once():
    world = World(0, 1, torch.device("cpu"))
    predictions = np.arange(12.0).reshape(3, 2, 2)
    whole = world.gather_rows(3, np.array([2, 0, 1]), predictions)
    np.testing.assert_array_equal(whole[[2, 0, 1]], predictions)
    with pytest.raises(RuntimeError, match="row 1 was predicted 0 times"):
        world.gather_rows(3, np.array([0, 2]), predictions[:2])


def test_synchronised_statistics_are_refused_on_a_cpu():
    with pytest.raises(FasthgError, match="sync_norm needs GPUs"):
        World(0, 2, torch.device("cpu")).wrap(torch.nn.BatchNorm2d(1), sync_norm=True)
