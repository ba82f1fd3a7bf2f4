"""Published checkpoints become our networks, and nothing in a pickle is ever run.

The peers' names are written down here module by module, in the order of their constructors; numbers of keys and
parameters are those of the peers' own models (bearpaw's hg with 2 stacks, princeton-vl's PoseNet(2, 256, 16)).
"""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fasthg import create_model
from fasthg.cli.app import main
from fasthg.errors import FasthgError
from fasthg.network.checkpoint import load_config, load_model, read_metadata, save
from fasthg.network.convert import convert
from fasthg.network.model import HourglassNet
from fasthg.network.variants import HourglassConfig
from fasthg.pixels.image import normalise
from fasthg.pixels.skeleton import COCO
from fasthg.predict.predictor import Predictor

BLACK = (0.0, 0.0, 0.0)
PRINCETON = HourglassConfig(num_stacks=2, num_feats=16, depths=3, stem_feats=(64, 64), mean=BLACK)


def wrapped(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {
        "state_dict": {f"{prefix}{name}": tensor for name, tensor in state.items()},
        "epoch": 90,
        "best_acc": 0.8878,
    }


def loaded(path: Path) -> HourglassNet:
    config, state, metadata = convert(path)
    save(state, path.with_suffix(".safetensors"), config=config, metadata=metadata)
    return load_model(path.with_suffix(".safetensors"))


@pytest.mark.parametrize(
    "config",
    [
        HourglassConfig(num_stacks=2, num_feats=16, depths=3),
        HourglassConfig(num_stacks=3, num_feats=8, depths=(1, 2, 3), num_blocks=2, skeleton=COCO),
        HourglassConfig(num_stacks=1, num_feats=16, depths=2, num_convs=4),
    ],
    ids=["two stacks", "mixed depths, two blocks, COCO's joints", "four convolutions"],
)
def test_bearpaw_checkpoints_give_equal_heatmaps(
    config: HourglassConfig, tmp_path: Path, randomised: Any, pytorch_pose_names: Any
) -> None:
    net = randomised(config)
    path = tmp_path / "model_best.pth.tar"
    torch.save(wrapped("module.", pytorch_pose_names(net)), path, _use_new_zipfile_serialization=False)
    ours, crop = loaded(path), torch.rand(1, 3, 64, 64)
    assert ours.config == config
    assert torch.equal(ours(crop), net(crop))


@pytest.mark.parametrize("counters", [True, False], ids=["as they are", "of early PyTorch, without batch counters"])
def test_anibali_releases_give_equal_heatmaps(
    counters: bool, tmp_path: Path, randomised: Any, pytorch_pose_names: Any
) -> None:
    net = randomised(HourglassConfig(num_stacks=2, num_feats=16, depths=3))
    names = {n: t for n, t in pytorch_pose_names(net).items() if counters or "num_batches_tracked" not in n}
    torch.save(names, tmp_path / "bearpaw_hg2.pth")
    crop = torch.rand(1, 3, 64, 64)
    assert torch.equal(loaded(tmp_path / "bearpaw_hg2.pth")(crop), net(crop))


def test_the_published_two_stack_network_is_read_whole(tmp_path: Path, pytorch_pose_names: Any) -> None:
    net = HourglassNet(HourglassConfig(num_stacks=2))
    names = pytorch_pose_names(net)
    assert len(names) == 684
    assert sum(p.numel() for p in net.parameters()) == 6_730_912
    assert names["hg.1.hg.0.3.0.conv2.weight"].shape == (128, 128, 3, 3)
    assert names["layer2.0.downsample.0.weight"].shape == (256, 128, 1, 1)
    torch.save(wrapped("module.", names), tmp_path / "hg2.pth.tar")
    converted = convert(tmp_path / "hg2.pth.tar")
    assert converted.config == net.config
    assert converted.metadata["input"] == "RGB in 0..1 less MPII's mean"


def test_princeton_checkpoints_give_equal_heatmaps_up_to_the_border(
    tmp_path: Path, randomised: Any, princeton_names: Any
) -> None:
    """Theirs takes RGB in 0..1 with no mean subtracted, and so does what becomes of it, from the crop's bytes on."""
    net = randomised(PRINCETON)
    torch.save(wrapped("model.module.", princeton_names(net)), tmp_path / "checkpoint.pt")
    ours = loaded(tmp_path / "checkpoint.pt")
    assert ours.config == PRINCETON
    assert ours.config.mean == BLACK
    crop = torch.randint(256, (1, 64, 64, 3), dtype=torch.uint8)
    theirs = net.final(crop.permute(0, 3, 1, 2) / 255)
    torch.testing.assert_close(ours.final(normalise(crop, ours.config.mean)), theirs, rtol=0, atol=1e-6)


def test_the_published_princeton_network_is_read_whole(tmp_path: Path, princeton_names: Any) -> None:
    net = HourglassNet(HourglassConfig(num_stacks=2, stem_feats=(64, 64), mean=BLACK))
    names = princeton_names(net)
    assert len(names) == 742
    counted = sum(t.numel() for name, t in names.items() if "running" not in name and "tracked" not in name)
    assert counted == 8_429_088
    torch.save(wrapped("model.module.", names), tmp_path / "checkpoint.pt")
    converted = convert(tmp_path / "checkpoint.pt")
    assert converted.config == net.config
    assert converted.metadata["input"] == "RGB in 0..1, no mean subtracted"


def test_a_way_back_after_the_last_stack_is_left_out(tmp_path: Path, randomised: Any, princeton_names: Any) -> None:
    net = randomised(PRINCETON)
    names = princeton_names(net)
    names["merge_features.1.conv.conv.weight"] = torch.zeros(32, 32, 1, 1)
    names["merge_preds.1.conv.conv.weight"] = torch.zeros(32, 16, 1, 1)
    torch.save(names, tmp_path / "fork.pt")
    assert not [name for name in convert(tmp_path / "fork.pt").state if name.startswith("stacks.1.merge")]


def test_the_command_writes_what_create_model_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], randomised: Any, pytorch_pose_names: Any
) -> None:
    net = randomised(HourglassConfig(num_stacks=2, num_feats=8, depths=1))
    torch.save(pytorch_pose_names(net), tmp_path / "hg.pth")
    out = tmp_path / "hg.safetensors"
    assert main(["convert", str(tmp_path / "hg.pth"), "-o", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.out.strip() == str(out)
    assert "2 stacks of 8 features, skeleton mpii (16 points)" in printed.err
    crop = torch.rand(1, 3, 64, 64)
    assert torch.equal(create_model(net.config, weights=out)(crop), net(crop))
    assert read_metadata(out)["source_file"] == "hg.pth"


class Bomb:
    """Runs code where it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    target = tmp_path / "owned"
    torch.save({"state_dict": {}, "hook": Bomb(target)}, tmp_path / "evil.pth")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Bomb(target)))
    for name in ("evil.pth", "evil.pkl"):
        with pytest.raises(FasthgError, match=r"is refused: .*could run code") as error:
            convert(tmp_path / name)
        assert "\n" not in str(error.value)
    assert not target.exists()


def test_what_needs_more_than_tensors_is_refused_by_name(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "best_acc": np.float64(0.5)}, tmp_path / "a.pth")
    with pytest.raises(FasthgError, match=r"numpy\._core\.multiarray\.scalar.*save its state_dict alone"):
        convert(tmp_path / "a.pth")


def test_files_that_are_no_checkpoint_are_refused_in_one_line(tmp_path: Path, pytorch_pose_names: Any) -> None:
    names = pytorch_pose_names(HourglassNet(HourglassConfig(num_stacks=1, num_feats=8, depths=1)))
    torch.save(names, tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:4000])
    (tmp_path / "text.pth").write_text("not a checkpoint")
    (tmp_path / "empty.pth").write_bytes(b"")
    torch.save({"fc.weight": torch.zeros(1)}, tmp_path / "resnet.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({n: t for n, t in names.items() if "running" not in n}, tmp_path / "groupnorm.pth")
    torch.save({n: t for n, t in names.items() if n != "hg.0.hg.0.2.0.conv2.weight"}, tmp_path / "partial.pth")
    torch.save({n: t for n, t in names.items() if not n.startswith("score.")}, tmp_path / "headless.pth")
    for name, message in {
        "cut.pth": "not a whole PyTorch checkpoint",
        "text.pth": "is refused: it is no checkpoint",
        "empty.pth": "not a whole PyTorch checkpoint",
        "resnet.pth": r"names such as fc\.weight are of no known network",
        "list.pth": "holds no state_dict",
        "groupnorm.pth": "no running statistics",
        "partial.pth": r"1 missing \(stacks\.0\.hourglass\.low3\.0\.convs\.1\.weight\)",
        "headless.pth": r"no weights for stacks\.0\.score\.weight",
        "absent.pth": "No such file",
    }.items():
        with pytest.raises(FasthgError, match=message) as error:
            convert(tmp_path / name)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [None, "coco"])
def test_a_published_network_of_cocos_points_converts_predicts_and_exports(
    name: str | None, keypoints: Path, tmp_path: Path, randomised: Any, pytorch_pose_names: Any
) -> None:
    pytest.importorskip("onnxruntime")
    config = HourglassConfig(num_stacks=1, num_feats=8, depths=1, skeleton=COCO)
    torch.save(pytorch_pose_names(randomised(config)), tmp_path / "hg.pth")
    weights, photo = tmp_path / "hg.safetensors", keypoints / "coco" / "000000000785.jpg"
    skeleton = ["--skeleton", name] if name else []
    assert main(["convert", str(tmp_path / "hg.pth"), "-o", str(weights), *skeleton]) == 0
    assert load_config(weights).skeleton == COCO
    boxes = ["--boxes", str(keypoints / "coco" / "test_coco.json")]
    options = ["--weights", str(weights), "--path", "eager", "--flip", "--format", "json,coco", "--no-overlays"]
    assert main(["predict", str(photo), *boxes, *options, "-o", str(tmp_path / "out")]) == 0
    document = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert (document["joint_names"], len(document["predictions"][0]["joints"])) == (list(COCO.names), 17)
    options = ["--onnx", "--end-to-end", "--size", "64", "--weights", str(weights), "-o", str(tmp_path / "onnx")]
    data = ["--data", str(keypoints / "coco" / "test_coco.json"), "--holdout", "every2"]
    assert main(["export", *options, *data]) == 0
    found = Predictor(tmp_path / "onnx")(photo)
    assert found[0].joints.shape == (17, 2)
    assert main(["convert", str(tmp_path / "hg.pth"), "-o", str(tmp_path / "no.safetensors"), "--skeleton", "lsp"]) == 2
