"""Recipes that freeze factors or go layer by layer, on every method that factors layers and on the dense control."""

import pytest
import torch
from torch import nn
from toys import SIZE, toy_batches, toy_net

import lowrank_bench as lrb
from lowrank_bench.compression.compose import chain_error
from lowrank_bench.compression.method import Job, LayerMethod
from lowrank_bench.compression.modules import Factored
from lowrank_bench.recipe import Recipe
from lowrank_bench.training import tuning
from lowrank_bench.training.recipes import get_recipe
from lowrank_bench.training.tuning import tune

ALL = Recipe(name="all", epochs=2, images_per_epoch=256, batch_size=32, learning_rate=3e-3)
FROZEN = ALL.model_copy(update={"name": "frozen", "frozen_factors": True})
LEBEDEV = FROZEN.model_copy(update={"name": "lebedev", "layer_by_layer": True})
LAYER_METHODS = [name for name, cls in lrb.methods().items() if issubclass(cls, LayerMethod)]


def tuned(recipe, ranks=None, method="channel_svd", data=toy_batches, options=None, **told):
    """The dense network, what was compressed at once, and what came of tuning."""
    dense = toy_net(norm=True)
    instance = lrb.methods()[method](**(options or {}))
    job = Job(SIZE, ranks=ranks, data=data)
    compressed = instance.compress(dense, job)
    after, history = tune(compressed, dense, instance, job, data, recipe, **told)
    return dense, compressed, after, history


def values(module):
    return [parameter.detach().clone() for parameter in module.parameters()]


def same(ours, theirs):
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


# -- frozen factors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", LAYER_METHODS)
def test_frozen_factors_keep_their_values_while_all_others_train(method):
    fresh = lrb.compress(toy_net(norm=True), method, ranks={"3": 1, "5": 1}, input_size=SIZE).model
    _, _, after, _ = tuned(FROZEN, {"3": 1, "5": 1}, method)
    for old, new in zip(fresh, after.model, strict=True):
        if values(old):
            assert same(values(old), values(new)) == isinstance(old, Factored)
    assert all(parameter.requires_grad for parameter in after.model.parameters())


def test_what_was_frozen_before_stays_frozen():
    dense = toy_net(norm=True)
    compressed = lrb.compress(dense, "channel_svd", ranks={"3": 2}, input_size=SIZE)
    first = next(compressed.model[3].parameters()).requires_grad_(False)
    tune(compressed, dense, lrb.methods()["channel_svd"](), Job(SIZE), toy_batches, FROZEN)
    assert [p for p in compressed.model.parameters() if not p.requires_grad] == [first]


def test_nothing_left_to_train_is_an_error():
    model = nn.Sequential(nn.Conv2d(4, 2, 8), nn.Flatten())
    compressed = lrb.compress(model, "channel_svd", ranks="full", input_size=SIZE)
    with pytest.raises(lrb.InvalidInput, match="recipe 'frozen' has nothing to train"):
        tune(compressed, model, lrb.methods()["channel_svd"](), Job(SIZE), toy_batches, FROZEN)


# -- layer by layer ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", LAYER_METHODS)
def test_each_layer_is_factored_from_the_network_tuned_so_far_and_not_touched_again(method):
    dense, at_once, after, _ = tuned(LEBEDEV, {"0": "full", "3": "full", "5": "full"}, method)
    kernels = {name: lrb.compose(after.model[int(name)]) for name in ("0", "3", "5")}
    originals = {name: dense[int(name)].weight.double() for name in kernels}
    assert (kernels["0"] - originals["0"]).norm() < 1e-6 * originals["0"].norm()  # of the dense network
    for name in ("3", "5"):
        assert (kernels[name] - originals[name]).norm() > 1e-3 * originals[name].norm()  # tuned before it was factored
    for name, layer in after.plan.layers.items():
        assert layer.error < 1e-9  # against the kernel that was factored
        assert layer.ranks == at_once.plan.layers[name].ranks


def test_a_layer_keeps_the_rank_of_the_dense_network_and_its_error_is_against_the_tuned_kernel():
    dense_kernels = []

    def watch(model):
        if isinstance(model[5], nn.Conv2d):
            dense_kernels.append(model[5].weight.detach().clone())
        return 0.0

    _, at_once, after, _ = tuned(LEBEDEV, "energy:0.8", validate=watch)
    ranks, ranks_at_once = ({n: layer.ranks for n, layer in c.plan.layers.items()} for c in (after, at_once))
    assert ranks == ranks_at_once
    error = chain_error(dense_kernels[-1], after.model[5].chain())  # as it was when its turn came
    assert after.plan.layers["5"].error == pytest.approx(error, rel=1e-5)
    assert after.plan.layers["5"].error != pytest.approx(at_once.plan.layers["5"].error, rel=1e-3)
    assert after.plan.layers["0"].error == at_once.plan.layers["0"].error


def test_tuning_follows_each_layer_but_the_last_of_several():
    seen = []
    _, _, after, _ = tuned(LEBEDEV, {"0": 2, "5": 2}, validate=lambda model: seen.append(values(model[8])) or 0.0)
    assert same(values(after.model[8]), seen[-1])
    assert len(seen) == LEBEDEV.epochs  # one round


def test_a_single_layer_is_tuned_after():
    dense, at_once, after, history = tuned(LEBEDEV, {"5": 2})
    assert len(history.epochs) == LEBEDEV.epochs
    assert same(values(after.model[5]), values(at_once.model[5]))
    assert not same(values(after.model[8]), values(dense[8]))


@pytest.mark.parametrize("ranks", [{"5": 2}, {"0": 2, "5": 2}, {"0": 2, "3": 2, "5": 2, "8": 2}])
def test_the_steps_are_those_of_any_recipe_and_each_is_reported_on_data_of_its_own(ranks):
    passes, steps = [], []
    *_, history = tuned(
        LEBEDEV,
        ranks,
        data=lambda index: passes.append(index) or toy_batches(index),
        progress=lambda step, total, loss: steps.append((step, total)),
        validate=lambda model: 50.0,
    )
    assert steps == [(step, 16) for step in range(1, 17)]
    assert passes == list(range(len(passes)))
    assert len(history.epochs) == LEBEDEV.epochs * max(1, len(ranks) - 1)
    assert all(epoch.top1 == 50.0 for epoch in history.epochs)


def test_a_calibrated_metric_sees_the_network_as_it_is_when_a_layer_has_its_turn(monkeypatch):
    seen = []
    real = tuning.Targets

    def spied(options, dense, job, sites):
        seen.append((list(sites), [name for name, module in dense.named_children() if isinstance(module, Factored)]))
        return real(options, dense, job, sites)

    monkeypatch.setattr(tuning, "Targets", spied)
    *_, after, _ = tuned(LEBEDEV, {"0": 2, "5": 2}, options={"metric": "covariance"})
    assert seen == [(["0"], []), (["5"], ["0"])]
    assert all("data_error" in layer.notes for layer in after.plan.layers.values())


def test_batch_norm_is_settled_after_every_factoring():
    factored = []
    tuned(
        LEBEDEV,
        {"0": 2, "3": 2, "5": 2},
        settle=lambda model: factored.append([n for n, m in model.named_children() if isinstance(m, Factored)]),
    )
    assert factored == [["0"], ["0", "3"], ["0", "3", "5"]]


def test_the_model_compressed_at_once_and_the_dense_one_are_left_alone():
    fresh = lrb.compress(toy_net(norm=True), "channel_svd", ranks={"0": 2, "5": 2}, input_size=SIZE).model
    dense, at_once, after, _ = tuned(LEBEDEV, {"0": 2, "5": 2})
    assert same(values(dense), values(toy_net(norm=True)))
    assert same(values(at_once.model), values(fresh))
    assert after.cost == at_once.cost == lrb.count(after.model, SIZE)


@pytest.mark.parametrize("recipe", [ALL, FROZEN, LEBEDEV], ids=lambda recipe: recipe.name)
def test_the_dense_control_gets_the_same_training_whatever_the_recipe(recipe):
    *_, plain, _ = tuned(ALL, method="identity")
    *_, ours, history = tuned(recipe, method="identity")
    assert same(values(ours.model), values(plain.model))
    assert len(history.epochs) == ALL.epochs


def test_a_method_that_is_not_layer_by_layer_is_refused_by_name():
    dense = toy_net(norm=True)
    compressed = lrb.compress(dense, "identity", input_size=SIZE)
    with pytest.raises(lrb.UnsupportedLayer, match="method 'lowrank_training' does not work layer by layer"):
        tune(compressed, dense, lrb.methods()["lowrank_training"](), Job(SIZE), toy_batches, LEBEDEV)


# -- recipes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 64, 100])
def test_parts_of_a_recipe_share_its_steps_exactly(parts):
    recipe = get_recipe("lebedev")
    shared = recipe.shared(parts)
    assert len(shared) == parts
    assert sum(part.epochs * part.steps_per_epoch for part in shared) == recipe.epochs * recipe.steps_per_epoch
    trained = [part for part in shared if part.epochs]
    assert all(part.learning_rate_at(0) > 0.5 * recipe.learning_rate for part in trained)


def test_the_shipped_recipes_for_frozen_factors_cost_what_the_standard_one_costs():
    ignored = {"name", "frozen_factors", "layer_by_layer"}
    for name in ("frozen", "lebedev"):
        recipe = get_recipe(name)
        assert recipe.frozen_factors
        assert recipe.layer_by_layer == (name == "lebedev")
        assert recipe.model_dump(exclude=ignored) == get_recipe("standard").model_dump(exclude=ignored)


@pytest.mark.parametrize("cut", [3, 6, 10, 14])
def test_tuning_layer_by_layer_goes_on_within_the_layer_where_it_was_cut(cut, tmp_path):
    ranks = {"0": 2, "3": 2, "5": 2}  # two rounds of two epochs of four steps each

    def interrupt(step, *_):
        if step == cut:
            raise KeyboardInterrupt

    steps = []
    _, _, whole, history = tuned(LEBEDEV, ranks)
    with pytest.raises(KeyboardInterrupt):
        tuned(LEBEDEV, ranks, progress=interrupt, resume=tmp_path / "x.resume")
    _, _, rest, again = tuned(
        LEBEDEV, ranks, progress=lambda step, *_: steps.append(step), resume=tmp_path / "x.resume"
    )
    assert steps[0] == 4 * ((cut - 1) // 4) + 1 and steps[-1] == 16
    assert again.kept == (cut - 1) // 4
    assert [epoch.loss for epoch in again.epochs] == [epoch.loss for epoch in history.epochs]
    assert rest.plan == whole.plan
    assert same(whole.model.state_dict().values(), rest.model.state_dict().values())
