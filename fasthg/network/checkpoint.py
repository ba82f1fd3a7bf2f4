"""Checkpoints: safetensors with the network's configuration in the header, checked key by key when they are loaded.

The header's metadata holds "config" (JSON of HourglassConfig), "fasthg" (the version that wrote it) and whatever the
writer adds, all strings. Nothing is ever unpickled here; published pickles go through `fasthg.network.convert`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fasthg.errors import FasthgError
from fasthg.files import write_bytes
from fasthg.network.model import HourglassNet
from fasthg.network.variants import VARIANTS, HourglassConfig
from fasthg.pixels.skeleton import check_same_points
from fasthg.version import __version__

_SHOWN = 3  # keys of each kind that an error lists


def save(
    model: nn.Module | Mapping[str, Tensor],
    path: str | Path,
    *,
    config: HourglassConfig | None = None,
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a network's weights to `path` (safetensors), as a whole or not at all.

    config    needed where `model` is a state_dict; else the model's own
    metadata  strings to keep in the header beside the configuration
    dtype     what the convolutions' kernels are stored as, such as torch.float16 to ship half the bytes; norms and
              biases keep float32. Loading gives float32 back.

    Raises FasthgError where the path cannot be written or a weight does not fit `dtype`.
    """
    state = model.state_dict() if isinstance(model, nn.Module) else model
    config = config or getattr(model, "config", None)
    if config is None:
        raise FasthgError(f"cannot save {path}: a state_dict does not say its configuration; give config=")
    tensors = {name: _stored(name, tensor, dtype) for name, tensor in state.items()}
    header = {"fasthg": __version__, **(metadata or {}), "config": json.dumps(asdict(config))}
    write_bytes(path, to_bytes(tensors, metadata=header))


def _stored(name: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    if dtype is None or not tensor.is_floating_point() or tensor.ndim < 2:
        return tensor
    stored = tensor.to(dtype)
    if stored.isfinite().sum() < tensor.isfinite().sum():
        raise FasthgError(f"{name} reaches {tensor.abs().max().item():.3g}, which {dtype} cannot hold; save in float32")
    return stored


def read_metadata(path: str | Path) -> dict[str, str]:
    """The strings of a checkpoint's header; raises FasthgError for a file that is not safetensors."""
    with _open(path) as file:
        return dict(file.metadata() or {})


def load_config(path: str | Path) -> HourglassConfig:
    """The configuration that a checkpoint was saved with; raises FasthgError where it has none."""
    config = config_of(path, read_metadata(path))
    if config is None:
        raise FasthgError(f"{path} has no configuration in its header; give a file written by fasthg train or convert")
    return config


def load_state(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint on the CPU, floating ones as float32; raises FasthgError where one is not finite."""
    with _open(path) as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    for name, tensor in state.items():
        if tensor.is_floating_point():
            state[name] = tensor = tensor.float()
            if not tensor.isfinite().all():
                raise FasthgError(f"{path}: {name} holds NaN or infinity; the training diverged, use an earlier file")
    return state


def load_into(model: HourglassNet, path: str | Path, assign: bool = False) -> None:
    """Load a checkpoint into a network of the same configuration, in place, or with the file's tensors for its own.

    Raises FasthgError that names the configuration, the mean or the skeleton that differs, or the missing, extra and
    misshapen keys.
    """
    theirs = config_of(path, read_metadata(path))
    if theirs is not None:
        check_same_network(str(path), theirs, model.config)
        check_same_points(str(path), theirs.skeleton, model.config.skeleton)
        if theirs.mean != model.config.mean:
            raise FasthgError(
                f"{path} was trained on images less the mean {_short(theirs.mean)}, the network takes them less"
                f" {_short(model.config.mean)}; make it with that mean"
            )
    state, wanted = load_state(path), model.state_dict()
    check_keys(str(path), state, wanted)
    model.load_state_dict(state, strict=False, assign=assign)


def load_model(path: str | Path) -> HourglassNet:
    """The network of a checkpoint with its weights, in evaluation mode, on the CPU in float32."""
    with _Uninitialised():  # to draw random weights takes longer than to read the file's
        model = HourglassNet(load_config(path))
    load_into(model, path, assign=True)
    return model.eval()


class _Uninitialised(TorchFunctionMode):
    """Layers that are made inside keep whatever their memory holds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def weights_digest(model: nn.Module) -> str:
    """Identity of a network's weights: 16 hexadecimal digits over the names and bytes of all tensors."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def variant_name(config: HourglassConfig) -> str | None:
    """The name of an architecture, such as "small" or "original@3"; None for another network."""
    count = config.num_stacks
    first = {f"{name}@{count}": known.first(count) for name, known in VARIANTS.items() if count < known.num_stacks}
    for name, known in (VARIANTS | first).items():
        if config.architecture == known.architecture:
            return name
    return None


def check_same_network(source: str, theirs: HourglassConfig, ours: HourglassConfig) -> None:
    """Raise FasthgError naming each field in which two configurations need different weights.

    What `HourglassConfig.architecture` leaves out needs none, or is part of them.
    """
    theirs, ours = theirs.architecture, ours.architecture
    names = [field.name for field in fields(ours) if getattr(theirs, field.name) != getattr(ours, field.name)]
    if not names:
        return
    differences = ", ".join(
        f"{name} {_short(getattr(theirs, name))} against {_short(getattr(ours, name))}" for name in names
    )
    held, wanted = variant_name(theirs) or "another network", variant_name(ours) or "a network of your own"
    way_out = f"give --variant {held}" if variant_name(theirs) else "leave the variant out"
    raise FasthgError(f"{source} holds {held}, not {wanted} ({differences}); {way_out}, or give other weights")


def check_keys(source: str, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raise FasthgError that names the first missing, extra and misshapen keys of `state` and counts them.

    The batch counters of BatchNorm, which nothing here reads, may be absent: early PyTorch did not write them.
    """
    missing = [name for name in wanted if name not in state and not name.endswith("num_batches_tracked")]
    extra = [name for name in state if name not in wanted]
    misshapen = [
        f"{name} is {list(state[name].shape)}, not {list(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in state and state[name].shape != tensor.shape
    ]
    found = [("missing", missing), ("extra", extra), ("misshapen", misshapen)]
    parts = [f"{len(names)} {kind} ({_listed(names)})" for kind, names in found if names]
    if parts:
        raise FasthgError(f"{source} does not fit the network: {'; '.join(parts)}; give weights of the same network")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _short(value: Any) -> str:
    if isinstance(value, tuple) and len(set(value)) == 1:
        return str(value[0])
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def config_of(path: str | Path, metadata: Mapping[str, str]) -> HourglassConfig | None:
    if "config" not in metadata:
        return None
    try:
        return HourglassConfig.from_dict(json.loads(metadata["config"]))
    except (TypeError, ValueError) as error:
        raise FasthgError(f"{path}: its configuration cannot be read ({error}); it may be of a newer fasthg") from error


@contextmanager
def _open(path: str | Path) -> Any:
    if Path(path).is_dir():
        raise FasthgError(f"{path} is a folder; give a .safetensors checkpoint")
    try:
        with safe_open(str(path), "pt") as file:
            yield file
    except FileNotFoundError:
        raise FasthgError(f"{path} does not exist; give a .safetensors checkpoint") from None
    except (SafetensorError, OSError) as error:
        raise FasthgError(
            f"{path} is not a whole safetensors file ({error}); pickled checkpoints go through `fasthg convert` first"
        ) from error
