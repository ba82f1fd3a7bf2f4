"""Networks by name, with weights by name: those that ship with the package, those that are published, a user's own."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from fasthg.errors import FasthgError
from fasthg.network.checkpoint import (
    check_same_network,
    config_of,
    load_config,
    load_into,
    load_model,
    load_state,
    read_metadata,
    variant_name,
)
from fasthg.network.model import HourglassNet
from fasthg.network.published import PUBLISHED, fetch
from fasthg.network.stacks import first_stacks
from fasthg.network.variants import VARIANTS, HourglassConfig, get_config, split_stacks

log = logging.getLogger("fasthg")

WEIGHTS_DIR = Path(__file__).parent / "weights"
SHIPPED = {"default": "small", "rendered": "small-rendered"}  # names of weights, and the files' in WEIGHTS_DIR


def find_weights(weights: str | Path) -> Path:
    """The checkpoint that a name or a path stands for: whoever takes a path takes a name.

    "default" and "rendered" ship with the package, the others are published and fetched (`fasthg.network.published`).
    """
    name = str(weights)
    if name in SHIPPED:
        path = WEIGHTS_DIR / f"{SHIPPED[name]}.safetensors"
        say_once(path)
        return path
    if name in PUBLISHED:
        return fetch(name)
    if not Path(name).suffix and not Path(name).exists():
        known = ", ".join([*SHIPPED, *PUBLISHED])
        raise FasthgError(f"{name} does not exist; give a .safetensors checkpoint or one of {known}")
    return Path(name)


@cache
def say_once(path: Path) -> None:
    """Which of the weights that ship with the package these are, on their first use in a process."""
    about = read_metadata(path).get("about", "")
    log.info("weights: the %s network that ships with fasthg%s", path.stem, about and f", {about}")


def default_weights(variant: str | HourglassConfig = "small") -> Path:
    """The weights that ship with the package, said on first use; raises FasthgError for a variant that ships none."""
    name = variant if isinstance(variant, str) else variant_name(variant) or "a network of your own"
    path = WEIGHTS_DIR / f"{name}.safetensors"
    if not path.is_file():
        raise FasthgError(f"no weights ship for {name}; give a checkpoint with --weights F.safetensors")
    say_once(path)
    return path


def create_model(variant: str | HourglassConfig = "original", weights: str | Path | None = None) -> HourglassNet:
    """A network by name or configuration, in evaluation mode where weights are loaded.

    weights   None: fresh (He) initialisation; "default": the weights that ship with the package (`small` only);
              another name that `fasthg list --weights` shows; else the path of a `.safetensors` checkpoint. It must be
              of the same architecture; its mean, skeleton and side of crops come with it. A variant such as
              "original@3" takes the first stacks of original's weights
    """
    if isinstance(variant, str) and weights is not None:
        whole, count = split_stacks(variant)
        if count is not None:
            return first_stacks(create_model(whole, weights), count)
    config = get_config(variant) if isinstance(variant, str) else variant
    if weights is None:
        return HourglassNet(config)
    path = default_weights(variant) if weights == "default" else find_weights(weights)
    theirs = config_of(path, read_metadata(path))
    if theirs is not None:
        config = replace(config, mean=theirs.mean, skeleton=theirs.skeleton, input_size=theirs.input_size)
    model = HourglassNet(config)
    load_into(model, path)
    return model.eval()


@dataclass(frozen=True)
class Matched:
    """What a network took over from another one's weights: names of tensors that fit, and of those that stay fresh."""

    source: str
    taken: tuple[str, ...]
    fresh: tuple[str, ...]

    def __str__(self) -> str:
        layers = list(dict.fromkeys(name.rpartition(".")[0] for name in self.fresh))
        rest = f"; fresh: {', '.join(layers[:4])}{', ...' if len(layers) > 4 else ''}" if layers else ""
        return f"start: {len(self.taken)} of {len(self.taken) + len(self.fresh)} tensors of {self.source} match{rest}"


def load_matching(model: HourglassNet, weights: str | Path) -> Matched:
    """Take over, in place, the tensors of a checkpoint that have the names and shapes of the network's own.

    Heatmaps' layers are taken where the skeletons have the same points alone. `weights` is also the name of a variant
    that ships weights. Raises FasthgError where nothing fits, or where the mean of the images is another one.
    """
    path = default_weights(str(weights)) if str(weights) in VARIANTS else find_weights(weights)
    theirs = load_config(path)
    if theirs.mean != model.config.mean:
        raise FasthgError(f"{path} was trained on images less another mean; start from other weights")
    state, ours = load_state(path), model.state_dict()
    same_points = theirs.skeleton.names == model.config.skeleton.names
    fits = {
        name: tensor
        for name, tensor in state.items()
        if name in ours and ours[name].shape == tensor.shape and (same_points or "score" not in name)
    }
    if not fits:
        raise FasthgError(f"{path}: no layer fits the network; start from weights of a variant that is nearer to it")
    model.load_state_dict(fits, strict=False)
    return Matched(str(weights), tuple(fits), tuple(name for name in ours if name not in fits))


def load_network(weights: str | Path | None = None, variant: str | None = None) -> HourglassNet:
    """The network with its weights, in evaluation mode, on the CPU.

    weights  a `.safetensors` checkpoint or a name that `fasthg list --weights` shows; None for those that ship with the
             package, which is said
    variant  what the network must be; None takes it from the file

    Raises FasthgError where the two disagree or the file does not say its network.
    """
    weights = default_weights(variant or "small") if weights is None else find_weights(weights)
    if variant is None:
        return load_model(weights)
    config = get_config(variant)
    if "config" not in read_metadata(weights):
        model = HourglassNet(config)
        load_into(model, weights)
        return model.eval()
    check_same_network(str(weights), load_config(weights), config)
    return load_model(weights)
