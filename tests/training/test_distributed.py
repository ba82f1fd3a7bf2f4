"""Two processes learn what one does, and validate everyone exactly once."""

import json
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from fasthg.data.dataset import load_dataset
from fasthg.errors import FasthgError
from fasthg.metrics.evaluate import EvalOptions, evaluate
from fasthg.network.checkpoint import load_model
from training.distributed import World

ROOT = Path(__file__).parents[2]
SCRIPT = """
import json, os, sys, time, types
from pathlib import Path
import torch
from training import trainer as module
from fasthg.network.variants import HourglassConfig
from training.distributed import leave_world
from training.recipes import Recipe
from training.options import TrainOptions
from training.trainer import Trainer

torch.set_num_threads(1)
for rank in os.environ.get("RANKS", ""):  # forks: to import all this takes longer than to train
    if not os.fork():
        os.environ |= {"RANK": rank, "LOCAL_RANK": rank}
        break
else:
    if "RANKS" in os.environ:
        sys.exit(any([os.wait()[1] for _ in os.environ["RANKS"]]))
data, out, changes = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
recipe = dict(size=32, batch_size=4, epochs=2, optimizer="sgd", lr=0.05, accumulate=2, freeze_norm=True, ema=0.9)
recipe |= changes.pop("recipe", {})
skew = changes.pop("skew", 0.0)
variant = HourglassConfig(num_stacks=2, num_feats=8, depths=1, stem_feats=(4, 8))
options = TrainOptions(
    data, Recipe(variant=variant, **recipe), out, device="cpu", num_workers=0, progress=False, tensorboard=False,
    **changes,
)
trainer = Trainer(options)
rank = trainer.world.rank
if skew:  # every rank's clock runs at its own speed, and losses are read as seldom as on a GPU
    clock = time.monotonic
    module.time = types.SimpleNamespace(monotonic=lambda: clock() * (1 + skew * rank), perf_counter=time.perf_counter)
    trainer._check_steps = 3
result = trainer.run()
torch.save(
    {
        "losses": result.losses,
        "size": trainer.world.size,
        "images": result.images,
        "steps": result.steps,
        "model": trainer.learner.model.state_dict(),
        "average": trainer.learner.average.model.state_dict(),
    },
    out / f"rank{rank}.pt",
)
leave_world()
"""


def run(tmp_path, data, processes, launcher=(), **changes):
    """What each rank ended with, and the state that was saved."""
    script, out = tmp_path / "script.py", tmp_path / str(processes)
    tmp_path.mkdir(exist_ok=True)
    script.write_text(textwrap.dedent(SCRIPT))
    command = [sys.executable, "-W", "ignore", *launcher, str(script), str(data), str(out), json.dumps(changes)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    if processes == 2 and not launcher:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        environment |= {"RANKS": "01", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    ranks = [torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in range(processes)]
    return ranks, torch.load(out / "last.pt", weights_only=True)


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tiny_dataset, tmp_path):
    """Same losses, weights and scores at the same global batch, with the batch statistics frozen.

    By SGD, whose step is linear in the gradient: RMSProp's divides by it, and so makes a visible step of rounding.
    """
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    ([one], alone), ([two, _], shared) = run(tmp_path, tiny_dataset, 1), run(tmp_path, tiny_dataset, 2, torchrun)
    assert (one["size"], two["size"]) == (1, 2)
    assert one["images"] == two["images"] == 48
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-4)
    for name, tensor in alone["model"].items():
        torch.testing.assert_close(shared["model"][name], tensor, rtol=1e-4, atol=1e-4)
    scores = [[row[name] for name in row if "pckh" in name] for state in (alone, shared) for row in state["history"]]
    np.testing.assert_allclose(scores[:2], scores[2:], atol=1.0)


@pytest.mark.slow
def test_ranks_whose_clocks_differ_save_and_stop_together(tiny_dataset, tmp_path):
    """A rank that saves at another step than the rest waits for them in another exchange: it hangs, or reads theirs."""
    changes = {"skew": 1.0, "checkpoint_seconds": 0.05, "max_seconds": 4.0, "validate_every": 0}
    ranks, saved = run(tmp_path, tiny_dataset, 2, recipe={"epochs": 1000, "accumulate": 1}, **changes)
    assert ranks[0]["steps"] == ranks[1]["steps"] == saved["step"] < 6000


@pytest.mark.slow
def test_statistics_are_one_networks_whatever_the_number_of_ranks(tiny_dataset, tmp_path):
    """Weights that do not move: the first layer's mean activation is then that of all people, whoever saw them."""
    recipe = {"lr": 1e-30, "accumulate": 1, "freeze_norm": False}
    ([alone], _), (two, saved) = (run(tmp_path, tiny_dataset, processes, recipe=recipe) for processes in (1, 2))
    for part, kept in (("model", saved["model"]), ("average", saved["average"]["model"])):
        for name, tensor in kept.items():
            torch.testing.assert_close(two[0][part][name], tensor, rtol=0, atol=0)
            torch.testing.assert_close(two[1][part][name], tensor, rtol=0, atol=0)
        name = "stem.norm.running_mean"
        torch.testing.assert_close(kept[name], alone[part][name], rtol=1e-4, atol=1e-6)
    row = saved["history"][-1]
    model = load_model(tmp_path / "2" / "last.safetensors")
    scores = evaluate(model.final, load_dataset(tiny_dataset, "val"), None, EvalOptions(32, 2))
    assert row["weighted14_pckh@0.5"] == pytest.approx(scores.at.means["weighted14"])


@pytest.mark.slow
def test_a_stop_inside_an_epoch_changes_no_bit_on_any_rank(tiny_dataset, tmp_path):
    """Six steps an epoch: saved after every step of the first five and stopped there, or not before the epoch's end."""
    rest = {"recipe": {"accumulate": 1, "freeze_norm": False}, "validate_every": 0}
    ranks, saved = run(tmp_path / "straight", tiny_dataset, 2, **rest)
    run(tmp_path / "broken", tiny_dataset, 2, **rest, max_steps=5, checkpoint_seconds=0.0)
    resumed_ranks, resumed = run(tmp_path / "broken", tiny_dataset, 2, **rest, resume=True)
    kept = [(saved["model"], resumed["model"]), (saved["average"]["model"], resumed["average"]["model"])]
    kept += [(one[part], two[part]) for one, two in zip(ranks, resumed_ranks) for part in ("model", "average")]
    for expected, found in kept:
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)


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
