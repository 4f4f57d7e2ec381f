"""Regularised training: each regulariser does what its paper says, and the budget is met by what comes out."""

import pytest
import torch
from fake_timer import FakeTimer
from toys import SIZE, toy_batches, toy_net, watched_net

import lowrank_bench as lrb
from lowrank_bench.compression.history import History
from lowrank_bench.compression.job import Hooks
from lowrank_bench.compression.layerwise import compress_layers
from lowrank_bench.compression.method import Job
from lowrank_bench.compression.ranks import energy_rank
from lowrank_bench.compression.registry import method_class
from lowrank_bench.decomposition.separable_basis import singular_value_threshold
from lowrank_bench.recipe import Recipe
from lowrank_bench.training import recipes
from lowrank_bench.training.regularizers import (
    LearningCompression,
    NuclearNorm,
    RankPruning,
    UnfoldedKernel,
    cut_to_energy,
)

TOY = Recipe(name="toy", epochs=3, images_per_epoch=256, batch_size=32, learning_rate=3e-3)
BUDGET = lrb.Budget(macs=2.5)
REGULARIZERS = {"nuclear": {"strength": 0.5}, "trp": {"energy": 0.8}, "lc": {"every": 4}}


@pytest.fixture(autouse=True)
def toy_recipe(monkeypatch):
    monkeypatch.setitem(recipes.RECIPES, "toy", TOY)


def matrix(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def nuclear_norm(values):
    return torch.linalg.svdvals(values).sum()


def compress(recipe="toy", model=None, data=toy_batches, seed=0, budget=BUDGET, ranks=None, **options):
    batches = data if data is None or callable(data) else lambda _epoch: data
    method = method_class("lowrank_training")(seed=seed, **options)
    return method.compress(model or toy_net(), Job(SIZE, budget, ranks, batches, recipe))  # before the common tuning


def truncation_error(compressed):
    layers = compressed.plan.layers.values()
    return sum(layer.notes["truncation_error"] ** 2 for layer in layers) ** 0.5


# -- nuclear norm ------------------------------------------------------------------------------------------------------


def test_svt_is_the_prox_of_the_nuclear_norm():
    w, threshold = matrix(6, 9), 1.5
    x = singular_value_threshold(w, torch.tensor([threshold], dtype=w.dtype))
    # optimality: (W - X) / threshold is a subgradient of the nuclear norm at X, so its spectral norm is at most 1
    # and its inner product with X is the norm of X
    residual = (w - x) / threshold
    assert 0 < torch.linalg.matrix_rank(x) < 6
    assert torch.linalg.matrix_norm(residual, 2) <= 1 + 1e-12
    assert (residual * x).sum() == pytest.approx(float(nuclear_norm(x)), rel=1e-12)


def test_nothing_near_the_prox_has_a_lower_objective():
    w, threshold = matrix(4, 5), 1.0
    x = singular_value_threshold(w, torch.tensor([threshold], dtype=w.dtype))

    def objective(values):
        return (values - w).square().sum() / 2 + threshold * nuclear_norm(values)

    for seed in range(1, 200):
        for scale in (1e-4, 1e-2, 1.0):
            assert objective(x + scale * matrix(4, 5, seed=seed)) > objective(x)


def test_the_proximal_steps_of_a_training_take_strength_times_the_spectral_norm_in_all():
    weight = matrix(8, 6, 3, 3)
    before = torch.linalg.svdvals(weight.flatten(1))
    kernel = UnfoldedKernel(weight, 1, lambda w: w.flatten(1))
    regularizer = NuclearNorm([kernel], TOY, strength=0.25, every=4)
    for step in range(TOY.epochs * TOY.steps_per_epoch):
        regularizer.after_step(step)
    after = torch.linalg.svdvals(weight.flatten(1))
    assert torch.allclose(after, (before - 0.25 * before[0]).clamp(min=0), atol=1e-10)


# -- trained rank pruning ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.3, 0.9, 0.99, 1.0])
def test_a_cut_keeps_the_energy_asked_for_at_the_smallest_such_rank(share):
    w = matrix(3, 7, 12)
    cut = cut_to_energy(w, share).matrices
    for before, after in zip(w, cut, strict=True):
        energy = torch.linalg.svdvals(before).square()
        rank = int(torch.linalg.matrix_rank(after))
        assert after.square().sum() >= (share - 1e-12) * energy.sum()
        assert energy[: rank - 1].sum() < share * energy.sum()
        assert rank == energy_rank(before, share)
        # Eckart-Young: no matrix of this rank is nearer
        assert (before - after).square().sum() == pytest.approx(float(energy[rank:].sum()), abs=1e-12)


@pytest.mark.parametrize("share", [0.6, 1.0])
def test_the_inner_product_of_u_vt_and_w_is_the_nuclear_norm(share):
    cut, polar = cut_to_energy(matrix(7, 5), share)
    assert (polar * cut).sum() == pytest.approx(float(nuclear_norm(cut)), rel=1e-12)


def test_the_penalty_after_a_cut_is_the_nuclear_norm_and_its_gradient_u_vt():
    weight = matrix(8, 6, 3, 3).requires_grad_()
    regularizer = RankPruning([UnfoldedKernel(weight, 1, lambda w: w.flatten(1))], 0.8, every=2, subgradient=0.5)
    regularizer.after_step(0)
    assert regularizer.penalty() == 0
    regularizer.after_step(1)
    cut = weight.detach().flatten(1)
    penalty = regularizer.penalty()
    penalty.backward()
    assert penalty.item() == pytest.approx(0.5 * float(nuclear_norm(cut)), rel=1e-12)
    singular = torch.linalg.svdvals(weight.grad.flatten(1))
    rank = int(torch.linalg.matrix_rank(cut))
    assert torch.allclose(singular, 0.5 * (torch.arange(8) < rank).double(), atol=1e-12)


def test_a_zero_kernel_stays_zero():
    weight = torch.zeros(4, 3, 3, 3, dtype=torch.float64)
    kernel = UnfoldedKernel(weight, 1, lambda w: w.flatten(1))
    RankPruning([kernel], 0.9, every=1, subgradient=1.0).after_step(0)
    NuclearNorm([kernel], TOY, strength=0.5, every=1).after_step(0)
    assert torch.equal(weight, torch.zeros_like(weight))


@pytest.mark.parametrize("scheme", ["channel_svd", "jaderberg"])
@pytest.mark.parametrize("shape", [(8, 3, 3, 5), (8, 6)])
def test_an_unfolded_kernel_reads_as_the_scheme_unfolds_and_writes_back_in_place(scheme, shape):
    weight, groups = matrix(*shape), 2 if len(shape) == 4 else 1
    unfold = method_class(scheme)().unfoldings
    kernel = UnfoldedKernel(weight, groups, lambda w: unfold(w)[0])
    parts = weight.reshape(groups, shape[0] // groups, *shape[1:], *[1] * (4 - len(shape)))
    assert torch.equal(kernel.read(), torch.stack([unfold(part)[0] for part in parts]))
    before = weight.clone()
    kernel.write(2 * kernel.read())
    assert torch.equal(weight, 2 * before)


# -- learning compression ----------------------------------------------------------------------------------------------


def test_lc_converges_to_weights_of_the_wanted_rank_where_the_loss_is_lowest():
    """L = ||W - A||^2 / 2 with rank at most 2: the answer is A's truncated SVD, error its tail (Eckart-Young)."""
    a = matrix(6, 8)
    weight = a.clone().requires_grad_()

    def rank_two(values):
        u, s, vh = torch.linalg.svd(values["w"], full_matrices=False)
        return {"w": (u[:, :2] * s[:2]) @ vh[:2]}

    lc = LearningCompression({"w": weight}, rank_two, (1.0, 1e5), every=10, steps=600)

    def gradient(values):
        with torch.no_grad():
            weight.copy_(values)
        return torch.autograd.grad((weight - a).square().sum() / 2 + lc.penalty(), weight)[0]

    for step in range(600):
        w = weight.detach().clone()
        slope = gradient(w)
        curvature = gradient(w + 1) - slope  # of a quadratic, the same everywhere: the L step is exact
        gradient(w - slope / curvature)
        lc.after_step(step)
    singular = torch.linalg.svdvals(weight.detach())
    tail = torch.linalg.svdvals(a)[2:].square().sum()
    assert singular[2] < 1e-3 * singular[0]
    assert (weight.detach() - a).square().sum() == pytest.approx(float(tail), rel=1e-3)


# -- the method --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["channel", "spatial"])
@pytest.mark.parametrize(("regularizer", "options"), REGULARIZERS.items(), ids=REGULARIZERS)
def test_the_budget_is_met_and_the_input_model_is_unchanged(regularizer, options, scheme):
    model = toy_net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    compressed = compress(model=model, regularizer=regularizer, scheme=scheme, **options)
    assert compressed.dense_cost.macs / compressed.cost.macs == pytest.approx(2.5, rel=0.05)
    assert compressed.plan.layers
    assert not model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize(("regularizer", "options"), REGULARIZERS.items(), ids=REGULARIZERS)
def test_regularised_kernels_are_nearer_to_low_rank(regularizer, options):
    unregularised = compress(budget=None, ranks=4, regularizer="trp", energy=1.0)  # cuts that keep all the energy
    regularised = compress(budget=None, ranks=4, regularizer=regularizer, **options)
    assert truncation_error(regularised) < 0.8 * truncation_error(unregularised)


@pytest.mark.parametrize(("regularizer", "options"), REGULARIZERS.items(), ids=REGULARIZERS)
def test_the_same_seed_gives_the_same_model(regularizer, options):
    one, two = (compress(budget=None, ranks=4, regularizer=regularizer, **options).model.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_ranks_instead_of_a_budget_hold_in_the_c_step_and_in_the_cut():
    compressed = compress(budget=None, ranks={"4": 3}, regularizer="lc", scheme="channel")
    assert {name: layer.ranks for name, layer in compressed.plan.layers.items()} == {"4": (3,)}


def test_a_c_step_of_lc_shares_the_budget_out_anew(monkeypatch):
    """A layer whose kernel has come to rank one leaves its share to the other."""
    ranks = []

    def watched(scheme, model, job):
        compressed = compress_layers(scheme, model, job)
        ranks.append({name: layer.ranks[0] for name, layer in compressed.plan.layers.items()})
        return compressed

    def to_rank_one(model, *_, regularizer, **__):
        model[4].weight.data[:] = model[4].weight.data[:1]
        regularizer.after_step(3)
        return History()

    monkeypatch.setattr("lowrank_bench.methods.lowrank_training.compress_layers", watched)
    monkeypatch.setattr("lowrank_bench.training.jobs.train", to_rank_one)
    compress(regularizer="lc", scheme="channel", every=4, budget=lrb.Budget(macs=2))
    before, start, c_step, final = ranks
    assert before == start and c_step == final
    assert c_step["4"] < start["4"] and c_step["2"] > start["2"]


def test_lc_trains_for_a_latency_at_the_ranks_that_were_measured_before_and_measures_no_more(monkeypatch):
    timer = FakeTimer()
    budget = lrb.Budget(latency=2, runtime="eager", threads=1, batch=1)
    before = method_class("channel_svd")().compress(toy_net(), Job(SIZE, budget, timer=timer))
    plain, timer = len(timer.ratios), FakeTimer()
    job = Job(SIZE, budget, data=toy_batches, recipe="toy", timer=timer)
    trained = method_class("lowrank_training")(regularizer="lc", scheme="channel", every=4).compress(toy_net(), job)
    assert len(timer.ratios) == plain
    ranks = [{name: layer.ranks for name, layer in made.plan.layers.items()} for made in (before, trained)]
    assert ranks[0] == ranks[1]
    assert before.skipped == trained.skipped
    assert trained.plan.layers["4"].notes["regularised_epochs"] == TOY.epochs


def test_no_epochs_is_plain_truncation():
    for data in (None, toy_batches):
        ours = compress("none", data=data, scheme="channel")
        plain = lrb.compress(toy_net(), "channel_svd", BUDGET, input_size=SIZE)
        assert ours.plan.layers == plain.plan.layers
        assert all(torch.equal(a, b) for a, b in zip(ours.model.parameters(), plain.model.parameters(), strict=True))


def test_the_plan_says_that_it_was_trained_and_saves(tmp_path):
    compressed = compress()
    assert compressed.plan.method == "lowrank_training"
    for layer in compressed.plan.layers.values():
        assert layer.error is None
        assert layer.notes["regularised_epochs"] == TOY.epochs
    compressed.save(tmp_path)
    x = torch.randn(2, *SIZE)
    assert torch.equal(lrb.load(tmp_path, toy_net()).model(x), compressed.model(x))


def test_training_without_data_or_recipe_says_what_to_give():
    with pytest.raises(lrb.InvalidInput, match="3 epochs of recipe 'toy': give data"):
        compress(data=None)
    with pytest.raises(lrb.InvalidInput, match="recipe='short'"):
        compress(recipe=None)


@pytest.mark.parametrize("regularizer", REGULARIZERS)
@pytest.mark.parametrize(("recipe", "why"), [("slices", "takes no labels"), ("lebedev", "tunes one layer after")])
def test_a_recipe_that_cannot_train_the_dense_network_is_refused_by_name(recipe, why, regularizer):
    with pytest.raises(lrb.UnsupportedLayer, match=f"'lowrank_training' .* recipe '{recipe}' {why}"):
        compress(recipe, regularizer=regularizer)


@pytest.mark.parametrize("regularizer", REGULARIZERS)
def test_a_recipe_that_ends_before_the_regulariser_has_its_turn_is_refused_with_both_numbers(regularizer):
    with pytest.raises(lrb.InvalidOptions, match="every = 25: recipe 'toy' has 24 steps"):
        compress(regularizer=regularizer, every=25)
    for recipe, every in (("toy", 24), ("none", 25)):
        compress(recipe, regularizer=regularizer, every=every)


def test_batches_are_cut_to_the_size_of_the_recipe():
    model, sizes = watched_net()
    data = [(torch.randn(n, *SIZE), torch.zeros(n, dtype=torch.int64)) for n in (64, 32, 0, 31)]
    compress(model=model, data=data)
    assert sizes == [32, 32, 32, 31] * 6


def test_a_budget_out_of_reach_is_refused_before_any_training():
    def never(_epoch):
        pytest.fail("trained for a budget that cannot be met")

    with pytest.raises(lrb.InvalidBudget, match="out of reach"):
        compress(data=never, budget=lrb.Budget(macs=1000))


def test_an_option_of_another_regulariser_is_refused():
    with pytest.raises(lrb.InvalidOptions, match="energy would do nothing with regularizer='lc'"):
        compress(regularizer="lc", energy=0.9)


# -- going on ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [9, 17, 23])
@pytest.mark.parametrize("options", [{"subgradient": 0.05, "every": 4}, {"every": 3}], ids=["trp", "lc"])
def test_a_training_that_was_cut_short_gives_the_model_of_one_in_one_go(options, cut, tmp_path):
    regularizer = "trp" if "subgradient" in options else "lc"

    def made(hooks):
        job = Job(SIZE, ranks={"2": 2, "4": 2}, data=toy_batches, recipe="toy", hooks=hooks)
        return method_class("lowrank_training")(regularizer=regularizer, **options).compress(toy_net(), job)

    def interrupt(step, *_):
        if step == cut:
            raise KeyboardInterrupt

    steps = []
    whole = made(Hooks())
    with pytest.raises(KeyboardInterrupt):
        made(Hooks(progress=interrupt, resume=tmp_path / "resume"))
    rest = made(Hooks(progress=lambda step, *_: steps.append(step), resume=tmp_path / "resume"))
    assert steps[0] == 8 * ((cut - 1) // 8) + 1
    assert rest.history.kept == (cut - 1) // 8
    assert [epoch.loss for epoch in rest.history.epochs] == [epoch.loss for epoch in whole.history.epochs]
    state, again = whole.model.state_dict(), rest.model.state_dict()
    assert all(torch.equal(state[name], again[name]) for name in state)


def test_validation_is_told_and_decides_nothing(monkeypatch):
    monkeypatch.setitem(recipes.RECIPES, "toy", TOY.model_copy(update={"patience": 1}))
    said = iter([90.0, 80.0, 70.0])  # of which patience would keep the first

    def made(hooks):
        job = Job(SIZE, ranks={"2": 2, "4": 2}, data=toy_batches, recipe="toy", hooks=hooks)
        return method_class("lowrank_training")().compress(toy_net(), job)

    plain, watched = made(Hooks()), made(Hooks(validate=lambda model: next(said)))
    assert [epoch.top1 for epoch in watched.history.epochs] == [90, 80, 70]
    assert [epoch.top1 for epoch in plain.history.epochs] == [None] * 3
    state, again = plain.model.state_dict(), watched.model.state_dict()
    assert all(torch.equal(state[name], again[name]) for name in state)
