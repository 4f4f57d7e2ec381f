"""Recipes that run the dense layers beside the factored ones while tuning."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import SIZE, toy_batches, toy_net

import lowrank_bench as lrb
from lowrank_bench.compression.method import Job
from lowrank_bench.compression.modules import Factored
from lowrank_bench.recipe import Recipe
from lowrank_bench.training.recalibrate import recalibrate
from lowrank_bench.training.recipes import get_recipe
from lowrank_bench.training.side_by_side import Blend, Slices, Vanishing
from lowrank_bench.training.tuning import tune

PLAIN = Recipe(name="plain", epochs=2, images_per_epoch=256, batch_size=32, learning_rate=3e-3)
RANKS = {"3": 2, "5": 2}


def beside(kind: str) -> Recipe:
    return PLAIN.model_copy(update={"name": kind, "side_by_side": kind})


def tuned(
    recipe: Recipe, ranks: Any = RANKS, batches: Any = toy_batches, **told: Any
) -> tuple[nn.Module, nn.Module, Any]:
    """The dense network, the tuned one and its history; without ranks it is the dense control."""
    dense, job = toy_net(norm=True), Job(SIZE, ranks=ranks)
    method = lrb.methods()["channel_svd" if ranks else "identity"]()
    after, history = tune(method.compress(dense, job), dense, method, job, batches, recipe, **told)
    return dense, after.model, history


def values(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("kind", ["vanishing", "slices"])
def test_the_network_keeps_its_structure_and_the_dense_one_its_values(kind: str) -> None:
    dense, model, history = tuned(beside(kind), validate=lambda model: 50.0)
    kinds = [Factored if name in RANKS else type(layer) for name, layer in dense.named_children()]
    assert [type(layer) for layer in model.children()] == kinds
    assert same(values(dense), values(toy_net(norm=True)))
    assert len(history.epochs) == 2 and not dense.training and not model.training
    assert not any(layer._forward_hooks for layer in dense.modules())


def test_a_blend_goes_from_the_dense_layer_to_the_factored_one() -> None:
    torch.manual_seed(0)
    dense, factored, x = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3), torch.randn(2, 4, 8, 8)
    blend = Blend(dense, factored)
    course = Vanishing([blend], steps=40)
    torch.testing.assert_close(blend(x), dense(x))
    course.after_step(9)
    torch.testing.assert_close(blend(x), (dense(x) + factored(x)) / 2)  # Q = 20 steps: beta = 1 - 10 / 20
    for step in (19, 39):
        course.after_step(step)
        assert torch.equal(blend(x), factored(x))


def test_what_vanishes_still_teaches() -> None:
    _, plain, _ = tuned(PLAIN)
    _, vanished, _ = tuned(beside("vanishing"))
    assert not same(values(plain), values(vanished))


def test_every_slice_learns_its_dense_layer_and_nothing_else_changes() -> None:
    dense, model, _ = tuned(beside("slices"))
    start = lrb.compress(dense, "channel_svd", ranks=RANKS, input_size=SIZE).model
    images = toy_batches(99)[0][0]
    for name in RANKS:
        assert error(dense, model, name, images) < error(dense, start, name, images)
    for (name, before), after in zip(start.named_children(), model.children(), strict=True):
        assert same(values(before), values(after)) == (name not in RANKS or not values(before))


def error(dense: nn.Module, model: nn.Module, name: str, images: Tensor) -> float:
    slices = Slices(model, dense, [name])
    with torch.no_grad():
        assert torch.equal(slices(images), dense(images))
    slices.release()
    return float(slices.penalty().detach())


def test_slices_learn_without_labels() -> None:
    def relabelled(index: int) -> Iterable[tuple[Tensor, Tensor]]:
        return [(images, torch.zeros_like(labels)) for images, labels in toy_batches(index)]

    (_, model, history), (_, again, told) = tuned(beside("slices")), tuned(beside("slices"), batches=relabelled)
    assert same(values(model), values(again))
    assert [epoch.loss for epoch in history.epochs] == [epoch.loss for epoch in told.epochs]


def test_batch_norm_is_settled_before_a_network_of_slices_is_judged_and_at_the_end() -> None:
    def settle(model: nn.Module) -> None:
        recalibrate(model, toy_batches(7))

    def off(model: nn.Module) -> float:
        settled = copy.deepcopy(model)
        settle(settled)
        return float((settled.get_buffer("1.running_mean") - model.get_buffer("1.running_mean")).abs().max())

    _, model, history = tuned(beside("slices"), {"0": 2}, settle=settle, validate=off)
    assert [off(model), *(epoch.top1 for epoch in history.epochs)] == pytest.approx([0.0] * 3, abs=1e-6)
    _, model, _ = tuned(beside("slices"), {"0": 2}, settle=settle)
    assert off(model) == pytest.approx(0.0, abs=1e-6)


def test_the_dense_control_has_no_slice_and_stays_as_it_is() -> None:
    dense, model, history = tuned(beside("slices"), ranks=None)
    assert same(values(dense), values(model)) and not history.epochs
    assert len(tuned(beside("vanishing"), ranks=None)[2].epochs) == 2


@pytest.mark.parametrize("name", ["vanishing", "slices"])
def test_the_shipped_recipes_take_the_steps_of_the_standard_one(name: str) -> None:
    recipe, standard = get_recipe(name), get_recipe("standard")
    assert recipe.side_by_side == name
    assert recipe.model_copy(update={"name": "standard", "side_by_side": None}) == standard
