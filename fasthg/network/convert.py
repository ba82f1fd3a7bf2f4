"""Published checkpoints of the same network under other names: bearpaw/pytorch-pose, anibali and princeton-vl.

    bearpaw/pytorch-pose, anibali/pytorch-stacked-hourglass
        One set of names; `{"state_dict": {"module....": ...}}` as the training scripts write it, or the bare state_dict
        of anibali's releases. Input: RGB in 0..1 less MPII's mean, as here.
    princeton-vl/pytorch_stacked_hourglass
        `{"state_dict": {"model.module....": ...}}`. Its stem is 64-128-128-256 where the others' is 64-128-256-256, and
        its input is RGB in 0..1, no mean subtracted; `config.mean` says so.

The architecture is read from the shapes. Files are only ever unpickled with `weights_only=True`.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from fasthg.errors import FasthgError
from fasthg.files import sha256
from fasthg.network.checkpoint import check_keys
from fasthg.network.model import HourglassNet
from fasthg.network.variants import HourglassConfig
from fasthg.pixels.geometry import MEAN
from fasthg.pixels.skeleton import Skeleton, check_count, of_count


class Converted(NamedTuple):
    """A published network in this project's names; `metadata` says where it came from and what was changed."""

    config: HourglassConfig
    state: dict[str, Tensor]
    metadata: dict[str, str]


def convert(path: str | Path, skeleton: Skeleton | None = None) -> Converted:
    """Read a published checkpoint.

    skeleton  its points, which no such file names; where left out, 16 are MPII's, 17 COCO's and others are numbered

    Raises FasthgError for a file that is no checkpoint, that holds more than tensors and plain values, whose names are
    of no known network, or that lacks weights, which are named.
    """
    theirs = load_published(path)
    if "conv1.weight" in theirs and any(name.startswith("hg.0.hg.") for name in theirs):
        origin, state = "bearpaw/pytorch-pose or anibali/pytorch-stacked-hourglass", from_pytorch_pose(theirs)
        mean, inputs = MEAN, "RGB in 0..1 less MPII's mean"
    elif "pre.0.conv.weight" in theirs:
        origin, state = "princeton-vl/pytorch_stacked_hourglass", from_princeton(theirs)
        mean, inputs = (0.0, 0.0, 0.0), "RGB in 0..1, no mean subtracted"
    elif "stem.conv.weight" in theirs:
        raise FasthgError(f"{path} is a fasthg checkpoint already; use it as it is with --weights")
    else:
        raise FasthgError(
            f"{path}: names such as {', '.join(list(theirs)[:3])} are of no known network; "
            "give a checkpoint of bearpaw/pytorch-pose, anibali/pytorch-stacked-hourglass or princeton-vl"
        )
    config = replace(infer_config(path, state), mean=mean)
    if skeleton is not None:
        check_count(str(path), config.num_joints, skeleton)
        config = replace(config, skeleton=skeleton)
    state = _without_last_merge(state, config)
    with torch.device("meta"):
        check_keys(str(path), state, HourglassNet(config).state_dict())
    metadata = {
        "converted_from": origin,
        "source_file": Path(path).name,
        "source_sha256": sha256(path),
        "input": inputs,
    }
    return Converted(config, state, metadata)


def load_published(path: str | Path) -> dict[str, Tensor]:
    """The float32 tensors of a pickled checkpoint by name, without the prefixes that wrappers add."""
    try:
        with warnings.catch_warnings():  # of pickle protocols, where the file is refused anyway
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise FasthgError(f"cannot read {path}: {error.strerror or error}; check the path") from None
    except pickle.UnpicklingError as error:
        raise FasthgError(
            f"{path} is refused: it is no checkpoint, or loading it could run code ({_first_reason(error)}); "
            "where you trust it, save its state_dict alone with torch.save and convert that"
        ) from None
    except Exception as error:  # PyTorch raises whatever its unpickler meets in a damaged file
        reason = str(error).partition(". ")[0].partition("\n")[0] or type(error).__name__
        raise FasthgError(f"{path} is not a whole PyTorch checkpoint ({reason}); fetch it again") from None
    state = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(tensor, Tensor) for tensor in state.values()) or not state:
        raise FasthgError(f"{path} holds no state_dict; give a checkpoint of a network's weights")
    return {re.sub(r"^((model|module)\.)+", "", name): _float(tensor) for name, tensor in state.items()}


def from_pytorch_pose(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """bearpaw's and anibali's names -> ours.

    `hg.S.hg.L.P.B`: stack S, level L counted from the innermost, P one of up1, low1, low3 and, at level 0, low2; B is
    the block at that location.
    """
    levels = [re.match(r"hg\.(\d+)\.hg\.(\d+)\.", name) for name in theirs]
    depth: dict[str, int] = {}
    for match in filter(None, levels):
        depth[match[1]] = max(depth.get(match[1], 0), int(match[2]) + 1)

    def location(match: re.Match[str]) -> str:
        stack, level, place = match[1], int(match[2]), ("up1", "low1", "low3", "low2")[int(match[3])]
        return f"stacks.{stack}.hourglass." + "low2." * (depth[stack] - 1 - level) + f"{place}."

    rules: tuple[_Rule, ...] = (
        (r"^conv1\.", "stem.conv."),
        (r"^bn1\.", "stem.norm."),
        (r"^layer(\d)\.0\.", r"stem.block\1."),
        (r"^hg\.(\d+)\.hg\.(\d+)\.([0-3])\.", location),
        (r"^res\.(\d+)\.", r"stacks.\1.blocks."),
        (r"^fc\.(\d+)\.0\.", r"stacks.\1.features."),
        (r"^fc\.(\d+)\.1\.", r"stacks.\1.norm."),
        (r"^score\.(\d+)\.", r"stacks.\1.score."),
        (r"^fc_\.(\d+)\.", r"stacks.\1.merge_features."),
        (r"^score_\.(\d+)\.", r"stacks.\1.merge_score."),
        (r"\.downsample\.0\.", ".skip."),
        *_BOTTLENECK,
    )
    return {_rename(name, rules): tensor for name, tensor in theirs.items()}


def from_princeton(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """princeton-vl's names -> ours.

    Its residual modules carry a projection also where the input already has the right width; the forward pass never
    uses it, so it is left out.
    """
    rules: tuple[_Rule, ...] = (
        (r"(\.conv)+\.(weight|bias)$", r".\2"),  # a convolution is wrapped in a module of its own, a merge in two
        (r"^pre\.0\.(weight|bias)$", r"stem.conv.\1"),
        (r"^pre\.0\.bn\.", "stem.norm."),
        (r"^pre\.1\.", "stem.block1."),
        (r"^pre\.3\.", "stem.block2."),
        (r"^pre\.4\.", "stem.block3."),
        (r"^hgs\.(\d+)\.0\.((?:low2\.)*(?:up1|low1|low2|low3)\.)", r"stacks.\1.hourglass.\g<2>0."),
        (r"^features\.(\d+)\.0\.", r"stacks.\1.blocks.0."),
        (r"^features\.(\d+)\.1\.bn\.", r"stacks.\1.norm."),
        (r"^features\.(\d+)\.1\.", r"stacks.\1.features."),
        (r"^outs\.(\d+)\.", r"stacks.\1.score."),
        (r"^merge_features\.(\d+)\.", r"stacks.\1.merge_features."),
        (r"^merge_preds\.(\d+)\.", r"stacks.\1.merge_score."),
        (r"\.skip_layer\.", ".skip."),
        *_BOTTLENECK,
    )
    ours = {_rename(name, rules): tensor for name, tensor in theirs.items()}
    unused = {
        name.replace("weight", kind)
        for name, tensor in ours.items()
        if name.endswith(".skip.weight") and tensor.shape[0] == tensor.shape[1]
        for kind in ("weight", "bias")
    }
    return {name: tensor for name, tensor in ours.items() if name not in unused}


def infer_config(path: str | Path, state: Mapping[str, Tensor]) -> HourglassConfig:
    """The configuration of a state_dict in our names, from its names and shapes."""

    def count(pattern: str) -> int:
        return 1 + max((int(m[1]) for m in map(re.compile(pattern).match, state) if m), default=-1)

    stacks = count(r"stacks\.(\d+)\.")
    levels = [
        1
        + max((name.count("low2.") for name in state if re.match(rf"stacks\.{i}\.hourglass\..*up1\.", name)), default=0)
        for i in range(stacks)
    ]
    if "stem.norm.running_mean" not in state:
        raise FasthgError(f"{path} has no running statistics: only networks with BatchNorm can be converted")
    try:
        return HourglassConfig(
            num_stacks=stacks,
            num_feats=len(state["stacks.0.blocks.0.convs.0.weight"]),
            depths=tuple(levels),
            num_blocks=count(r"stacks\.0\.blocks\.(\d+)\."),
            num_convs=count(r"stacks\.0\.blocks\.0\.convs\.(\d+)\."),  # type: ignore[arg-type]
            skeleton=of_count(len(state["stacks.0.score.weight"])),
            stem_feats=(len(state["stem.block1.convs.0.weight"]), len(state["stem.block2.convs.0.weight"])),
        )
    except KeyError as error:
        raise FasthgError(f"{path}: no weights for {error.args[0]}; the checkpoint is incomplete") from None


_Rule = tuple[str, str | Callable[[re.Match[str]], str]]


def _rename(name: str, rules: tuple[_Rule, ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


#: Inside a bottleneck both count norms and convolutions from one.
_BOTTLENECK: tuple[_Rule, ...] = (
    (r"\.bn(\d)\.", lambda match: f".norms.{int(match[1]) - 1}."),
    (r"\.conv(\d)\.", lambda match: f".convs.{int(match[1]) - 1}."),
)


def _without_last_merge(state: Mapping[str, Tensor], config: HourglassConfig) -> dict[str, Tensor]:
    """Leave out the way back into the trunk after the last stack, which some forks save though nothing follows it."""
    unused = f"stacks.{config.num_stacks - 1}.merge_"
    return {name: tensor for name, tensor in state.items() if not name.startswith(unused)}


def _float(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _first_reason(error: Exception) -> str:
    """The global or operation that an unpickling error names, without PyTorch's page of advice."""
    found = re.search(r"GLOBAL (\S+)|(Unsupported operand \d+)", str(error))
    return (found[1] or found[2]) if found else str(error).partition("\n")[0].rstrip(".")
