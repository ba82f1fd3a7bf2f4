"""What a student learns from: its labels and its teacher's heatmaps, in the shares that were asked for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fasthg.errors import FasthgError
from fasthg.network.checkpoint import load_model, save
from fasthg.network.model import HourglassNet
from fasthg.network.variants import HourglassConfig
from fasthg.pixels.skeleton import get_skeleton
from training.loss import heatmap_loss
from training.options import TrainOptions
from training.recipes import Recipe, get_recipe
from training.state import load_state, save_state
from training.teacher import Teacher
from training.trainer import Trainer, train

STUDENT = HourglassConfig(num_stacks=2, num_feats=4, depths=1, stem_feats=(4, 4))
RECIPE = Recipe(variant=STUDENT, size=64, batch_size=4, epochs=1, lr=1e-3)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A wider and deeper teacher, whose images keep their mean."""
    torch.manual_seed(1)
    config = HourglassConfig(num_stacks=3, num_feats=8, depths=2, stem_feats=(8, 8), mean=(0.0, 0.0, 0.0))
    save(HourglassNet(config), tmp_path / "teacher.safetensors")
    return tmp_path / "teacher.safetensors"


def options(data: Path, **changes) -> TrainOptions:
    fixed = {"device": "cpu", "num_workers": 0, "validate_every": 0, "progress": False, "tensorboard": False}
    return TrainOptions(data=data, recipe=changes.pop("recipe", RECIPE), max_steps=3, **fixed, **changes)


def test_the_loss_is_the_mix_of_labels_and_teacher(tiny_dataset: Path, weights: Path) -> None:
    """By hand: a quarter of the error to the teacher's last heatmaps, of all joints, and three to the labels."""
    trainer = Trainer(options(tiny_dataset, teacher=weights, recipe=replace(RECIPE, teacher_share=0.25)))
    trainer.loader.set_epoch(0, 0)
    batch = next(iter(trainer.loader))
    images, targets, labelled = trainer.learner._on_device(batch)
    model = load_model(weights)
    with torch.no_grad():
        taught = model.final(images + torch.tensor(STUDENT.mean)[:, None, None])
        heatmaps = trainer.learner.model(images)
    to_teacher = sum((heatmaps[:, stack] - taught).square().mean() for stack in range(2))
    expected = 0.75 * heatmap_loss(heatmaps, targets, labelled) + 0.25 * to_teacher
    assert trainer.learner.learn(batch, 0).item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_teacher_does_not_answer_for_joints_that_the_data_never_labels(
    tiny_dataset: Path, weights: Path, tmp_path: Path
) -> None:
    """As LSP's pelvis and thorax, for which a network that learnt from LSP gives anything."""
    rows = json.loads((tiny_dataset / "annotations.json").read_text())
    for row in rows:
        row["joint_self"][6] = [0, 0, 0]  # in everybody
    rows[0]["joint_self"][3] = [0, 0, 0]  # in one person
    folder = tmp_path / "people"
    folder.mkdir()
    (folder / "images").symlink_to(tiny_dataset / "images")
    (folder / "annotations.json").write_text(json.dumps(rows))
    teacher = Trainer(options(folder, teacher=weights)).teacher
    assert teacher is not None
    heatmaps, taught = torch.rand(2, 2, 16, 16, 16), torch.rand(2, 16, 16, 16)
    loss = teacher.mix(torch.tensor(0.0), heatmaps, taught)
    changed = [taught.clone() for _joint in range(16)]
    for joint, other in enumerate(changed):
        other[:, joint] += 100
    same = [joint for joint in range(16) if torch.equal(teacher.mix(torch.tensor(0.0), heatmaps, changed[joint]), loss)]
    assert same == [6]


def test_a_teacher_that_also_sees_the_mirror_image_answers_alike_for_both(tiny_dataset: Path, weights: Path) -> None:
    """Mirroring the crop mirrors the answer and exchanges left and right, which one pass alone does not."""
    order = get_skeleton("mpii").flip_order
    images = torch.rand(2, 3, 64, 64)
    differences = []
    for flip in (False, True):
        teacher = Trainer(options(tiny_dataset, teacher=weights, recipe=replace(RECIPE, teacher_flip=flip))).teacher
        assert teacher is not None
        answer, mirrored = teacher(images), teacher(images.flip(-1))
        differences.append((answer - mirrored.flip(-1)[:, list(order)]).abs().max().item())
        if not flip:
            mean = (answer + mirrored.flip(-1)[:, list(order)]) / 2
    assert differences[0] > 1e-3
    assert differences[1] < 1e-5
    assert torch.allclose(answer, mean, atol=1e-5)


def test_a_student_with_nothing_but_its_teacher_comes_closer_to_it(tiny_dataset: Path, weights: Path) -> None:
    recipe = replace(RECIPE, teacher_share=1.0, optimizer="adam", lr=3e-3, epochs=12)
    losses = train(replace(options(tiny_dataset, teacher=weights, recipe=recipe), max_steps=72)).losses
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


def test_the_teacher_stays_as_it_is_and_changes_what_is_learnt(tiny_dataset: Path, weights: Path) -> None:
    trainer = Trainer(options(tiny_dataset, teacher=weights))
    assert trainer.teacher is not None
    assert trainer.teacher.share == 0.5
    before = {name: tensor.clone() for name, tensor in trainer.teacher.model.state_dict().items()}
    taught = trainer.run().model.state_dict()
    assert all(torch.equal(before[name], tensor) for name, tensor in trainer.teacher.model.state_dict().items())
    alone = train(options(tiny_dataset)).model.state_dict()
    assert any(not torch.equal(taught[name], alone[name]) for name in alone)


def test_a_run_does_not_go_on_with_another_teacher(tiny_dataset: Path, weights: Path, tmp_path: Path) -> None:
    first = options(tiny_dataset, teacher=weights, out=tmp_path / "run")
    train(first)
    torch.manual_seed(2)
    save(HourglassNet(STUDENT), tmp_path / "other.safetensors")
    for other in (None, tmp_path / "other.safetensors"):
        with pytest.raises(FasthgError, match="cannot resume: teacher was"):
            Trainer(replace(first, resume=True, teacher=other))
    assert Trainer(replace(first, resume=True)).step == 3


def test_a_run_of_before_teachers_had_mirrors_goes_on(tiny_dataset: Path, tmp_path: Path) -> None:
    first = options(tiny_dataset, out=tmp_path / "run")
    train(first)
    state = load_state(tmp_path / "run")
    del state["identity"]["teacher_flip"]
    save_state(tmp_path / "run", state)
    assert Trainer(replace(first, resume=True)).step == 3


def test_teachers_that_do_not_fit_are_refused(tiny_dataset: Path, weights: Path, tmp_path: Path) -> None:
    save(HourglassNet(replace(STUDENT, skeleton=get_skeleton("coco"))), tmp_path / "coco.safetensors")
    with pytest.raises(FasthgError, match=r"teacher .*coco.safetensors has the skeleton"):
        Teacher(tmp_path / "coco.safetensors", None, STUDENT, 0.5, np.ones(16, bool))
    with pytest.raises(FasthgError, match="holds another network, not small"):
        Trainer(options(tiny_dataset, teacher=weights, teacher_variant="small"))
    for changes in ({"recipe": replace(RECIPE, teacher_share=0.5)}, {"teacher_variant": "small"}):
        with pytest.raises(FasthgError, match=r"and no weights; give --teacher F\.safetensors"):
            Trainer(options(tiny_dataset, **changes))
    with pytest.raises(FasthgError, match=r"teacher_share is 1\.5; give a share from 0 to 1"):
        replace(RECIPE, teacher_share=1.5)


def test_the_recipe_by_name_is_half_the_teachers() -> None:
    recipe = get_recipe("distil-small")
    assert (recipe.variant, recipe.teacher_share) == ("small", 0.5)


def test_a_teacher_that_needs_another_side_of_the_crop_is_refused(tiny_dataset: Path, tmp_path: Path) -> None:
    deep = HourglassConfig(num_stacks=1, num_feats=4, depths=4, stem_feats=(4, 4))
    save(HourglassNet(deep), tmp_path / "deep.safetensors")
    changed = replace(RECIPE, size=40)
    message = "takes crops whose side is a multiple of 64, and the student's is 40; give --size 64"
    with pytest.raises(FasthgError, match=message):
        Trainer(options(tiny_dataset, teacher=tmp_path / "deep.safetensors", recipe=changed))
