"""Training from scratch: where the values start, where batch norm goes, and that folding it away changes nothing."""

import pytest
import torch
from torch import nn
from toys import SIZE, toy_batches, toy_net, watched_net

import lowrank_bench as lrb
from lowrank_bench.compression.chain import KernelShape
from lowrank_bench.compression.compose import compose_chain
from lowrank_bench.compression.drawing import draw_chain
from lowrank_bench.compression.folding import fold_norm, scale_outputs
from lowrank_bench.compression.geometry import Geometry
from lowrank_bench.compression.method import Job
from lowrank_bench.recipe import Recipe
from lowrank_bench.training import recipes
from lowrank_bench.training.from_scratch import Normed

TOY = Recipe(name="toy", epochs=3, images_per_epoch=256, batch_size=16, learning_rate=3e-3)
TT_MODES = ("naive", "core_by_core", "rebuild")
CHAINS = {
    "jaderberg": ("jaderberg", {}, 4),
    "channel_svd": ("channel_svd", {}, 4),
    "tucker": ("tucker", {}, 4),
    "gathers behind": ("denton", {}, 1),
    **{f"tt_conv {mode}": ("tt_conv", {"mode": mode}, 3) for mode in TT_MODES},
}
CONVOLUTIONS = {
    "plain": {},
    "groups": {"groups": 2},
    "everything": {"groups": 2, "stride": (2, 1), "padding": (1, 2), "padding_mode": "circular"},
    "1x1": {"kernel_size": 1},
    "one output channel": {"out_channels": 1},
}


@pytest.fixture(autouse=True)
def toy_recipe(monkeypatch):
    monkeypatch.setitem(recipes.RECIPES, "toy", TOY)


def convolution(dtype=torch.float64, **attributes):
    torch.manual_seed(0)
    return nn.Conv2d(**{"in_channels": 8, "out_channels": 8, "kernel_size": 3, "dtype": dtype} | attributes)


def with_random_norm(layer):
    """A layer with a batch norm behind it as it could be after training."""
    normed = Normed(layer).eval()
    for values in (normed.norm.running_var, normed.norm.weight.data):
        values.uniform_(0.2, 3)
    for values in (normed.norm.running_mean, normed.norm.bias.data):
        values.normal_()
    normed.norm.weight.data[0] *= -1
    return normed


def scratch(method="lowrank_training", model=None, *, ranks=3, budget=None, data=toy_batches, recipe=None, **options):
    options = {"start": "scratch", "scratch_recipe": "toy"} | options
    return lrb.compress(model or toy_net(), method, budget, ranks, options, SIZE, data=data, recipe=recipe)


# -- folding -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attributes", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
@pytest.mark.parametrize(("method", "options", "ranks"), CHAINS.values(), ids=CHAINS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=["64", "32"])
def test_folding_a_batch_norm_changes_no_output(dtype, tolerance, method, options, ranks, attributes):
    conv = convolution(dtype, **attributes)
    try:
        normed = with_random_norm(lrb.factorize(conv, method, ranks, **options))
    except lrb.InvalidRanks:
        normed = with_random_norm(lrb.factorize(conv, method, "full", **options))
    folded = fold_norm(normed.layer, normed.norm, Geometry.of(conv))
    x = torch.randn(2, 8, 9, 8, dtype=dtype)
    expected = normed(x)
    assert (folded(x) - expected).abs().max() <= tolerance * expected.abs().max()
    assert folded(x).dtype == dtype


@pytest.mark.parametrize("method", ["tt_conv", "channel_svd"])
def test_a_linear_layer_folds_too_and_norms_every_row(method):
    linear = nn.Linear(12, 8, dtype=torch.float64)
    options = {"mode": "rebuild"} if method == "tt_conv" else {}
    normed = with_random_norm(lrb.factorize(linear, method, 2, **options))
    folded = fold_norm(normed.layer, normed.norm, Geometry.of(linear))
    for x in (torch.randn(5, 12, dtype=torch.float64), torch.randn(2, 5, 12, dtype=torch.float64)):
        torch.testing.assert_close(folded(x), normed(x))
    assert normed.train()(torch.randn(3, 5, 12, dtype=torch.float64)).mean((0, 1)).allclose(normed.norm.bias)


@pytest.mark.parametrize(("method", "options", "ranks"), CHAINS.values(), ids=CHAINS)
def test_scaled_outputs_compose_to_the_scaled_kernel(method, options, ranks):
    chain = lrb.factorize(convolution(groups=2), method, ranks, **options).chain()
    scale = torch.randn(8, dtype=torch.float64)
    expected = scale[:, None, None, None] * compose_chain(chain, 2)
    torch.testing.assert_close(compose_chain(scale_outputs(chain, scale), 2), expected)


def test_a_layer_without_a_bias_has_no_place_for_the_shift():
    conv = convolution(bias=False)
    with pytest.raises(lrb.UnsupportedLayer, match="without a bias"):
        fold_norm(lrb.factorize(conv, "jaderberg", 3), nn.BatchNorm2d(8), Geometry.of(conv))


# -- the start ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    ("method", "options", "ranks"),
    [("jaderberg", {}, 6), ("channel_svd", {}, 6), *[("tt_conv", {"mode": mode}, 4) for mode in TT_MODES]],
)
def test_drawn_kernels_have_the_variance_of_he_and_factors_of_one_norm(method, options, ranks, groups):
    shape = KernelShape(16, 12, 3, 5)
    instance = lrb.methods()[method](**options)
    chain = draw_chain(instance.structure_layer(shape, groups, instance.spread(shape, ranks)), shape, groups)
    kernel = compose_chain(chain, groups)
    assert kernel.square().mean() == pytest.approx(2 / (12 * 3 * 5))
    norms = [tensor.norm().item() for stage in chain.stages for tensor in stage.tensors if tensor.is_floating_point()]
    assert norms == pytest.approx([norms[0]] * len(norms))


def test_nothing_of_the_dense_network_is_left_but_its_structure():
    one, two = (scratch(model=toy_net(seed)).model.state_dict() for seed in (1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("mode", TT_MODES)
def test_the_structure_of_tensor_trains_is_that_of_their_decomposition(mode):
    method, shape = lrb.methods()["tt_conv"](mode=mode), KernelShape(8, 12, 3, 5)
    for ranks in (method.spread(shape, 3), method.candidates(shape)[-1]):
        chain = method.factorize_layer(torch.randn(16, 12, 3, 5), 2, ranks)
        assert str(method.structure_layer(shape, 2, ranks)) == str(chain)


def test_ranks_beyond_the_reach_of_a_decomposition_are_for_training_from_scratch_only():
    wide = (22, 3, 3)  # of 9 taps
    assert scratch("tt_conv", mode="rebuild", ranks={"4": wide}, scratch_recipe="none").plan.layers["4"].ranks == wide
    with pytest.raises(lrb.InvalidRanks, match="wanted"):
        lrb.compress(toy_net(), "tt_conv", ranks={"4": wide}, options={"mode": "rebuild"}, input_size=SIZE)
    for ranks in ((0, 3, 3), (3, 3), (1.5, 3, 3)):
        with pytest.raises(lrb.InvalidRanks, match="wanted"):
            scratch("tt_conv", mode="rebuild", ranks={"4": ranks})


# -- batch norm --------------------------------------------------------------------------------------------------------


def folded_norms(model, size=SIZE):
    compressed = lrb.compress(
        model,
        "lowrank_training",
        ranks=2,
        options={"start": "scratch", "scratch_recipe": "none", "scheme": "channel"},
        input_size=size,
    )
    assert not any(isinstance(module, Normed) for module in compressed.model.modules())
    return {name: layer.notes["folded_norm"] for name, layer in compressed.plan.layers.items()}


def test_norms_go_behind_layers_that_have_none_and_can_take_one():
    model = nn.Sequential(
        nn.Conv2d(4, 8, 3),  # 0: bare
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),  # 2: a norm follows
        nn.Identity(),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3, bias=False),  # 5: no place for the shift
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32, 8),  # 8: bare
        nn.ReLU(),
        nn.Linear(8, 5),  # 10: gives the logits
    )
    assert folded_norms(model) == {"0": 1, "2": 0, "5": 0, "8": 1, "10": 0}


def test_a_pair_trains_with_one_norm_behind_it_and_none_inside(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "lowrank_bench.training.jobs.train",
        lambda network, *_, **__: seen.append(str(network)) or network.eval(),
    )
    scratch(ranks={"4": 3})
    assert seen[0].count("BatchNorm2d") == 1
    inside, behind = seen[0].split("(layer): Factored")[1].split("(norm): BatchNorm2d")
    assert inside.count("Conv2d") == 2
    assert "Linear" in behind


# -- the methods -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "options"),
    [("lowrank_training", {"scheme": s}) for s in ("spatial", "channel")]
    + [("tt_conv", {"mode": mode}) for mode in TT_MODES],
)
def test_it_learns_and_the_folded_network_saves_and_loads(method, options, tmp_path):
    model = toy_net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    compressed = scratch(method, model, ranks=2, **options)
    images, labels = (torch.cat(parts) for parts in zip(*toy_batches(99), strict=True))
    assert (compressed.model(images).argmax(1) == labels).double().mean() > 0.9
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert compressed.plan.method == method
    for layer in compressed.plan.layers.values():
        assert (layer.error, layer.notes["scratch_epochs"]) == (None, TOY.epochs)
    assert compressed.cost == lrb.count(compressed.model, SIZE)
    compressed.save(tmp_path)
    assert torch.equal(lrb.load(tmp_path, toy_net()).model(images), compressed.model(images))


def unevenly_normed():
    """The toy network with a batch norm behind its last convolution, which lets through two channels of it."""
    layers = [*toy_net()]
    norm = nn.BatchNorm2d(12)
    norm.weight.data[2:] = 1e-6
    return nn.Sequential(*layers[:5], norm, *layers[5:]).eval()


@pytest.mark.parametrize("model", [toy_net, unevenly_normed])
@pytest.mark.parametrize("method", ["lowrank_training", "tt_conv"])
def test_structure_and_cost_are_those_of_the_decomposition_at_the_same_budget(method, model):
    """Where the last factor has the output channels to itself; see scale_outputs for the others."""
    ours = scratch(method, model(), ranks=None, budget=lrb.Budget(macs=2.5), scratch_recipe="none")
    plain = lrb.compress(
        model(), {"lowrank_training": "jaderberg"}.get(method, method), lrb.Budget(macs=2.5), input_size=SIZE
    )
    assert ours.cost == plain.cost
    assert {n: layer.stages for n, layer in ours.plan.layers.items()} == {
        n: layer.stages for n, layer in plain.plan.layers.items()
    }


@pytest.mark.parametrize("mode", ["core_by_core", "rebuild"])
def test_tied_output_channels_cost_one_value_each_for_the_scale(mode):
    ours = scratch("tt_conv", mode=mode, ranks={"4": 2}, scratch_recipe="none")
    plain = lrb.compress(toy_net(), "tt_conv", ranks={"4": 2}, options={"mode": mode}, input_size=SIZE)
    assert ours.cost.params - plain.cost.params == 12


@pytest.mark.parametrize(
    ("method", "options"), [("lowrank_training", {}), ("tt_conv", {"mode": "rebuild"}), ("depthwise_separable", {})]
)
def test_for_speed_alone_the_structure_is_that_of_a_trained_network_and_nothing_is_trained(method, options):
    def never(_epoch):
        pytest.fail("trained for its speed alone")

    job = Job(SIZE, ranks=2, data=never, speed_only=True, trained_by="toy")
    ours = lrb.methods()[method](start="scratch", **options).compress(toy_net(), job)
    trained = scratch(method, ranks=2, **options)
    assert ours.cost == trained.cost and ours.plan.layers.keys() == trained.plan.layers.keys()
    for name, layer in ours.plan.layers.items():
        assert layer.stages == trained.plan.layers[name].stages
        assert layer.notes["scratch_epochs"] == 0


def test_batches_are_cut_to_the_size_of_the_recipe_and_a_single_image_is_left_out():
    model, sizes = watched_net()
    data = [(torch.randn(n, *SIZE), torch.zeros(n, dtype=torch.int64)) for n in (33, 1, 5)]
    scratch(model=model, data=data)
    assert sizes[:8] == [11, 11, 11, 5, 11, 11, 11, 5]


def test_what_cannot_be_trained_from_scratch_says_why():
    class Token(nn.Module):
        def __init__(self):
            super().__init__()
            self.token = nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return x + self.token

    with pytest.raises(lrb.UnsupportedLayer, match=r"8 \(Token\) holds parameters and has no reset_parameters"):
        scratch(model=nn.Sequential(*toy_net(), Token()))
    with pytest.raises(lrb.InvalidInput, match="3 epochs of recipe 'toy': give data"):
        scratch(data=None)
    with pytest.raises(lrb.UnsupportedLayer, match="recipe 'lebedev' factors that layer by layer"):
        scratch("tt_conv", recipe="lebedev")
    for recipe in ("vanishing", "slices"):
        with pytest.raises(lrb.UnsupportedLayer, match=f"recipe '{recipe}' tunes towards its layers"):
            scratch("tt_conv", recipe=recipe)
    with pytest.raises(lrb.UnsupportedLayer, match="trains a whole network"):
        lrb.factorize(convolution(), "tt_conv", 2, start="scratch")


def test_ranks_from_scratch_can_be_aligned_and_shared_evenly_like_any_others():
    options = {"scratch_recipe": "none", "align": 3, "allocation": "uniform"}
    ours = scratch("depthwise_separable", budget=lrb.Budget(params=1.3), ranks=None, **options)
    assert ours.plan.layers and all(layer.ranks[0] % 3 == 0 for layer in ours.plan.layers.values())
    free = scratch("depthwise_separable", budget=lrb.Budget(params=1.3), ranks=None, **options | {"align": 1})
    assert any(layer.ranks[0] % 3 for layer in free.plan.layers.values())


def test_options_that_would_do_nothing_or_train_nothing_are_refused():
    with pytest.raises(lrb.InvalidOptions, match="scratch_recipe would do nothing with start='dense'"):
        scratch("tt_conv", start="dense")
    with pytest.raises(lrb.InvalidOptions, match="mu would do nothing with start='scratch'"):
        scratch(mu=(1.0, 2.0))
    with pytest.raises(lrb.InvalidOptions, match="metric would do nothing with start='scratch'"):
        scratch("tt_conv", metric="covariance")
    with pytest.raises(lrb.InvalidOptions, match="take 'uniform' or 'price'"):
        scratch("tt_conv", allocation="sensitivity")
    with pytest.raises(lrb.InvalidOptions, match="recipe 'lebedev' does not train every value"):
        scratch(scratch_recipe="lebedev")
    for recipe in ("vanishing", "slices"):
        with pytest.raises(lrb.InvalidOptions, match=f"'{recipe}' does not train every value by labels alone"):
            scratch(scratch_recipe=recipe)
    with pytest.raises(lrb.UnknownName, match="did you mean 'charnet'"):
        scratch(scratch_recipe="charnets")


@pytest.mark.parametrize("method", ["narrow", "tt_conv", "lowrank_training"])
def test_results_depend_on_the_version_of_the_recipe_from_scratch(method, monkeypatch):
    options = {"scratch_recipe": "toy"} | ({} if method == "narrow" else {"start": "scratch"})
    monkeypatch.setitem(recipes.RECIPES, "toy", TOY.model_copy(update={"version": 7}))
    assert lrb.methods()[method](**options).versions["scratch_recipe"] == 7
    assert "scratch_recipe" not in lrb.methods()[method]().versions
