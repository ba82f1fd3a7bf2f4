"""An interrupted run goes on as if nothing had happened, and a damaged or foreign checkpoint never passes for good."""

import errno
import io
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fasthg.errors import FasthgError
from fasthg.network.variants import HourglassConfig
from training.options import TrainOptions
from training.pack import PackSettings, pack
from training.recipes import Recipe
from training.state import LAST, PREVIOUS, load_state, save_state
from training.trainer import Trainer, train

TINY = HourglassConfig(num_stacks=2, num_feats=8, depths=1, stem_feats=(4, 8))
RECIPE = Recipe(
    variant=TINY,
    size=32,
    batch_size=2,
    epochs=4,
    optimizer="adamw",
    lr=1e-3,
    schedule="cosine",
    warmup=5,
    clip_norm=1.0,
    dropout=0.2,
    ema=0.9,
    accumulate=2,
)

KILLED = """
import os, signal, sys
from pathlib import Path
from fasthg.network.variants import HourglassConfig
from fasthg.pixels.skeleton import Skeleton
from training.loading.augment import Augmentation
from training.learner import Learner
from training.recipes import Recipe
from training.options import TrainOptions
from training.trainer import train

learn = Learner.learn
def learn_until_killed(self, batch, step):
    if step == 17:
        os.kill(os.getpid(), signal.SIGKILL)
    return learn(self, batch, step)
Learner.learn = learn_until_killed
{options}
train(options)
"""


def options_for(data: Path, out: Path, **changes) -> TrainOptions:
    recipe = replace(RECIPE, **{k: v for k, v in changes.items() if k in Recipe.__dataclass_fields__})
    rest = {k: v for k, v in changes.items() if k not in Recipe.__dataclass_fields__}
    base = TrainOptions(
        data=data, out=out, recipe=recipe, device="cpu", num_workers=0, progress=False, tensorboard=False
    )
    return replace(base, validate_every=2, max_steps=40, **rest)


def kill_at_step_17(options: TrainOptions) -> None:
    """Run `options` in a process that is killed by SIGKILL after 17 steps."""
    text = repr(options).replace("PosixPath", "Path")
    script = textwrap.dedent(KILLED).format(options=f"options = {text}")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=600)
    assert done.returncode == -signal.SIGKILL, done.stderr


def same(a, b) -> bool:
    """Whether two nested states are equal, tensors bit for bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return a == b


@pytest.fixture(scope="module")
def straight(tiny_dataset, tmp_path_factory):
    """40 steps without an interruption."""
    out = tmp_path_factory.mktemp("straight")
    train(options_for(tiny_dataset, out))
    return load_state(out)


def test_same_seed_gives_the_same_weights(straight, tiny_dataset, tmp_path):
    train(options_for(tiny_dataset, tmp_path))
    assert same(load_state(tmp_path)["model"], straight["model"])


def test_a_run_that_stopped_early_goes_on_with_more_patience_alone(tiny_dataset, tmp_path, capsys):
    """A learning rate of next to nothing changes nothing, so the first validation stays the best."""
    still = options_for(tiny_dataset, tmp_path, lr=1e-12, freeze_norm=True, patience=1)
    still = replace(still, validate_every=1, progress=True)
    assert train(still).steps == 24
    capsys.readouterr()
    assert train(replace(still, resume=True)).steps == 24
    assert "stopped early: no better validation for 1 in a row" in capsys.readouterr().err
    assert train(replace(still, resume=True, patience=2)).steps == 36


@pytest.mark.parametrize("checkpoint_seconds", [0.0, 1e9], ids=["every step", "every epoch"])
def test_killed_after_17_steps_and_resumed_equals_40_straight(straight, tiny_dataset, tmp_path, checkpoint_seconds):
    options = options_for(tiny_dataset, tmp_path, checkpoint_seconds=checkpoint_seconds)
    kill_at_step_17(options)
    assert load_state(tmp_path)["step"] == (17 if checkpoint_seconds == 0 else 12)
    result = train(replace(options, resume=True))
    resumed = load_state(tmp_path)
    assert result.steps == resumed["step"] == 40
    for part in ("model", "optimizer", "average"):
        assert same(resumed[part], straight[part]), part
    scores = [{k: v for k, v in row.items() if k not in ("images_per_s", "data_wait")} for row in resumed["history"]]
    expected = [{k: v for k, v in row.items() if k not in ("images_per_s", "data_wait")} for row in straight["history"]]
    assert scores == expected


@pytest.mark.usefixtures("needs_bf16")
def test_mixed_precision_resumes_too(tiny_dataset, tmp_path):
    straight, broken = (options_for(tiny_dataset, tmp_path / name, path="amp") for name in ("straight", "broken"))
    train(straight)
    train(replace(broken, max_steps=17))
    train(replace(broken, resume=True))
    expected, resumed = (load_state(options.out)["model"] for options in (straight, broken))
    for name, tensor in expected.items():
        torch.testing.assert_close(resumed[name], tensor, rtol=0, atol=1e-6)


def test_log_has_every_epoch_once(tiny_dataset, tmp_path):
    options = options_for(tiny_dataset, tmp_path)
    train(replace(options, max_steps=17))
    train(replace(options, resume=True))
    rows = (tmp_path / "log.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "1", "2", "3"]


def test_truncated_checkpoint_is_noticed_and_the_older_one_used(tmp_path, capsys):
    for step in (1, 2):
        save_state(tmp_path, {"step": step, "weights": torch.randn(1000)})
    for size in (0, 100, (tmp_path / LAST).stat().st_size - 10):
        (tmp_path / "cut").mkdir(exist_ok=True)
        (tmp_path / "cut" / LAST).write_bytes((tmp_path / LAST).read_bytes()[:size])
        shutil.copy(tmp_path / PREVIOUS, tmp_path / "cut")
        assert load_state(tmp_path / "cut")["step"] == 1
        assert f"going on from {tmp_path / 'cut' / PREVIOUS} at step 1" in capsys.readouterr().err
    (tmp_path / "cut" / PREVIOUS).write_bytes(b"")
    with pytest.raises(FasthgError, match=r"nothing to resume: .*damaged"):
        load_state(tmp_path / "cut")


def test_full_disk_leaves_the_previous_checkpoint(tmp_path):
    """A limit on the size of files stands for the disk: the write fails in the same place."""
    script = """
    import resource, signal, sys, torch
    from pathlib import Path
    from fasthg.errors import FasthgError
    from training.state import load_state, save_state
    folder = Path(sys.argv[1])
    save_state(folder, {"step": 1, "weights": torch.zeros(1000)})
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        save_state(folder, {"step": 2, "weights": torch.zeros(1_000_000)})
    except FasthgError as error:
        print(error)
    print("step", load_state(folder)["step"], sorted(path.name for path in folder.iterdir()))
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "cannot write" in done.stdout, done.stderr
    assert "step 1 ['last.pt']" in done.stdout


def test_the_last_checkpoint_stays_until_the_new_one_is_on_the_disk(tmp_path, monkeypatch):
    """A disk that fills up while the new state is flushed: both states before it are still there."""
    for step in (1, 2):
        save_state(tmp_path, {"step": step})

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FasthgError, match="the disk is full"):
        save_state(tmp_path, {"step": 3})
    found = {path.name: torch.load(path, weights_only=True)["step"] for path in tmp_path.iterdir()}
    assert found == {LAST: 2, PREVIOUS: 1}


@pytest.mark.parametrize("links", [True, False])
def test_there_is_a_last_checkpoint_at_every_moment(tmp_path, monkeypatch, links):
    """Whatever is renamed, `last.pt` is whole before it and after it, on a file system without links too."""
    save_state(tmp_path, {"step": 1})
    replace, seen = os.replace, []

    def replace_and_look(source, target):
        seen.append(load_state(tmp_path)["step"])
        replace(source, target)
        seen.append(torch.load(tmp_path / LAST, weights_only=True)["step"])

    monkeypatch.setattr(os, "replace", replace_and_look)
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "not permitted")))
    save_state(tmp_path, {"step": 2})
    assert seen == [1, 1, 1, 2]
    assert torch.load(tmp_path / PREVIOUS, weights_only=True)["step"] == 1


def test_pickled_code_is_never_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("executed",))

    buffer = io.BytesIO()
    torch.save({"format": 1, "step": 1, "evil": Evil()}, buffer)
    (tmp_path / LAST).write_bytes(buffer.getvalue())
    with pytest.raises(FasthgError, match="damaged"):
        load_state(tmp_path)


def test_resume_refuses_another_variant_dataset_or_option(tiny_dataset, tmp_path):
    out = tmp_path / "run"
    train(replace(options_for(tiny_dataset, out), max_steps=1))
    before = (out / LAST).read_bytes()
    other = tmp_path / "other"
    shutil.copytree(tiny_dataset, other)
    text = (other / "annotations.json").read_text()
    (other / "annotations.json").write_text(text.replace('"scale_provided": ', '"scale_provided": 1', 1))
    cases = [
        (options_for(tiny_dataset, out, variant=replace(TINY, num_feats=16)), "variant was .*'num_feats': 8"),
        (options_for(tiny_dataset, out, lr=2e-3), "lr was 0.001 and is 0.002"),
        (options_for(other, out), "data was"),
    ]
    for options, message in cases:
        with pytest.raises(FasthgError, match=f"cannot resume: .*{message}.*--init-weights"):
            Trainer(replace(options, resume=True))
    assert (out / LAST).read_bytes() == before


def test_longer_run_may_go_on(tiny_dataset, tmp_path):
    options = options_for(tiny_dataset, tmp_path, epochs=1)
    assert train(options).steps == 12
    assert train(replace(options, recipe=replace(options.recipe, epochs=2), resume=True)).steps == 24


def test_run_in_the_folder_is_not_overwritten(tiny_dataset, tmp_path):
    options = replace(options_for(tiny_dataset, tmp_path), max_steps=1)
    train(options)
    with pytest.raises(FasthgError, match="holds a run already; give --resume"):
        Trainer(options)


def test_nothing_to_resume_is_said(tiny_dataset, tmp_path):
    with pytest.raises(FasthgError, match=f"nothing to resume: .* holds no {LAST}"):
        Trainer(options_for(tiny_dataset, tmp_path / "empty", resume=True))


def test_other_ranks_go_on_from_the_means_of_the_statistics(tiny_dataset, tmp_path):
    """A state without statistics of its own, as an earlier release wrote it, keeps those of its weights."""
    options = options_for(tiny_dataset, tmp_path)
    train(replace(options, max_steps=1))
    state = load_state(tmp_path)
    alone = state.pop("statistics")
    save_state(tmp_path, state)
    earlier = Trainer(replace(options, resume=True)).learner.statistics()
    torch.testing.assert_close(earlier, alone[0], rtol=0, atol=0)
    save_state(tmp_path, {**state, "statistics": torch.cat([alone - 1, alone + 3])})
    found = Trainer(replace(options, resume=True)).learner.statistics()
    torch.testing.assert_close(found, alone[0] + 1)


def test_statistics_that_went_bad_are_not_kept(tiny_dataset, tmp_path):
    """In the average of weights here: it, and another rank's, are not among the leader's own weights."""
    trainer = Trainer(options_for(tiny_dataset, tmp_path))
    trainer.learner.average.model.stem.norm.running_var.fill_(float("inf"))
    with pytest.raises(FasthgError, match="a batch statistic of some rank is not finite after step 0"):
        trainer._save()
    assert not (tmp_path / LAST).exists()


def forget(folder: Path, *names: str) -> None:
    """Make the state in `folder` one of an earlier release, whose identity lacks `names`."""
    state = load_state(folder)
    save_state(folder, {**state, "identity": {k: v for k, v in state["identity"].items() if k not in names}})


def test_resume_refuses_other_crops_and_another_validation(tiny_dataset, tmp_path):
    pytest.importorskip("simplejpeg")
    out, crops, other = tmp_path / "run", tmp_path / "crops.h5", tmp_path / "other"
    pack(tiny_dataset, crops, progress=False)
    pack(tiny_dataset, tmp_path / "finer.h5", settings=PackSettings(quality=95), progress=False)
    shutil.copytree(tiny_dataset, other)
    text = (other / "annotations.json").read_text()
    (other / "annotations.json").write_text(text.replace('"scale_provided": ', '"scale_provided": 1'))
    options = options_for(tiny_dataset, out, pack=crops)
    train(replace(options, max_steps=1))
    before = (out / LAST).read_bytes()
    cases = [
        ({"pack": None}, "pack was [0-9a-f]+ and is None"),
        ({"pack": tmp_path / "finer.h5"}, "pack was [0-9a-f]+ and is [0-9a-f]+"),
        ({"flip_test": True}, "flip_test was False and is True"),
        ({"val": other}, "validation was [0-9a-f]+ and is [0-9a-f]+"),
    ]
    for changes, message in cases:
        with pytest.raises(FasthgError, match=f"cannot resume: {message}; give the same"):
            Trainer(replace(options, resume=True, **changes))
    assert (out / LAST).read_bytes() == before
    moved = shutil.move(crops, tmp_path / "moved.h5")
    assert Trainer(replace(options, resume=True, pack=Path(moved))).step == 1


def test_a_run_that_does_not_say_what_it_was_loaded_from_goes_on(tiny_dataset, tmp_path):
    options = options_for(tiny_dataset, tmp_path, flip_test=True)
    train(replace(options, max_steps=1))
    forget(tmp_path, "pack", "dali", "flip_test", "validation")
    assert Trainer(replace(options, resume=True)).step == 1


def test_dali_is_part_of_what_a_run_was(tiny_dataset, tmp_path):
    train(replace(options_for(tiny_dataset, tmp_path), max_steps=1))
    assert load_state(tmp_path)["identity"]["dali"] is False


@pytest.mark.parametrize("name", ["log.csv", "curves.png"])
def test_a_file_of_the_users_is_not_overwritten(tiny_dataset, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(FasthgError, match=f"{tmp_path} holds {name}, which a training writes; give another --out"):
        Trainer(options_for(tiny_dataset, tmp_path))
    assert (tmp_path / name).read_text() == "mine"
