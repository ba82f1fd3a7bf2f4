"""Train a network: `python -m training.train --variant small --data DIR --out RUN`, or `torchrun -m training.train`.

What it has reached, and by which commands, is in `fasthg/network/weights/README.md`.

The options are the fields of `Recipe`, `Augmentation` and `TrainOptions`, so the command line and Python say the same.
"""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable
from dataclasses import Field, fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from fasthg.console import note, run_command
from fasthg.data.projects import find_format
from training.distributed import leave_world
from training.loading.augment import Augmentation
from training.options import TrainOptions
from training.recipes import PROJECT, PROJECT_PATIENCE, RECIPES, Recipe, get_recipe
from training.trainer import Trainer

_NESTED = ("recipe", "augmentation", "skeleton")


def _command(recipe: str | None, **given: Any) -> None:
    """Train a stacked-hourglass network on a folder of annotated people."""
    given = {name: value for name, value in given.items() if value is not None}
    options = build_options(recipe, given)
    try:
        trainer = Trainer(options)
        result = trainer.run()
    finally:
        leave_world()
    if trainer.world.leads:
        note(f"{result.steps} steps done; the run is in {options.out}")


def build_options(recipe: str | None, given: dict[str, Any]) -> TrainOptions:
    """Options from a named recipe (or the base) and what was given beside it, by the fields' names.

    A labelled project of another tool has defaults of its own, `PROJECT`.
    """
    of_project = recipe is None and find_format(Path(given.get("data", TrainOptions.data))) is not None
    base = get_recipe(recipe) if recipe else PROJECT if of_project else Recipe()
    given = {"patience": PROJECT_PATIENCE, **given} if of_project else given
    augmentation = replace(base.augmentation, **_take(Augmentation, given, "augment_"))
    chosen = replace(base, augmentation=augmentation, **_take(Recipe, given))
    out = given.pop("out", Path("runs") / (recipe or chosen.variant_name))
    return replace(TrainOptions(), recipe=chosen, out=out, **_take(TrainOptions, given))


def _take(kind: type, given: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The part of what was given that belongs to a dataclass."""
    names = [field.name for field in fields(kind) if prefix + field.name in given]
    return {name: given[prefix + name] for name in names}


def _parameter(field: Field[Any], kind: type, prefix: str = "") -> inspect.Parameter:
    """The command-line option of a dataclass field; None stands for what the recipe says."""
    hint, *notes = _split(typing.get_type_hints(kind, include_extras=True)[field.name])
    choices = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        hint = list[float]
    elif choices:
        hint = Path if Path in choices else str
    note = notes[0] if notes else f"augmentation, {field.name.replace('_', ' ')}"
    shown = typer.Option(help=f"{note}  [default: {field.default}]", show_default=False)
    return _keyword(prefix + field.name, Annotated[typing.Optional[hint], shown])  # noqa: UP045 (hint is a value)


def _split(hint: Any) -> tuple[Any, ...]:
    """Annotated[int, "note"] -> (int, "note")."""
    return typing.get_args(hint) if typing.get_origin(hint) is Annotated else (hint,)


def _keyword(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _with_options() -> Callable[..., None]:
    """`_command` with the fields of the three dataclasses as its parameters."""
    recipe_help = "one of the study's runs: " + ", ".join(RECIPES) + "; other options change it"
    parameters = [_keyword("recipe", Annotated[str | None, typer.Option(help=recipe_help)])]
    for kind, prefix in ((TrainOptions, ""), (Recipe, ""), (Augmentation, "augment_")):
        parameters += [_parameter(field, kind, prefix) for field in fields(kind) if field.name not in _NESTED]
    _command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    _command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return _command


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return run_command(_with_options(), argv, "python -m training.train")


if __name__ == "__main__":
    sys.exit(main())
