"""The rule "sensitivity": layers are cut by what the output loses, measured on images, and a budget is met as ever."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from toys import SIZE, toy_batches, toy_net

import lowrank_bench as lrb
from lowrank_bench.compression.choices import Choice
from lowrank_bench.compression.cost import trace
from lowrank_bench.compression.method import Job
from lowrank_bench.compression.sensitivity import LEAST, VERSION, Sensitivity
from lowrank_bench.methods.channel_svd import ChannelSVD

OPTIONS = {"allocation": "sensitivity"}


class TwoBranches(nn.Module):
    """Two convolutions of one kernel, side by side; the output hears the second ``volume`` times as loud."""

    def __init__(self, volume: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.loud, self.quiet = nn.Conv2d(4, 16, 3, bias=False), nn.Conv2d(4, 16, 3, bias=False)
        self.quiet.weight.data.copy_(self.loud.weight)
        self.head, self.volume = nn.Linear(16, 6), volume

    def forward(self, x: Tensor) -> Tensor:
        return 20 * self.head((self.loud(x) + self.volume * self.quiet(x)).relu().mean((2, 3)))


class Blind(ChannelSVD):
    """A method that cannot tell its errors."""

    name = "blind"

    def unfoldings(self, weight: Tensor) -> tuple[Tensor, ...]:
        return ()


def losses(model: nn.Module, name: str, method: ChannelSVD | None = None) -> list[float]:
    """Of the ranks from 1 on, each at its share of the dense cost."""
    method, site = method or ChannelSVD(**OPTIONS), trace(model, SIZE)[name]
    candidates = method.candidates(site.geometry.kernel)
    costs = [site.macs(method.structure_layer(site.geometry.kernel, 1, ranks)) for ranks in candidates]
    errors = method.errors(named(model, name), candidates) or [None] * len(candidates)
    options = [Choice(None, site.dense_macs, 0.0), *map(Choice, candidates, costs, errors)]
    sensitivity = Sensitivity(method, model, Job(SIZE, data=toy_batches), {name: site}, {})
    return [choice.loss for choice in sensitivity.choices(name, options)[1:]]


def named(model: nn.Module, name: str) -> Tensor:
    weight = model.get_submodule(name).weight
    assert isinstance(weight, Tensor)
    return weight.detach().double()


def test_a_layer_that_the_output_hardly_hears_is_cut_first() -> None:
    compressed = lrb.compress(
        TwoBranches(1e-3), "channel_svd", lrb.Budget(macs=1.6), input_size=SIZE, options=OPTIONS, data=toy_batches(0)
    )
    layers = compressed.plan.layers
    assert "quiet" in layers and ("loud" not in layers or layers["quiet"].ranks < layers["loud"].ranks)


def test_a_layer_that_is_not_heard_loses_nothing() -> None:
    assert max(losses(TwoBranches(0.0), "quiet")[:10]) < 1e-5 < min(losses(TwoBranches(0.0), "loud")[:4])


@pytest.mark.parametrize("method", [ChannelSVD(**OPTIONS), Blind(**OPTIONS)])
def test_losses_fall_as_ranks_rise_down_to_nothing(method: ChannelSVD) -> None:
    found = losses(TwoBranches(0.5), "loud", method)
    assert found == sorted(found, reverse=True)
    assert found[-1] < 1e-3 * found[0]
    assert min(found) >= LEAST * LEAST


def test_the_divergence_is_quadratic_in_small_changes() -> None:
    full, double = (losses(TwoBranches(volume), "quiet")[3] for volume in (0.01, 0.02))
    assert double == pytest.approx(4 * full, rel=0.1)


@pytest.mark.parametrize(
    ("method", "budget"),
    [
        ("channel_svd", lrb.Budget(macs=2)),
        ("channel_svd", lrb.Budget(macs=1.5, scope="convs")),
        ("tucker", lrb.Budget(params=2)),
        ("jaderberg", lrb.Budget(macs=2)),
        ("cp_nls", lrb.Budget(params=2)),
        (Blind, lrb.Budget(macs=2)),
    ],
)
def test_a_budget_is_met_within_5_percent(method: str | type[ChannelSVD], budget: lrb.Budget) -> None:
    model = toy_net(norm=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    compressed = lrb.compress(model, method, budget, input_size=SIZE, options=OPTIONS, data=toy_batches)
    costs = (lrb.count(each, SIZE, scope=budget.scope) for each in (model, compressed.model))
    dense, cost = (getattr(c, budget.metric) for c in costs)
    assert dense / cost == pytest.approx(budget.ratio, rel=0.05)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_limit_on_what_is_not_measured_is_refused() -> None:
    with pytest.raises(lrb.InvalidOptions, match="probe_seconds would do nothing"):
        ChannelSVD(probe_seconds=5)


def test_a_layer_that_takes_too_long_is_probed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    factored: list[Sequence[int]] = []
    factorize = ChannelSVD.factorize

    def counted(self: ChannelSVD, weight: Tensor, ranks: tuple[int, ...], statistics: Tensor | None = None) -> object:
        factored.extend([ranks] if not weight.is_meta else [])
        return factorize(self, weight, ranks, statistics)

    monkeypatch.setattr(ChannelSVD, "factorize", counted)
    assert losses(TwoBranches(0.5), "loud", ChannelSVD(**OPTIONS, probe_seconds=1e-9))[0] > 0
    assert len(factored) == 1


def test_at_its_cheapest_a_layer_is_measured_since_its_error_says_little_there(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential()
    model.wide = nn.Conv2d(4, 256, 5)
    site = trace(model, SIZE)["wide"]
    twice = ChannelSVD().structure_layer(site.geometry.kernel, 1, (2,))
    assert site.macs(twice) < site.dense_macs / 32  # so of the other probes none is at rank 1
    monkeypatch.setattr(Sensitivity, "_loss", lambda self, name, ranks: ranks[0] ** -4.0)
    assert losses(model, "wide")[:2] == pytest.approx([1, 2**-4])


def test_records_of_another_way_to_measure_are_other_records_beside_the_same_control() -> None:
    plain, measured = ChannelSVD(), ChannelSVD(**OPTIONS)
    assert plain.versions == {"method": ChannelSVD.version}
    assert measured.versions == {**plain.versions, "sensitivity": VERSION}
    of = {"task": "chars36", "model": "charnet", "method": "channel_svd", "recipe": "none"}
    first, second = (
        lrb.Trial(**of, budget=lrb.Budget(macs=2), versions={"sensitivity": number})
        for number in (VERSION, VERSION + 1)
    )
    assert first.key != second.key and first.control == second.control


def test_what_no_ranks_reach_is_refused_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sensitivity, "_loss", lambda self, name, ranks: pytest.fail("measured"))
    with pytest.raises(lrb.InvalidBudget, match="out of reach"):
        lrb.compress(toy_net(), "tucker", lrb.Budget(macs=1000), input_size=SIZE, options=OPTIONS, data=toy_batches)


def test_layers_are_cut_in_the_metric_in_which_they_will_be() -> None:
    site = trace(TwoBranches(0.5), SIZE)["loud"]

    def loss(**options: object) -> float:
        method = ChannelSVD(**OPTIONS, **options)
        job = Job(
            SIZE, data=lambda epoch: [(x * torch.tensor([9.0, 1, 1, 1])[:, None, None], y) for x, y in toy_batches(0)]
        )
        return Sensitivity(method, TwoBranches(0.5), job, {"loud": site}, {})._loss("loud", (2,))

    assert loss(metric="covariance") < 0.8 * loss()


def test_without_images_it_is_refused() -> None:
    for data in (None, [(torch.zeros(1, *SIZE), torch.zeros(1, dtype=torch.int64))]):
        with pytest.raises(lrb.InvalidInput, match="sensitivity"):
            lrb.compress(toy_net(), "tucker", lrb.Budget(macs=2), input_size=SIZE, options=OPTIONS, data=data)
