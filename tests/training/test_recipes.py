"""Every run of the study is one name, and a wrong name or number says the way out."""

from dataclasses import replace
from pathlib import Path

import pytest

from fasthg.errors import FasthgError
from fasthg.network.variants import STUDY_VARIANTS, HourglassConfig
from training.options import TrainOptions
from training.recipes import RECIPES, Recipe, get_recipe
from training.trainer import train


def reduced(recipe: Recipe) -> Recipe:
    """The same recipe on a network and crops that take milliseconds."""
    config = recipe.config
    depths = tuple(min(depth, 2) for depth in config.stack_depths[:2])
    small = replace(config, num_stacks=2, depths=depths, num_feats=4, stem_feats=(4, 8))
    return replace(recipe, variant=small, size=64)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_does_three_steps(name, tiny_dataset):
    recipe = reduced(RECIPES[name])
    if recipe.batch_size == 20:
        recipe = replace(recipe, batch_size=4)  # 24 people make one batch of 20
    options = TrainOptions(
        data=tiny_dataset, recipe=recipe, device="cpu", num_workers=0, max_steps=3, validate_every=0, progress=False
    )
    options = replace(options, teacher=Path("default") if recipe.teacher_share else None)
    result = train(options)
    assert result.steps == 3
    assert len(result.losses) == 3
    assert result.model.config.num_convs == RECIPES[name].config.num_convs
    assert result.model.config.norm == RECIPES[name].config.norm


def test_table_1_has_all_eight_variants_at_batch_20_for_50_epochs():
    runs = {name: recipe for name, recipe in RECIPES.items() if name.startswith("table1-")}
    assert [recipe.variant for recipe in runs.values()] == list(STUDY_VARIANTS)
    assert {(recipe.batch_size, recipe.epochs, recipe.optimizer) for recipe in runs.values()} == {(20, 50, "rmsprop")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "lion"}, "unknown optimizer 'lion'; choose one of rmsprop, adam, adamw, sgd"),
        ({"schedule": "poly"}, "unknown schedule 'poly'; choose one of constant, step, cosine"),
        ({"variant": "huge"}, "unknown variant 'huge'; choose one of original"),
        ({"batch_size": 0}, "batch_size is 0; give at least 1"),
        ({"lr": 0.0}, "lr is 0.0; give more than 0"),
        ({"lr": float("nan")}, "lr is nan; give more than 0"),
        ({"momentum": float("nan")}, "momentum is nan; give 0 or more"),
        ({"weight_decay": float("nan")}, "weight_decay is nan; give 0 or more"),
        ({"optimizer": "adam", "momentum": 1.0}, "momentum is 1.0; adam takes 0 to below 1"),
        ({"seed": 99999999999999999999}, "seed is 99999999999999999999; give less than 2\\*\\*63"),
        ({"milestones": (0.5, float("nan"))}, "milestones are 0.5, nan; give shares of the run, 0 or more"),
        ({"ema": 1.0}, "ema is 1.0"),
        ({"size": 100}, "size is 100; original takes multiples of 64"),
    ],
)
def test_impossible_values_are_refused(change, message):
    with pytest.raises(FasthgError, match=message):
        Recipe(**change)


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_steps", -3), ("patience", -1), ("validate_every", -1), ("max_seconds", float("nan")), ("num_workers", -1)],
)
def test_impossible_limits_are_refused(name, value):
    with pytest.raises(FasthgError, match=f"{name} is {value}; give 0 or more"):
        TrainOptions(**{name: value})


def test_unknown_recipe_lists_the_known_ones():
    with pytest.raises(FasthgError, match="unknown recipe 'table2'; choose one of table1-original"):
        get_recipe("table2")


def test_description_tells_networks_apart_and_is_plain():
    config = HourglassConfig(num_stacks=2, num_feats=8, depths=2)
    described = Recipe(variant=config, dropout=0.5).describe()
    assert described["variant"]["dropout"] == 0.5
    assert described["variant"]["depths"] == [2, 2]
    assert described != Recipe(variant=config).describe()
