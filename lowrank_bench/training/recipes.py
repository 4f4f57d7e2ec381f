"""The recipes by name: those for tuning, and the one of every network that a task trains itself."""

from __future__ import annotations

from lowrank_bench.errors import UnknownName
from lowrank_bench.recipe import Recipe
from lowrank_bench.tasks.catalog import TASKS

__all__ = ["RECIPES", "Recipe", "get_recipe"]

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(name="none", epochs=0, images_per_epoch=1, learning_rate=1e-3),
        Recipe(name="short", version=2, epochs=1, images_per_epoch=8_192, learning_rate=3e-4),
        Recipe(name="standard", epochs=3, images_per_epoch=16_384, learning_rate=3e-4),
        Recipe(name="frozen", epochs=3, images_per_epoch=16_384, learning_rate=3e-4, frozen_factors=True),
        Recipe(
            name="lebedev",
            epochs=3,
            images_per_epoch=16_384,
            learning_rate=3e-4,
            frozen_factors=True,
            layer_by_layer=True,
        ),
        Recipe(name="distilled", epochs=3, images_per_epoch=16_384, learning_rate=3e-4, distillation=0.7),
        Recipe(name="vanishing", epochs=3, images_per_epoch=16_384, learning_rate=3e-4, side_by_side="vanishing"),
        Recipe(name="slices", epochs=3, images_per_epoch=16_384, learning_rate=3e-4, side_by_side="slices"),
        Recipe(name="long", epochs=12, images_per_epoch=16_384, learning_rate=5e-4, distillation=0.7, patience=4),
        *(baseline.recipe for task in TASKS.values() for baseline in task.baselines.values()),
    )
}


def get_recipe(name: str) -> Recipe:
    """Look a recipe up. Raises UnknownName with the nearest."""
    if name not in RECIPES:
        raise UnknownName("recipe", name, RECIPES)
    return RECIPES[name]
