"""Whole models: budgets are met, nothing is made worse, what stays dense says why, and the input model is never
changed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import lowrank_bench as lrb
from lowrank_bench.compression.allocation import _mean_errors
from lowrank_bench.compression.method import Job
from lowrank_bench.compression.passes import first_convolution

SIZE = (3, 32, 32)


class Small(nn.Module):
    """A trunk with a shared, a strided, a transposed, an uncalled and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, stride=2, padding=1)
        self.shared = nn.Conv2d(32, 32, 3, padding=1)
        self.again = self.shared
        self.norm = nn.BatchNorm2d(32)
        self.up = nn.ConvTranspose2d(32, 16, 2, stride=2)
        self.unused = nn.Conv2d(4, 4, 3)
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.again(self.shared(self.stem(x)).relu())).relu()
        return self.head(self.up(x).mean((2, 3)))


def small() -> nn.Module:
    torch.manual_seed(0)
    return Small().eval()


@pytest.mark.parametrize(
    "budget", [lrb.Budget(macs=2), lrb.Budget(macs=3.3), lrb.Budget(params=3), lrb.Budget(params=1)]
)
@pytest.mark.parametrize("method", ["channel_svd", "jaderberg", "tucker"])
def test_a_budget_is_met_within_5_percent(method: str, budget: lrb.Budget) -> None:
    model = torchvision.models.squeezenet1_1(num_classes=10).eval()
    compressed = lrb.compress(model, method, budget, input_size=(3, 64, 64))
    dense, cost = (getattr(c, budget.metric) for c in (compressed.dense_cost, compressed.cost))
    assert dense / cost == pytest.approx(budget.ratio, rel=0.05)
    for layer in compressed.plan.layers.values():
        assert getattr(layer, budget.metric) < getattr(layer, f"dense_{budget.metric}")


def test_scope_convs_takes_the_ratio_over_the_convolutions_and_leaves_linear_layers_dense() -> None:
    model = torchvision.models.alexnet(num_classes=10).eval()
    compressed = lrb.compress(model, "channel_svd", lrb.Budget(macs=3, scope="convs"), input_size=(3, 96, 96))
    linear = {name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    assert linear <= set(compressed.skipped)
    total = sum(s.dense_macs for n, s in _conv_sites(model, (3, 96, 96)).items())
    saved = sum(layer.dense_macs - layer.macs for layer in compressed.plan.layers.values())
    assert total / (total - saved) == pytest.approx(3, rel=0.05)


def _conv_sites(model: nn.Module, size: tuple[int, int, int]) -> dict[str, Any]:
    from lowrank_bench.compression.cost import trace

    return {name: site for name, site in trace(model, size).items() if site.geometry.kind == "conv2d"}


class Stem(nn.Conv2d):
    """A convolution that no method takes, as timm's subclasses are."""


def refused_between() -> nn.Module:
    """A refused stem, two convolutions, and a refused transposed one."""
    torch.manual_seed(0)
    convs = Stem(3, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1), nn.Conv2d(32, 48, 3, padding=1)
    return nn.Sequential(*convs, nn.ConvTranspose2d(48, 32, 2, stride=2), nn.Flatten(), nn.LazyLinear(4)).eval()


@pytest.mark.parametrize("budget", [lrb.Budget(macs=1.5, scope="convs"), lrb.Budget(params=1.5, scope="convs")])
def test_scope_convs_counts_the_convolutions_that_no_method_takes(budget: lrb.Budget) -> None:
    model = refused_between()
    model(torch.zeros(1, 3, 8, 8))
    compressed = lrb.compress(model, "channel_svd", budget, input_size=(3, 8, 8))
    dense, cost = (lrb.count(m, (3, 8, 8), scope="convs") for m in (model, compressed.model))
    per_pixel = 3 * 32 * 9 + 32 * 32 * 9 + 32 * 48 * 9 + 48 * 32 * 4
    assert (dense.macs, dense.params) == (64 * per_pixel, per_pixel + 32 + 32 + 48 + 32)
    assert getattr(dense, budget.metric) / getattr(cost, budget.metric) == pytest.approx(1.5, rel=0.05)


def test_a_refused_stem_does_not_make_the_second_convolution_count_as_the_one_that_reads_the_image() -> None:
    budget = lrb.Budget(macs=1.5)  # the last one alone would do
    whole, rest = refused_between()[:3], refused_between()[1:3]
    assert set(lrb.compress(whole, "channel_svd", budget, input_size=(3, 8, 8)).plan.layers) == {"1", "2"}
    assert set(lrb.compress(rest, "channel_svd", budget, input_size=(32, 8, 8)).plan.layers) == {"2"}


@pytest.mark.parametrize("method", ["channel_svd", "narrow"])
def test_a_model_without_convolutions_has_no_ratio_of_them(method: str) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.Linear(8, 4))
    with pytest.raises(lrb.InvalidBudget, match="no convolution: leave scope out"):
        job = Job((3, 4, 4), lrb.Budget(macs=2, scope="convs"), speed_only=True)
        lrb.methods()[method]().compress(model, job)


@pytest.mark.parametrize(("name", "size"), [("vgg16", 224), ("resnet18", 224)])
def test_of_plain_convolutions_the_scope_is_the_sum_over_the_sites_and_the_first_is_the_first(
    name: str, size: int
) -> None:
    with torch.device("meta"):
        model = torchvision.models.get_model(name)
    sites, cost = _conv_sites(model, (3, size, size)), lrb.count(model, (3, size, size), scope="convs")
    assert cost.macs == sum(site.dense_macs for site in sites.values())
    assert cost.params == sum(site.dense_params for site in sites.values())
    assert first_convolution(model, (3, size, size)) == next(iter(sites))


def test_a_budget_out_of_reach_names_the_largest_that_is_not() -> None:
    with pytest.raises(lrb.InvalidBudget, match=r"largest ratio .* is (\d+)") as caught:
        lrb.compress(small(), "tucker", lrb.Budget(macs=1e6), input_size=SIZE)
    reachable = float(str(caught.value).rsplit(" ", 1)[1])
    lrb.compress(small(), "tucker", lrb.Budget(macs=reachable), input_size=SIZE)


def test_every_layer_is_in_the_plan_or_has_a_reason() -> None:
    model = small()
    compressed = lrb.compress(model, "jaderberg", lrb.Budget(params=2), input_size=SIZE)
    layers = {n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)}
    assert set(compressed.plan.layers) | set(compressed.skipped) == layers
    assert "never called" in compressed.skipped["unused"]
    assert "only nn.Conv2d" in compressed.skipped["up"]
    assert "linear" in compressed.skipped["head"]


class OtherDimensions(nn.Module):
    """Convolutions in two dimensions, one, three and, transposed, one."""

    def __init__(self) -> None:
        super().__init__()
        self.flat, self.wide = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3)
        self.line, self.volume, self.back = nn.Conv1d(16, 8, 3), nn.Conv3d(8, 4, (1, 1, 3)), nn.ConvTranspose1d(4, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.line(self.wide(self.flat(x)).flatten(2))
        out: Tensor = self.back(self.volume(x[:, :, None, None]).flatten(2))
        return out


def test_convolutions_of_one_and_three_dimensions_stay_dense_by_name_and_are_counted() -> None:
    model = OtherDimensions().eval()
    budget = lrb.Budget(macs=2)
    compressed = lrb.compress(model, "tucker", budget, input_size=(3, 10, 10))
    assert "wide" in compressed.plan.layers
    for name in ("line", "volume", "back"):
        assert compressed.skipped[name] == "only nn.Conv2d and nn.Linear layers are factored"
    for own, cost in ((model, compressed.dense_cost), (compressed.model, compressed.cost)):
        with FlopCounterMode(display=False) as flops:
            own(torch.randn(1, 3, 10, 10))
        assert 2 * cost.macs == flops.get_total_flops()
    assert compressed.dense_cost.macs / compressed.cost.macs == pytest.approx(2, rel=0.05)


class ReadsWeight(nn.Module):
    """Reads the weight of a layer that it calls too, as timm's EdgeNeXt does for its device."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.plain = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.plain(self.read(x.to(self.read.weight.device)))
        return out


def test_a_layer_whose_weight_the_network_reads_itself_stays_dense_by_name() -> None:
    model = ReadsWeight()
    compressed = lrb.compress(model, "tucker", ranks="energy:0.5", input_size=(3, 8, 8))
    assert set(compressed.plan.layers) == {"plain"}
    assert "other code there reads its weight" in compressed.skipped["read"]
    assert compressed.model(torch.zeros(1, 3, 8, 8)).shape == model(torch.zeros(1, 3, 8, 8)).shape
    with pytest.raises(lrb.UnsupportedLayer, match=r"'read': .* other code there reads its weight"):
        lrb.compress(model, "tucker", ranks={"read": "full"}, input_size=(3, 8, 8))


class Tied(nn.Module):
    """Two layers of one weight, which is stored and counted once, between two plain ones."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.a, self.b = nn.Conv2d(3, 32, 3), *(nn.Conv2d(32, 32, 3, padding=1) for _ in range(2))
        self.last = nn.Conv2d(32, 64, 3)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.b(self.a(self.stem(x)).relu()).relu())
        return out


@pytest.mark.parametrize("how", [{"budget": lrb.Budget(params=2)}, {"budget": lrb.Budget(macs=1.2)}, {"ranks": 4}])
def test_layers_of_one_weight_stay_dense_by_name_and_a_budget_is_met_with_the_others(how: dict[str, Any]) -> None:
    compressed = lrb.compress(Tied(), "channel_svd", input_size=(3, 12, 12), **how)
    assert {"a", "b"} <= set(compressed.skipped)
    assert "shares its weight with 'b'" in compressed.skipped["a"]
    assert compressed.model.a.weight is compressed.model.b.weight
    if budget := how.get("budget"):
        dense, cost = (getattr(c, budget.metric) for c in (compressed.dense_cost, compressed.cost))
        assert dense / cost == pytest.approx(budget.ratio, rel=0.05)


def test_a_budget_out_of_reach_of_layers_of_one_weight_names_a_ratio_above_one() -> None:
    with pytest.raises(lrb.InvalidBudget, match=r"largest ratio that .* is [1-9]"):
        lrb.compress(Tied(), "channel_svd", lrb.Budget(params=100), input_size=(3, 12, 12))
    with pytest.raises(lrb.UnsupportedLayer, match=r"'b': it shares its weight with 'a'"):
        lrb.compress(Tied(), "channel_svd", ranks={"b": 2}, input_size=(3, 12, 12))


def test_a_shared_layer_is_swapped_under_every_name_and_stays_shared() -> None:
    compressed = lrb.compress(small(), "jaderberg", ranks={"shared": 5}, input_size=SIZE)
    assert compressed.model.shared is compressed.model.again
    assert isinstance(compressed.model.shared, nn.Sequential)


@pytest.mark.parametrize("how", [{"budget": lrb.Budget(macs=4)}, {"ranks": 8}, {"ranks": {"": 8}}], ids=str)
def test_a_model_that_is_itself_a_layer_is_refused_rather_than_left_dense(how: dict[str, Any]) -> None:
    conv = nn.Conv2d(64, 64, 3)
    with pytest.raises(lrb.UnsupportedLayer, match=r"itself a Conv2d: wrap it in nn\.Sequential"):
        lrb.compress(conv, "tucker", input_size=(64, 32, 32), **how)
    wrapped = lrb.compress(nn.Sequential(conv), "tucker", input_size=(64, 32, 32), ranks={"0": 8})
    assert wrapped.cost.macs < wrapped.dense_cost.macs


def test_a_warning_says_why_where_every_layer_is_left_as_it_is() -> None:
    model = nn.Sequential(nn.Flatten(), *(nn.Linear(12, 12) for _ in range(5)))
    words = r"jaderberg left every layer as it is: 1: .*linear.*; 2: .*; 3: [^;]*; and 2 more$"
    with pytest.warns(UserWarning, match=words):
        lrb.compress(model, "jaderberg", ranks="full", input_size=(3, 2, 2))
    with pytest.warns(UserWarning, match="as it is: there is none that it could factor"):
        lrb.compress(nn.Sequential(nn.Flatten()), "jaderberg", ranks="full", input_size=(3, 2, 2))


def test_full_rank_keeps_the_outputs_and_the_input_model() -> None:
    model = small().double()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.randn(2, *SIZE, dtype=torch.float64)
    for method in ("channel_svd", "jaderberg", "tucker"):
        compressed = lrb.compress(model, method, ranks="full", input_size=SIZE)
        assert (compressed.model(x) - model(x)).abs().max() < 1e-9
        assert all(layer.error is not None and layer.error < 1e-9 for layer in compressed.plan.layers.values())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_recorded_error_is_the_relative_frobenius_error() -> None:
    model = small()
    compressed = lrb.compress(model, "channel_svd", ranks={"shared": 3}, input_size=SIZE)
    kernel = model.shared.weight.detach().double().flatten(1)
    tail = torch.linalg.svdvals(kernel)[3:].norm() / kernel.norm()
    assert compressed.plan.layers["shared"].error == pytest.approx(float(tail))


def test_energy_and_evbmf_read_ranks_off_the_weights() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(32, 48, 3, padding=1), nn.Conv2d(48, 48, 3, padding=1)).eval()
    planted = torch.randn(48, 4) @ torch.randn(4, 32 * 9) + 0.01 * torch.randn(48, 32 * 9)
    model[0].weight.data = planted.reshape(48, 32, 3, 3)
    compressed = lrb.compress(model, "channel_svd", ranks="evbmf", input_size=(32, 8, 8))
    assert compressed.plan.layers["0"].ranks == (4,)
    assert "rank 0" in compressed.skipped["1"]  # torch's initialisation is noise
    compressed = lrb.compress(model, "channel_svd", ranks="energy:0.99", input_size=(32, 8, 8))
    assert compressed.plan.layers["0"].ranks == (4,)
    assert "cheaper" in compressed.skipped["1"]


def test_a_rule_keeps_what_saves_parameters_alone() -> None:
    """A rebuilt train runs the dense convolution: as many MACs, fewer parameters where its ranks are low."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1, bias=False)).eval()
    rebuilt = {"mode": "rebuild"}
    compressed = lrb.compress(model, "tt_conv", ranks="energy:0.5", options=rebuilt, input_size=(16, 8, 8))
    layer = compressed.plan.layers["0"]
    assert (layer.macs, layer.params < layer.dense_params) == (layer.dense_macs, True)
    with pytest.warns(UserWarning, match=r"as it is: 0: .*cheaper than dense$"):
        dense = lrb.compress(model, "tt_conv", ranks="energy:0.9999", options=rebuilt, input_size=(16, 8, 8))
    assert "cheaper" in dense.skipped["0"]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"method": "tuckr", "ranks": "full"}, lrb.UnknownName, "did you mean 'tucker'"),
        ({"method": "tucker"}, lrb.InvalidInput, "exactly one"),
        ({"method": "tucker", "ranks": "full", "budget": lrb.Budget(macs=2)}, lrb.InvalidInput, "exactly one"),
        ({"method": "tucker", "ranks": {"sharde": 2}}, lrb.UnknownName, "did you mean 'shared'"),
        ({"method": "jaderberg", "ranks": {"head": 2}}, lrb.UnsupportedLayer, "head.*linear"),
        ({"method": "tucker", "ranks": {"up": 2}}, lrb.UnsupportedLayer, "up"),
        ({"method": "tucker", "ranks": {"shared": (0, 3)}}, lrb.InvalidRanks, "shared.*wanted"),
        ({"method": "tucker", "ranks": "energy:2"}, lrb.InvalidRanks, "energy:2"),
        ({"method": "tucker", "ranks": 8.0}, lrb.InvalidRanks, r"ranks 8\.0: a whole number"),
        ({"method": "tucker", "ranks": {"shared": None}}, lrb.InvalidRanks, "'shared': ranks None: a whole number"),
        ({"method": "tucker", "ranks": {"shared": (8.0, 8)}}, lrb.InvalidRanks, r"'shared': ranks \(8\.0, 8\)"),
        ({"method": "tucker", "ranks": (True, 8)}, lrb.InvalidRanks, r"ranks \(True, 8\): a whole number"),
        ({"method": "tucker", "budget": 4}, lrb.InvalidBudget, r"budget = 4: .*Budget\(macs=4\)"),
        ({"method": "tucker", "budget": {"macs": 4}}, lrb.InvalidBudget, r"\{'macs': 4\}: .*Budget\(macs=4\)"),
        ({"method": "denton", "ranks": 1, "seed": -1}, lrb.InvalidInput, "seed -1: a whole number from 0"),
        ({"method": "denton", "ranks": 1, "seed": 0.5}, lrb.InvalidInput, r"seed 0\.5: a whole number from 0"),
        (
            {"method": "jaderberg", "ranks": "full", "options": {"order": "up"}},
            lrb.InvalidOptions,
            "order.*'vh' or 'hv'",
        ),
        ({"method": "tucker", "ranks": "full", "recipe": "standart"}, lrb.UnknownName, "standart.*standard"),
        ({"method": "tucker", "ranks": "full", "input_size": 32}, lrb.InvalidInput, "positive integers, got 32"),
        (
            {"method": "denton", "ranks": 1, "options": {"seed": 1}},
            lrb.InvalidOptions,
            "'seed' is no option of any method; a seed is given as seed=",
        ),
        ({"method": "tucker", "ranks": "full", "input_size": (1, 32, 32)}, lrb.InvalidInput, "image of size"),
    ],
)
def test_bad_input_is_named(arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        lrb.compress(small(), **{"input_size": SIZE} | arguments)


def test_groups_count_by_what_they_weigh_when_a_budget_is_shared() -> None:
    method = lrb.methods()["channel_svd"]()
    weight = torch.randn(2, 16, 8, 3, 3, generator=torch.Generator().manual_seed(0)).double()
    weight[1] *= 1e-6  # of no account, whatever it loses
    loud = method.errors(weight[0], [(1,), (4,)])
    assert _mean_errors(method, list(weight), [(1,), (4,)]) == pytest.approx(loud, rel=1e-6)
    assert method.errors(weight[1], [(1,), (4,)]) != pytest.approx(loud, rel=1e-6)


def test_a_depthwise_kernel_is_composed_channel_by_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    eye = torch.eye
    monkeypatch.setattr(torch, "eye", lambda n, **how: sizes.append(n) or eye(n, **how))
    layer = nn.Conv2d(64, 64, 3, groups=64).double()
    assert torch.allclose(lrb.compose(lrb.factorize(layer, "jaderberg", "full")), layer.weight)
    assert sizes == [1]


@pytest.mark.parametrize("ranks", [np.int64(5), (np.int64(5), 5), np.array([5, 5])], ids=repr)
def test_whole_numbers_of_numpy_are_ranks(ranks: Any) -> None:
    compressed = lrb.compress(small(), "tucker", ranks={"shared": ranks}, input_size=SIZE)
    assert compressed.plan.layers["shared"].ranks == (5, 5)
    assert lrb.count(lrb.factorize(small().shared, "tucker", ranks), (32, 8, 8)).macs == 64 * (2 * 32 * 5 + 5 * 5 * 9)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("channel_svd", {}),
        ("tucker", {}),
        ("denton", {}),
        ("denton", {"variant": "outer"}),
        ("depthwise_separable", {}),
        ("jaderberg", {"scheme": 1}),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "how", [{"budget": lrb.Budget(macs=1.5)}, {"ranks": "energy:0.9"}, {"ranks": "evbmf"}, {"ranks": 1}], ids=str
)
def test_weights_that_are_not_finite_are_refused_with_their_layer(
    how: dict[str, Any], method: str, options: dict[str, Any]
) -> None:
    model = small()
    with torch.no_grad():
        model.shared.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(lrb.InvalidWeights, match=r"layer 'shared': .* not finite"):
        lrb.compress(model, method, options=options, input_size=SIZE, **how)


def test_what_is_not_on_the_cpu_is_refused_with_the_remedy() -> None:
    model = small()
    model.head.to("meta")  # as a GPU would be
    with pytest.raises(lrb.InvalidInput, match=r"'head\.weight' on device 'meta', .*: give model\.cpu\(\)"):
        lrb.compress(model, "tucker", lrb.Budget(macs=2), input_size=SIZE)
    with pytest.raises(lrb.InvalidInput, match=r"'weight' on device 'meta', .*: give layer\.cpu\(\)"):
        lrb.factorize(model.shared.to("meta"), "tucker", 2)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"macs": 0.5},
        {"macs": float("nan")},
        {"macs": -4},
        {"macs": 2, "params": 2},
        {"latency": 2},
        {"macs": 2, "runtime": "eager"},
        {"speed": 2},
    ],
)
def test_a_malformed_budget_is_refused_by_name(arguments: dict[str, Any]) -> None:
    with pytest.raises(lrb.InvalidBudget):
        lrb.Budget(**arguments)


def saved(folder: Path) -> nn.Module:
    model = small()
    lrb.compress(model, "tucker", lrb.Budget(params=2), input_size=SIZE).save(folder)
    return model


def test_save_and_load_give_the_same_model_plan_and_cost(tmp_path: Path) -> None:
    model = small()
    compressed = lrb.compress(model, "jaderberg", lrb.Budget(macs=2), input_size=SIZE)
    compressed.save(tmp_path)
    loaded = lrb.load(tmp_path, small())
    assert (loaded.plan, loaded.cost, loaded.dense_cost) == (compressed.plan, compressed.cost, compressed.dense_cost)
    x = torch.randn(2, *SIZE)
    assert torch.equal(loaded.model(x), compressed.model(x))


def test_a_damaged_plan_is_named(tmp_path: Path) -> None:
    model = saved(tmp_path)
    plan = json.loads((tmp_path / "plan.json").read_text())
    layer = plan["plan"]["layers"]["shared"]
    for damage in (
        {"kind": "pickle"},
        {"shape": [10**9, 1, 1, 1]},
        {"axes": "z"},
        {"groups": 0},
        {"shape": [-1, 1, 1, 1]},
    ):
        stage = layer["stages"][0]
        layer["stages"][0] = stage | damage
        (tmp_path / "plan.json").write_text(json.dumps(plan))
        with pytest.raises(lrb.InvalidPlan, match=r"plan\.json"):
            lrb.load(tmp_path, model)
        layer["stages"][0] = stage
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(lrb.InvalidPlan):
        lrb.load(tmp_path, model)
    with pytest.raises(lrb.InvalidPlan, match="does not hold"):
        lrb.load(tmp_path / "nowhere", model)


def test_plans_that_hold_what_was_always_one_still_load(tmp_path: Path) -> None:
    compressed = lrb.compress(small(), "tt_conv", ranks={"shared": 4}, options={"mode": "rebuild"}, input_size=SIZE)
    compressed.save(tmp_path)
    plan = json.loads((tmp_path / "plan.json").read_text())
    (stage,) = plan["plan"]["layers"]["shared"]["stages"]
    assert stage["kind"] == "rebuilt" and "groups_per_block" not in stage
    x = torch.randn(2, *SIZE)
    stage["groups_per_block"] = 1
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    assert torch.equal(lrb.load(tmp_path, small()).model(x), compressed.model(x))
    stage["groups_per_block"] = 2
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(lrb.InvalidPlan, match="groups_per_block"):
        lrb.load(tmp_path, small())


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    model = saved(tmp_path)
    weights = load_file(tmp_path / "weights.safetensors")
    weights["stem.bias"] = torch.zeros(7) if "stem.bias" in weights else torch.zeros(1)
    save_file(weights, tmp_path / "weights.safetensors")
    with pytest.raises(lrb.InvalidPlan, match="shape"):
        lrb.load(tmp_path, model)
    (tmp_path / "weights.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(lrb.InvalidPlan):
        lrb.load(tmp_path, model)


def test_a_plan_of_another_model_is_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(lrb.InvalidPlan, match="does not fit"):
        lrb.load(tmp_path, nn.Sequential(nn.Conv2d(3, 8, 3)))


class Halved(nn.Conv2d):
    """A convolution with another kernel than its weight."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) / 2


@pytest.mark.parametrize(
    ("layer", "words"), [(Halved(3, 4, 3), "Halved is not known: a subclass"), (nn.ReLU(), "only nn.Conv2d")], ids=str
)
def test_a_kernel_that_is_not_the_weight_is_not_composed(layer: nn.Module, words: str) -> None:
    with pytest.raises(lrb.UnsupportedLayer, match=words):
        lrb.compose(layer)


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_what_is_no_module_of_python_is_named_with_the_remedy() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    how: dict[str, Any] = {"ranks": {"2": 4}, "input_size": (3, 16, 16)}
    made: Any = lrb.compress(model, "tucker", **how)
    traced: Any = torch.jit.trace(model, torch.zeros(1, 3, 16, 16))  # type: ignore[no-untyped-call]
    name: Any = "resnet18"
    calls: list[tuple[Any, str]] = [
        (lambda: lrb.count(made, (3, 16, 16)), r"type Compressed, .* give its \.model"),
        (lambda: lrb.measure_speedup(model, made, (3, 16, 16)), r"compressed model is .* give its \.model"),
        (lambda: lrb.compress(name, "tucker", **how), "type str"),
        (lambda: lrb.compress(traced, "tucker", **how), "TorchScript"),
    ]
    for call, words in calls:
        with pytest.raises(lrb.InvalidInput, match=words):
            call()
    numbered: Any = {2: 4}
    with pytest.raises(lrb.UnknownName, match="did you mean '2'"):
        lrb.compress(model, "tucker", ranks=numbered, input_size=(3, 16, 16))


@pytest.mark.parametrize("asked", [{"budget": lrb.Budget(macs=4)}, {"ranks": 4}], ids=str)
def test_the_dense_network_meets_no_budget_and_has_no_ranks(asked: dict[str, Any]) -> None:
    with pytest.raises(lrb.InvalidInput, match="leave budget and ranks out"):
        lrb.compress(small(), "identity", **asked, input_size=(3, 16, 16))
