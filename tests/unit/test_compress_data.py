"""What ``compress`` does with a user's data and recipe: what a sweep does with a task's."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from toys import SIZE, toy_batches, toy_net

import lowrank_bench as lrb
from lowrank_bench.compression.method import Job
from lowrank_bench.recipe import Recipe
from lowrank_bench.training import recipes
from lowrank_bench.training.recalibrate import recalibrate
from lowrank_bench.training.tuning import tune

TOY = Recipe(name="toy", epochs=2, images_per_epoch=256, batch_size=32, learning_rate=3e-3)
VARIANTS = {
    "toy": TOY,
    "layers": TOY.model_copy(update={"name": "layers", "layer_by_layer": True, "frozen_factors": True}),
    "slices": TOY.model_copy(update={"name": "slices", "side_by_side": "slices"}),
    "taught": TOY.model_copy(update={"name": "taught", "distillation": 0.7, "patience": 1}),
}
RANKS = {"3": 1, "5": 1}


@pytest.fixture(autouse=True)
def toy_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, recipe in VARIANTS.items():
        monkeypatch.setitem(recipes.RECIPES, name, recipe)


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_with_data_batch_norms_know_the_compressed_layers() -> None:
    dense = toy_net(norm=True)
    plain = lrb.compress(dense, "channel_svd", ranks={"0": 1}, input_size=SIZE)
    settled = lrb.compress(dense, "channel_svd", ranks={"0": 1}, input_size=SIZE, data=toy_batches)
    assert not same(state(plain.model), state(settled.model))
    recalibrate(plain.model, toy_batches(0))
    assert same(state(plain.model), state(settled.model))


@pytest.mark.filterwarnings("ignore:channel_svd left every layer as it is")
def test_where_no_layer_was_changed_batch_norms_stay() -> None:
    dense = toy_net(norm=True)
    for method, ranks in (("identity", None), ("channel_svd", {})):
        kept = lrb.compress(dense, method, ranks=ranks, input_size=SIZE, data=toy_batches)
        assert same(state(kept.model), state(dense))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_recipe_tunes_as_a_sweep_does_and_leaves_the_dense_model_alone(name: str) -> None:
    dense = toy_net(norm=True).train()
    before = state(dense)
    tuned = lrb.compress(dense, "channel_svd", ranks=RANKS, input_size=SIZE, data=toy_batches, recipe=name)
    assert same(state(dense), before) and dense.training and not tuned.model.training
    plain = lrb.compress(dense, "channel_svd", ranks=RANKS, input_size=SIZE, data=toy_batches)
    assert not same(state(tuned.model), state(plain.model))
    after, history = tune(
        plain,
        copy.deepcopy(dense).eval(),
        lrb.methods()["channel_svd"](),
        Job(SIZE, ranks=RANKS, data=toy_batches),
        toy_batches,
        VARIANTS[name],
        settle=lambda model: recalibrate(model, toy_batches(0)),
    )
    assert same(state(tuned.model), state(after.model))
    told = [(epoch.loss, epoch.top1) for epoch in tuned.history.epochs]
    assert told == [(epoch.loss, None) for epoch in history.epochs] and len(told) == 2


def test_tuning_follows_the_training_within_a_method_as_in_a_sweep() -> None:
    budget = lrb.Budget(macs=2)
    made = lrb.compress(toy_net(), "lowrank_training", budget, input_size=SIZE, data=toy_batches, recipe="toy")
    first, second, third, fourth = (epoch.loss for epoch in made.history.epochs)
    assert first > second and third > fourth
    assert made.plan.layers


def test_the_control_is_tuned_too() -> None:
    dense = toy_net(norm=True)
    tuned = lrb.compress(dense, "identity", input_size=SIZE, data=toy_batches, recipe="toy")
    assert not same(state(tuned.model), state(dense)) and len(tuned.history.epochs) == 2


def test_batches_are_cut_to_the_size_of_the_recipe() -> None:
    sizes: list[int] = []
    data = [(torch.randn(n, *SIZE), torch.zeros(n, dtype=torch.int64)) for n in (64, 32)]
    net = nn.Sequential(*toy_net())

    class Watched(nn.Identity):
        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                sizes.append(len(x))
            return x

    lrb.compress(net.append(Watched()), "identity", input_size=SIZE, data=data, recipe="toy")
    assert sizes == [32] * 16


def test_a_recipe_without_data_is_refused_by_name_and_one_that_trains_nothing_is_not() -> None:
    with pytest.raises(lrb.InvalidInput, match=r"2 epochs of recipe 'toy': give data, .* or leave recipe out"):
        lrb.compress(toy_net(norm=True), "channel_svd", ranks=RANKS, input_size=SIZE, recipe="toy")
    plain = lrb.compress(toy_net(norm=True), "channel_svd", ranks=RANKS, input_size=SIZE, recipe="none")
    assert plain.history.epochs == ()


def test_a_recipe_that_the_method_cannot_follow_is_refused_before_any_work() -> None:
    def never(_epoch: int) -> list[tuple[Tensor, Tensor]]:
        pytest.fail("data were read for a recipe that cannot be followed")

    with pytest.raises(lrb.UnsupportedLayer, match="does not work layer by layer"):
        lrb.compress(toy_net(), "narrow", lrb.Budget(macs=2), input_size=SIZE, data=never, recipe="layers")
