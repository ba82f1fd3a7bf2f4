"""What a user sees of a training: files, numbers that can be reproduced, and errors that say the way out."""

import contextlib
import csv
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from fasthg.data.dataset import load_dataset
from fasthg.errors import BackendUnavailable, FasthgError
from fasthg.metrics.evaluate import EvalOptions, evaluate
from fasthg.network.checkpoint import load_model, read_metadata
from fasthg.network.variants import HourglassConfig
from fasthg.runtimes import pytorch
from fasthg.runtimes.paths import training_setup
from training.distributed import World
from training.learner import Learner
from training.loading.batches import Batch
from training.options import TrainOptions
from training.pack import pack
from training.recipes import Recipe
from training.state import load_state
from training.train import build_options, main
from training.trainer import Trainer, train

TINY = HourglassConfig(num_stacks=2, num_feats=8, depths=1, stem_feats=(4, 8))
RECIPE = Recipe(variant=TINY, size=32, batch_size=4, epochs=2, optimizer="adam", lr=2e-3)
ALONE = World(0, 1, torch.device("cpu"))


def options_for(data: Path, out: Path | None = None, recipe: Recipe = RECIPE, **changes) -> TrainOptions:
    base = TrainOptions(data=data, out=out, recipe=recipe, device="cpu", num_workers=0, progress=False)
    return replace(base, **changes)


def random_batch(size: int = RECIPE.size, people: int = 4) -> Batch:
    joints = torch.rand(people, 16, 2) * size / 4
    return Batch(torch.rand(people, 3, size, size) - 0.5, joints, torch.ones(people, 16), torch.arange(people))


@pytest.fixture(scope="module")
def run(tiny_dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    return out, train(options_for(tiny_dataset, out, replace(RECIPE, ema=0.9), flip_test=True))


def test_two_people_are_learnt_by_heart():
    learner = Learner(replace(RECIPE, lr=1e-2, sigma=1.5, schedule="constant"), 60, ALONE)
    batch = random_batch(people=2)
    losses = [learner.learn(batch, step).item() for step in range(60)]
    assert losses[-1] < 0.6 * losses[20]


def test_scores_of_the_log_are_those_of_the_weights(run, tiny_dataset):
    out, result = run
    with (out / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert [int(row["step"]) for row in rows] == [6, 12]
    model = load_model(out / "last.safetensors")
    with torch.inference_mode():
        scores = evaluate(model.final, load_dataset(tiny_dataset, "val"), None, EvalOptions(32, flip=True))
    for name in ("mean14", "weighted14", "pooled16"):
        assert float(rows[-1][f"{name}_pckh@0.5"]) == pytest.approx(scores.at.means[name], abs=1e-3)
        assert float(rows[-1][f"{name}_auc"]) == pytest.approx(scores.auc.means[name], abs=1e-3)
    assert result.scores is not None
    assert result.scores.at.means["weighted14"] == pytest.approx(scores.at.means["weighted14"])


def test_best_weights_are_those_of_the_best_epoch(run):
    out, result = run
    best = max(row["weighted14_pckh@0.5"] for row in result.history)
    assert float(read_metadata(out / "best.safetensors")["weighted14_pckh@0.5"]) == pytest.approx(best, rel=1e-5)


def test_curves_and_tensorboard_are_written(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out, result = run
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    events = EventAccumulator(str(out / "tensorboard")).Reload()
    losses = [event.value for event in events.Scalars("train/loss")]
    assert losses == pytest.approx(result.losses, rel=1e-5)
    assert len(events.Scalars("validation/weighted14_pckh@0.5")) == 2
    assert len(events.Images("validation/predictions")) == 2


@pytest.mark.parametrize("absent", ["matplotlib", "tensorboard"])
def test_a_library_for_the_log_that_is_missing_is_named_before_the_first_step(
    tiny_dataset, tmp_path, monkeypatch, absent
):
    monkeypatch.setitem(sys.modules, absent, None)
    monkeypatch.setattr(Learner, "learn", lambda *_: pytest.fail("a step was taken"))
    with pytest.raises(ModuleNotFoundError, match=absent):
        train(options_for(tiny_dataset, tmp_path / "run"))


def test_nothing_is_written_without_a_folder(tiny_dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = train(options_for(tiny_dataset, validate_every=0, max_steps=2))
    assert result.images == 8
    assert result.seconds > result.wait_seconds >= 0.0
    assert not list(tmp_path.iterdir())


def test_time_limit_stops_the_run(tiny_dataset):
    assert train(options_for(tiny_dataset, validate_every=0, max_seconds=1e-3)).steps == 1


def test_accumulated_parts_equal_one_batch():
    batch = random_batch()
    frozen = replace(RECIPE, freeze_norm=True, optimizer="sgd", lr=0.1)
    whole, parts = (Learner(replace(frozen, accumulate=n), 10, ALONE) for n in (1, 4))
    for step in range(3):
        assert whole.learn(batch, step).item() == pytest.approx(parts.learn(batch, step).item(), rel=1e-5)
    for a, b in zip(whole.model.parameters(), parts.model.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_clipping_limits_the_step():
    learner = Learner(replace(RECIPE, optimizer="sgd", lr=1.0, momentum=0.0, clip_norm=1e-3), 10, ALONE)
    before = [parameter.detach().clone() for parameter in learner.model.parameters()]
    learner.learn(random_batch(), 0)
    moved = torch.stack([(a - b).norm() for a, b in zip(learner.model.parameters(), before)]).norm()
    assert moved.item() == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.usefixtures("needs_bf16")
def test_fp16_scaler_skips_overflow_and_goes_on():
    learner = Learner(replace(RECIPE, path="amp"), 10, ALONE)
    assert not learner.scaler.is_enabled()  # bf16 on the CPU has the range of fp32
    learner.setup = replace(learner.setup, amp_dtype=torch.float16)
    learner.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40, growth_interval=100)
    before = learner.model.state_dict()["stem.conv.weight"].clone()
    learner.learn(random_batch(), 0)
    assert torch.equal(learner.model.state_dict()["stem.conv.weight"], before)
    assert learner.scaler.get_scale() < 2.0**40


@pytest.mark.usefixtures("needs_bf16")
def test_mixed_precision_follows_single_precision():
    batch = random_batch()
    single, mixed = (Learner(replace(RECIPE, path=path), 20, ALONE) for path in ("channels_last", "amp"))
    for step in range(10):
        expected, loss = single.learn(batch, step).item(), mixed.learn(batch, step).item()
        assert loss == pytest.approx(expected, rel=0.1)


def test_every_loader_trains_alike(tiny_dataset, tmp_path):
    pack(tiny_dataset, tmp_path / "crops.h5")
    linear = replace(RECIPE, optimizer="sgd", lr=0.01)  # RMSProp's first steps make much of little differences
    options = options_for(tiny_dataset, recipe=linear, validate_every=0, max_steps=3)
    expected = train(options).losses
    assert train(replace(options, pack=tmp_path / "crops.h5")).losses == pytest.approx(expected, rel=0.05)
    pytest.importorskip("nvidia.dali")
    assert train(replace(options, dali=True, num_workers=1)).losses == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("changed", ["people", "labels"])
def test_packed_crops_of_other_people_or_labels_are_refused(tiny_dataset, tmp_path, changed):
    """One who was taken out, or a joint that was corrected, since the people were packed."""
    pack(tiny_dataset, tmp_path / "crops.h5")
    other = tmp_path / "other"
    shutil.copytree(tiny_dataset, other)
    records = json.loads((other / "annotations.json").read_text())
    records[0]["joint_self"][9][0] += 0.5
    (other / "annotations.json").write_text(json.dumps(records if changed == "labels" else records[1:]))
    with pytest.raises(FasthgError, match=r"crops\.h5 holds other people or labels than .*; pack the folder again"):
        Trainer(options_for(other, pack=tmp_path / "crops.h5", validate_every=0))


def write_one_split(folder: Path, rows: range) -> Path:
    """HRNet's JSON of some rendered people: it does not say which split they are; returns the file."""
    everyone = load_dataset(folder, "all").people
    records = [
        {
            "image": everyone.images[row],
            "center": (everyone.center[row] + 0.5).tolist(),
            "scale": everyone.scale[row],
            "joints": (np.nan_to_num(everyone.joints[row], nan=-1.5) + 0.5).tolist(),
            "joints_vis": everyone.labelled[row].astype(int).tolist(),
        }
        for row in rows
    ]
    file = folder / f"people-{rows.start}.json"
    file.write_text(json.dumps(records))
    return file


def test_nobody_is_trained_and_validated_on_without_a_word(tiny_dataset, tmp_path):
    """A file that holds one split gives the same people for either; head sizes come from a file beside it."""
    folder = tmp_path / "data"
    shutil.copytree(tiny_dataset, folder)
    train_file, val_file = write_one_split(folder, range(20)), write_one_split(folder, range(24, 32))
    people = load_dataset(folder, "val").people
    with h5py.File(folder / "valid.h5", "w") as file:
        file["imgname"] = np.array([name.encode() for name in people.images])
        file["center"], file["scale"] = people.center, people.scale
        file["part"], file["visible"] = np.nan_to_num(people.joints), people.visible
        file["normalize"] = people.head_size
    with pytest.raises(FasthgError, match=r"8 of 8 validation people are trained on too; give --val FILE"):
        Trainer(options_for(val_file))
    assert train(options_for(train_file, val=val_file, max_steps=5)).scores is not None
    assert train(options_for(train_file, validate_every=0, max_steps=1)).steps == 1
    with pytest.raises(FasthgError, match="8 of 8 validation people are trained on too"):
        Trainer(options_for(val_file, val=folder))


def test_divergence_names_step_loss_and_last_good_checkpoint(tiny_dataset, tmp_path):
    wild = replace(RECIPE, optimizer="sgd", lr=1e18, momentum=0.0)
    options = options_for(tiny_dataset, tmp_path, wild, checkpoint_seconds=0.0, tensorboard=False)
    with pytest.raises(FasthgError, match=r"training diverged: .* step [1-9]") as caught:
        train(options)
    if (tmp_path / "last.pt").exists():
        assert str(tmp_path / "last.pt") in str(caught.value)
        state = torch.load(tmp_path / "last.pt", weights_only=True)
        assert all(tensor.isfinite().all() for tensor in state["model"].values())


def test_nan_in_the_data_stops_the_run_at_its_step(tiny_dataset, tmp_path, monkeypatch):
    learn = Learner.learn

    def poisoned(self, batch, step):
        return learn(self, batch._replace(images=batch.images * float("nan")) if step == 4 else batch, step)

    monkeypatch.setattr(Learner, "learn", poisoned)
    options = options_for(tiny_dataset, tmp_path, checkpoint_seconds=0.0, tensorboard=False, validate_every=0)
    with pytest.raises(FasthgError, match=f"the loss of step 5 is nan; the last good checkpoint is {tmp_path}/last.pt"):
        train(options)
    assert torch.load(tmp_path / "last.pt", weights_only=True)["step"] == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": replace(RECIPE, batch_size=25)}, "batch_size is 25 and the data holds 24 people"),
        ({"recipe": replace(RECIPE, batch_size=6, accumulate=4)}, "batch_size is 6; give a multiple of 4"),
        ({"recipe": replace(RECIPE, path="openvino")}, "path openvino does not train"),
        ({"data": Path("nowhere")}, "data nowhere: no such folder"),
        ({"init_weights": Path("nowhere.safetensors")}, "nowhere.safetensors"),
        ({"resume": True}, "resume needs the folder of the run; give --out"),
        ({"device": "tpu"}, "unknown device 'tpu'"),
    ],
)
def test_bad_input_is_refused_before_the_first_step(tiny_dataset, changes, message):
    with pytest.raises(FasthgError, match=message):
        Trainer(replace(options_for(tiny_dataset), **changes))


def test_people_without_head_sizes_cannot_be_validated_on(tiny_dataset, tmp_path):
    text = (tiny_dataset / "annotations.json").read_text().replace('"head_box"', '"no_head_box"')
    (tmp_path / "annotations.json").write_text(text)
    (tmp_path / "images").symlink_to(tiny_dataset / "images")
    with pytest.raises(FasthgError, match=r"8 of 8 validation people have no known head size.*--validate-every 0"):
        Trainer(options_for(tmp_path))


def test_training_goes_on_from_given_weights(run, tiny_dataset):
    out, _result = run
    trainer = Trainer(options_for(tiny_dataset, init_weights=out / "best.safetensors"))
    for name, tensor in load_model(out / "best.safetensors").state_dict().items():
        assert torch.equal(trainer.learner.model.state_dict()[name], tensor)


def test_command_line_changes_a_recipe():
    given = {"recipe": "adam", "lr": 1e-3, "augment_flip": 0.0, "milestones": [0.5]}
    options = build_options(given.pop("recipe"), given)
    assert (options.recipe.optimizer, options.recipe.lr, options.recipe.batch_size) == ("adam", 1e-3, 20)
    assert options.recipe.augmentation.flip == 0.0
    assert options.recipe.augmentation.rotation == 30.0
    assert options.recipe.milestones == (0.5,)
    assert options.out == Path("runs/adam")


@pytest.mark.skipif(
    not Path("/proc/cpuinfo").exists() or platform.machine() != "x86_64", reason="flags of Linux on x86"
)
def test_bf16_is_there_where_the_processor_says_so():
    """AVX-512 alone is not enough: PyTorch then imitates it."""
    flags = Path("/proc/cpuinfo").read_text().split()
    assert pytorch.has_bf16() == ("avx512_bf16" in flags or "amx_tile" in flags)


@pytest.mark.parametrize("able", [True, False])
def test_amp_trains_in_fp32_where_the_cpu_has_no_bf16(able, monkeypatch, caplog):
    """PyTorch would imitate it: a step takes forty times as long as in fp32."""
    monkeypatch.setattr(pytorch, "has_bf16", lambda: able)
    assert training_setup("amp", "cpu").precision == ("bf16" if able else "fp32")
    assert ("no bf16 arithmetic" in caplog.text) is not able
    with contextlib.nullcontext() if able else pytest.raises(BackendUnavailable, match="no bf16 arithmetic"):
        training_setup("amp:bf16", "cpu")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "table2"], "unknown recipe 'table2'"),
        (["--optimizer", "lion"], "unknown optimizer 'lion'"),
        (["--augment-flip", "2"], "flip is 2.0"),
        (["--data", "nowhere"], "no such folder"),
        (["--epochs", "many"], "--epochs"),
    ],
)
def test_command_line_errors_are_one_line_and_exit_code_2(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_command_trains_the_small_network(tiny_dataset, tmp_path):
    arguments = f"--variant small --size 64 --batch-size 8 --max-steps 1 --validate-every 0 --data {tiny_dataset}"
    command = [sys.executable, "-W", "ignore", "-m", "training.train", *arguments.split(), "--out", str(tmp_path / "r")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "1 steps done" in done.stderr
    assert (tmp_path / "r" / "last.pt").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminated"])
def test_a_training_whose_process_group_is_ended_says_so_and_keeps_its_checkpoint(number, tiny_dataset, tmp_path):
    arguments = f"--variant small --size 64 --batch-size 4 --epochs 9999 --validate-every 0 --data {tiny_dataset}"
    # A shell starts what it puts in the background with SIGINT ignored, and children inherit that.
    command = ["env", "--default-signal=INT", sys.executable, "-W", "ignore", "-m", "training.train"]
    command += [*arguments.split(), "--num-workers", "2"]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path)], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        end = time.monotonic() + 200
        while process.poll() is None and time.monotonic() < end and not (tmp_path / "last.pt").exists():
            time.sleep(0.05)
        assert process.poll() is None  # it trains
        os.killpg(process.pid, number)
        _out, err = process.communicate(timeout=150)
    finally:
        with contextlib.suppress(ProcessLookupError):  # nobody is left, as it should be
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == "python -m training.train: interrupted; nothing half-written is left"
    assert "Traceback" not in err
    assert load_state(tmp_path)["step"] > 0
