"""Checkpoints come back as they were saved, and the wrong ones are refused by name."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from fasthg import create_model
from fasthg.errors import FasthgError
from fasthg.network.checkpoint import load_config, load_into, load_model, read_metadata, save, variant_name
from fasthg.network.load import default_weights
from fasthg.network.model import HourglassNet
from fasthg.network.variants import VARIANTS, HourglassConfig
from fasthg.pixels.skeleton import COCO, MPII, Skeleton, of_count

CROP = torch.rand(1, 3, 64, 64)


@pytest.fixture
def net(tiny_config: HourglassConfig) -> HourglassNet:
    return HourglassNet(tiny_config).eval()


@pytest.fixture
def file(net: HourglassNet, tmp_path: Path) -> Path:
    path = tmp_path / "net.safetensors"
    save(net, path, metadata={"pckh": "86.4"})
    return path


def test_a_network_answers_the_same_after_saving_and_loading(net: HourglassNet, file: Path) -> None:
    loaded = load_model(file)
    assert not loaded.training
    assert torch.equal(loaded(CROP), net(CROP))
    assert load_config(file) == net.config


def test_any_safetensors_reader_finds_the_configuration_in_the_header(file: Path) -> None:
    with safe_open(file, "pt") as content:
        metadata = content.metadata()
    assert json.loads(metadata["config"])["num_feats"] == 16
    assert metadata["pckh"] == "86.4"
    assert read_metadata(file) == metadata


def test_a_networks_own_skeleton_is_in_the_header_and_comes_back(tiny_config: HourglassConfig, tmp_path: Path) -> None:
    mouse = Skeleton("mouse", ("snout", "leftear", "rightear"), pairs=((2, 1),), limbs=((0, 1), (0, 2)))
    save(HourglassNet(replace(tiny_config, skeleton=mouse)), tmp_path / "mouse.safetensors")
    assert json.loads(read_metadata(tmp_path / "mouse.safetensors")["config"])["skeleton"]["names"][1] == "leftear"
    assert load_model(tmp_path / "mouse.safetensors").config.skeleton == mouse


@pytest.mark.parametrize("count", [16, 17, 5])
def test_an_earlier_file_says_its_number_of_points(tiny_config: HourglassConfig, count: int, tmp_path: Path) -> None:
    net = HourglassNet(replace(tiny_config, skeleton=of_count(count)))
    old = {name: value for name, value in asdict(net.config).items() if name != "skeleton"} | {"num_joints": count}
    save_file(net.state_dict(), tmp_path / "old.safetensors", {"config": json.dumps(old)})
    skeleton = load_config(tmp_path / "old.safetensors").skeleton
    assert skeleton == {16: MPII, 17: COCO}.get(count, skeleton)
    assert len(load_model(tmp_path / "old.safetensors").config.skeleton) == count


def test_weights_of_other_points_are_named(tiny_config: HourglassConfig, tmp_path: Path) -> None:
    save(HourglassNet(replace(tiny_config, skeleton=COCO)), tmp_path / "coco.safetensors")
    with pytest.raises(FasthgError, match=r"has the skeleton coco \(17 points\) where mpii \(16 points\) is wanted"):
        load_into(HourglassNet(tiny_config), tmp_path / "coco.safetensors")
    renamed = replace(COCO, name="own", names=("beak", *COCO.names[1:]))
    with pytest.raises(FasthgError, match="point 1 is 'nose', not 'beak'"):
        load_into(HourglassNet(replace(tiny_config, skeleton=renamed)), tmp_path / "coco.safetensors")


def test_channels_last_weights_are_saved_like_any(net: HourglassNet, tmp_path: Path) -> None:
    before = net(CROP)
    save(net.to(memory_format=torch.channels_last), tmp_path / "a.safetensors")
    assert torch.equal(load_model(tmp_path / "a.safetensors")(CROP), before)


def test_half_precision_ships_fewer_bytes_and_loads_as_float32(net: HourglassNet, file: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.safetensors"
    save(net, half, dtype=torch.float16)
    assert half.stat().st_size < 0.75 * file.stat().st_size  # norms, keys and biases weigh much in so small a network
    loaded = load_model(half)
    assert {tensor.dtype for tensor in loaded.parameters()} == {torch.float32}
    scale = net(CROP).abs().max()
    assert (loaded(CROP) - net(CROP)).abs().max() < 2e-3 * scale  # fp16 keeps 11 bits: 5e-4 for each weight
    assert torch.equal(loaded.stem.norm.weight, net.stem.norm.weight)


def test_a_weight_that_half_precision_cannot_hold_is_named(net: HourglassNet, tmp_path: Path) -> None:
    with torch.no_grad():
        net.stem.conv.weight[0, 0, 0, 0] = 1e6
    with pytest.raises(FasthgError, match=r"stem\.conv\.weight reaches 1e\+06"):
        save(net, tmp_path / "a.safetensors", dtype=torch.float16)
    assert os.listdir(tmp_path) == []


def test_weights_of_another_variant_are_named_with_the_difference(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save(create_model("feats64-deepening"), path)
    message = (
        r"holds feats64-deepening, not small \(num_stacks 8 against 2, depths 2,2,2,3,3,3,4,4 against 4\); give --var"
    )
    with pytest.raises(FasthgError, match=message):
        create_model("small", weights=path)


def test_dropout_does_not_make_another_network(net: HourglassNet, file: Path) -> None:
    load_into(HourglassNet(replace(net.config, dropout=0.1)), file)
    assert variant_name(replace(VARIANTS["feats64"], dropout=0.2)) == "feats64"
    assert variant_name(net.config) is None


def test_missing_extra_and_misshapen_keys_are_named(net: HourglassNet, tmp_path: Path) -> None:
    state = net.state_dict()
    del state["stem.conv.bias"], state["stem.norm.num_batches_tracked"]  # the latter is not worth an error
    state["head.weight"] = torch.zeros(1)
    state["stacks.1.score.weight"] = torch.zeros(17, 32, 1, 1)
    save(state, tmp_path / "a.safetensors", config=net.config)
    with pytest.raises(FasthgError) as error:
        load_model(tmp_path / "a.safetensors")
    assert "1 missing (stem.conv.bias); 1 extra (head.weight); 1 misshapen" in str(error.value)
    assert "stacks.1.score.weight is [17, 32, 1, 1], not [16, 32, 1, 1]" in str(error.value)


def test_only_the_first_of_many_keys_are_listed(net: HourglassNet, tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in net.state_dict().items() if not name.startswith("stem")}
    save(state, tmp_path / "a.safetensors", config=net.config)
    with pytest.raises(
        FasthgError, match=r"\d+ missing \(stem.conv.weight, stem.conv.bias, stem.norm.weight, \.\.\.\)"
    ):
        load_model(tmp_path / "a.safetensors")


def test_weights_of_a_diverged_training_are_refused(net: HourglassNet, tmp_path: Path) -> None:
    with torch.no_grad():
        net.stem.conv.bias[3] = float("nan")
    save(net, tmp_path / "a.safetensors")
    with pytest.raises(FasthgError, match=r"stem\.conv\.bias holds NaN or infinity"):
        load_model(tmp_path / "a.safetensors")


def test_damaged_and_foreign_files_are_refused_in_one_line(file: Path, tmp_path: Path) -> None:
    content = file.read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[: len(content) // 2])
    torch.save({"a": torch.zeros(1)}, tmp_path / "pickle.pt")
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "newer.safetensors", metadata={"config": '{"num_heads": 3}'})
    for name, message in {
        "cut.safetensors": "not a whole safetensors file",
        "pickle.pt": "`fasthg convert` first",
        "foreign.safetensors": "no configuration in its header",
        "newer.safetensors": "may be of a newer fasthg",
        "absent.safetensors": "does not exist",
        ".": "is a folder",
    }.items():
        with pytest.raises(FasthgError, match=message) as error:
            load_model(tmp_path / name)
        assert "\n" not in str(error.value)


def test_a_variant_without_shipped_weights_asks_for_some() -> None:
    with pytest.raises(FasthgError, match="no weights ship for convs4; give a checkpoint with --weights"):
        default_weights("convs4")


def test_a_state_dict_needs_its_configuration(net: HourglassNet, tmp_path: Path) -> None:
    with pytest.raises(FasthgError, match="give config="):
        save(net.state_dict(), tmp_path / "a.safetensors")
