"""The control narrow: the same architecture with fewer channels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import lowrank_bench as lrb
from lowrank_bench.compression.method import Job
from lowrank_bench.compression.model import load
from lowrank_bench.compression.widths import narrowed
from lowrank_bench.tasks.charnet import CharNet
from lowrank_bench.tasks.fashion_mnist import FashionMnist
from lowrank_bench.tasks.zoo import build_zoo_model

SMALL = (3, 64, 64)


class Shift(nn.Module):
    """Adds values of its own."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.shift


def narrow(model: nn.Module, size: tuple[int, int, int], budget: lrb.Budget, speed_only: bool = True) -> lrb.Compressed:
    return lrb.methods()["narrow"]().compress(model, Job(size, budget, speed_only=speed_only))


@pytest.mark.parametrize("name", ["resnet18", "vgg11_narrow", "allconv", "convfc"])
@pytest.mark.parametrize("budget", [lrb.Budget(macs=4), lrb.Budget(params=8), lrb.Budget(macs=2, scope="convs")])
def test_the_networks_that_are_trained_here_meet_budgets(name: str, budget: lrb.Budget) -> None:
    dense = FashionMnist.baselines[name].build()
    made = narrow(dense, (1, 32, 32), budget)
    costs = (lrb.count(model, (1, 32, 32), scope=budget.scope) for model in (dense, made.model))
    before, after = (getattr(cost, budget.metric) for cost in costs)
    assert before / after == pytest.approx(budget.ratio, rel=0.05)
    assert (made.dense_cost, made.cost) == (lrb.count(dense, (1, 32, 32)), lrb.count(made.model, (1, 32, 32)))
    assert made.model(torch.zeros(2, 1, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("ratio", [1.3, 1.5, 2, 4])
def test_a_depthwise_convolution_keeps_its_outputs_per_channel(ratio: float) -> None:
    layers = [nn.Conv2d(3, 24, 3), nn.Conv2d(24, 48, 3, groups=24), nn.Conv2d(48, 32, 1), nn.Flatten()]
    made = narrow(nn.Sequential(*layers, nn.Linear(32 * 12 * 12, 10)), (3, 16, 16), lrb.Budget(macs=ratio))
    assert made.dense_cost.macs / made.cost.macs == pytest.approx(ratio, rel=0.05)
    assert made.model[1].out_channels == 2 * made.model[1].in_channels == 2 * made.model[1].groups


@pytest.mark.parametrize("name", ["torchvision:convnext_tiny", "timm:convnextv2_atto"])
@pytest.mark.parametrize("ratio", [2, 4])
def test_layer_norms_and_values_per_channel_follow_the_channels(name: str, ratio: int, tmp_path: Path) -> None:
    dense = build_zoo_model(name)
    made = narrow(dense, SMALL, lrb.Budget(macs=ratio))
    assert made.dense_cost.macs / made.cost.macs == pytest.approx(ratio, rel=0.05)
    images = torch.randn(2, *SMALL)
    logits = made.model.eval()(images)
    assert logits.shape == (2, 1000) and bool(logits.isfinite().all())
    before, after = ({n: value.shape for n, value in net.named_parameters()} for net in (dense, made.model))
    assert before.keys() == after.keys()
    assert [n for n in before if before[n] == after[n]] == [*before][-1:]  # the classes' biases
    made.save(tmp_path)
    torch.testing.assert_close(load(tmp_path, dense).model(images), logits)


def test_values_per_channel_start_at_their_mean_and_norms_afresh() -> None:
    scale = nn.PReLU(8)
    norm = nn.GroupNorm(2, 8)
    with torch.no_grad():
        scale.weight.copy_(torch.arange(8.0))
        norm.weight.fill_(3)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), scale, norm, nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(288, 5)
    )
    made, widths = narrowed(model, (3, 8, 8), share=0.4)  # three channels, which the norm's two groups do not divide
    assert [widths[name].outputs for name in ("0", "1", "2", "3", "5")] == [4, 4, 4, 4, 5]
    assert made.get_parameter("1.weight").tolist() == [3.5] * 4  # as many rows as channels: the second axis counts
    assert made.get_parameter("2.weight").tolist() == [1.0] * 4


@pytest.mark.parametrize("name", ["torchvision:mobilenet_v2", "torchvision:googlenet", "torchvision:densenet121"])
def test_depthwise_layers_stay_depthwise_and_what_is_joined_fits(name: str) -> None:
    model = build_zoo_model(name)
    made = narrow(model, SMALL, lrb.Budget(macs=4))
    assert made.dense_cost.macs / made.cost.macs == pytest.approx(4, rel=0.05)
    assert made.model(torch.zeros(1, *SMALL)).shape == (1, 1000)
    depthwise = [name for name, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.groups == m.in_channels]
    layers = dict(made.model.named_modules())
    for layer in depthwise:
        conv = layers[layer]
        assert isinstance(conv, nn.Conv2d) and conv.groups == conv.in_channels == conv.out_channels


def test_channels_before_a_maxout_stay_a_multiple_of_its_pieces() -> None:
    made = narrow(CharNet(), (1, 24, 24), lrb.Budget(macs=4))
    assert made.dense_cost.macs / made.cost.macs == pytest.approx(4, rel=0.05)
    assert made.plan.widths["conv3"].outputs % 4 == 0
    assert made.plan.widths["conv4"].outputs == 144  # the classes, four pieces each


@pytest.mark.parametrize("budget", [lrb.Budget(macs=2), lrb.Budget(macs=8)])
def test_channels_are_aligned_where_that_is_asked(budget: lrb.Budget) -> None:
    dense = FashionMnist.baselines["vgg11_narrow"].build()
    made = lrb.methods()["narrow"](align=8).compress(dense, Job((1, 32, 32), budget, speed_only=True))
    assert made.dense_cost.macs / made.cost.macs == pytest.approx(budget.ratio, rel=0.05)
    *hidden, classes = made.plan.widths.values()
    assert classes.outputs == 10 and all(width.outputs % 8 == 0 for width in hidden)
    with pytest.raises(lrb.InvalidBudget, match="in multiples of 512"):
        lrb.methods()["narrow"](align=512).compress(dense, Job((1, 32, 32), budget, speed_only=True))


def test_a_saved_network_comes_back(tmp_path: Path) -> None:
    dense = FashionMnist.baselines["vgg11_narrow"].build()
    made = narrow(dense, (1, 32, 32), lrb.Budget(macs=4))
    images = torch.randn(2, 1, 32, 32)
    made.save(tmp_path / "whole")
    torch.testing.assert_close(load(tmp_path / "whole", dense).model(images), made.model.eval()(images))
    made.save(tmp_path / "shapes", values=False)
    shapes = load(tmp_path / "shapes", dense, values=False).model
    assert [p.shape for p in shapes.parameters()] == [p.shape for p in made.model.parameters()]
    with pytest.raises(lrb.InvalidPlan, match="does not fit the model"):
        load(tmp_path / "whole", CharNet())


def test_it_is_trained_by_what_trained_the_dense_network() -> None:
    torch.manual_seed(0)
    batches = [(torch.randn(32, 1, 24, 24), torch.randint(36, (32,))) for _ in range(2)]
    untrained = narrow(CharNet(), (1, 24, 24), lrb.Budget(macs=8))
    job = Job((1, 24, 24), lrb.Budget(macs=8), data=lambda _epoch: batches, trained_by="short")
    made = lrb.methods()["narrow"]().compress(CharNet(), job)
    assert made.plan.widths == untrained.plan.widths
    assert not torch.equal(made.model.get_parameter("conv2.weight"), untrained.model.get_parameter("conv2.weight"))
    with pytest.raises(lrb.InvalidInput, match="give the option scratch_recipe"):
        narrow(CharNet(), (1, 24, 24), lrb.Budget(macs=8), speed_only=False)
    with pytest.raises(lrb.InvalidInput, match="give data"):
        lrb.compress(
            CharNet(),
            "narrow",
            budget=lrb.Budget(macs=8),
            input_size=(1, 24, 24),
            options={"scratch_recipe": "short"},
        )


@pytest.mark.parametrize("recipe", ["frozen", "lebedev", "distilled", "vanishing", "slices"])
def test_a_recipe_that_needs_the_dense_network_or_keeps_values_is_refused(recipe: str) -> None:
    with pytest.raises(lrb.InvalidOptions, match=f"scratch_recipe = .* recipe '{recipe}' does not train every value"):
        lrb.methods()["narrow"](scratch_recipe=recipe)
    with pytest.raises(lrb.UnknownName, match="did you mean 'standard'"):
        lrb.methods()["narrow"](scratch_recipe="standrad")


def test_the_model_itself_is_not_changed_and_the_seed_decides_the_values() -> None:
    dense = CharNet()
    before = {name: value.clone() for name, value in dense.state_dict().items()}
    one, two = (narrow(dense, (1, 24, 24), lrb.Budget(macs=4)).model.state_dict() for _ in range(2))
    assert all(value.equal(dense.state_dict()[name]) for name, value in before.items())
    assert all(one[name].equal(two[name]) for name in one)


def test_what_it_cannot_do_is_refused_by_name() -> None:
    with pytest.raises(lrb.UnsupportedLayer, match=r"^1 \(Shift\) holds parameters that are not one value"):
        narrow(nn.Sequential(nn.Conv2d(3, 8, (3, 5)), Shift(8, 62, 60)), SMALL, lrb.Budget(macs=4))
    with pytest.raises(lrb.UnsupportedLayer, match=r"^1 \(Shift\) holds parameters that are not one value"):
        narrow(nn.Sequential(nn.Conv2d(3, 8, (3, 5)), Shift(62, 1)), SMALL, lrb.Budget(macs=4))
    with pytest.raises(lrb.InvalidRanks, match="no ranks"):
        lrb.compress(CharNet(), "narrow", ranks="full", input_size=(1, 24, 24))
    with pytest.raises(lrb.InvalidBudget, match="MACs and parameters only"):
        narrow(CharNet(), (1, 24, 24), lrb.Budget(latency=2, runtime="eager", threads=1, batch=1))
    with pytest.raises(lrb.InvalidBudget, match="nearest"):
        narrow(CharNet(), (1, 24, 24), lrb.Budget(macs=1e6))
