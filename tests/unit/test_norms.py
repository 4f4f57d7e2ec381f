"""Errors count as they leave the batch norm behind a layer."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import lowrank_bench as lrb
from lowrank_bench.compression.means import takers_of_means
from lowrank_bench.compression.norms import LEAST_SCALE, following_norms, output_scale

SIZE = (6, 10, 10)


class Block(nn.Module):
    """Two convolutions with a batch norm each, a shortcut, and one with its norm behind a ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(6, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        self.conv2, self.norm2 = nn.Conv2d(12, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv3, self.norm3 = nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))
        y = self.norm3(self.conv3(x + y).relu())
        out: torch.Tensor = self.fc(y.mean((2, 3)))
        return out


def block() -> Block:
    torch.manual_seed(0)
    model = Block().double().eval()
    for norm in (model.norm1, model.norm2, model.norm3):
        norm.weight.data = torch.rand_like(norm.weight) * torch.tensor([1.0, 0.01, -3.0, 0.1] * 3)[: len(norm.weight)]
        norm.running_var = torch.rand_like(norm.weight) * 4 + 0.1
    return model


def test_only_a_norm_that_takes_the_very_output_counts() -> None:
    names = ["conv1", "conv2", "conv3", "fc"]
    assert following_norms(block(), SIZE, names) == {"conv1": "norm1", "conv2": "norm2", "fc": None}


class Twice(nn.Module):
    """One convolution with a norm for each of its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm1, self.norm2 = nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6), nn.BatchNorm2d(6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.norm2(self.conv(self.norm1(self.conv(x))))
        return out


def test_no_norm_stands_for_another_behind_the_same_layer() -> None:
    assert following_norms(Twice(), SIZE, ["conv"]) == {}


@pytest.mark.parametrize("inplace", [False, True])
def test_what_is_changed_in_place_before_the_norm_is_not_the_output_any_more(inplace: bool) -> None:
    model = nn.Sequential(nn.Conv2d(6, 8, 3), nn.ReLU(inplace=inplace), nn.BatchNorm2d(8))
    assert following_norms(model, SIZE, ["0"]) == {}


def test_a_cut_kernel_is_the_best_one_as_the_batch_norm_shows_it() -> None:
    model = block()
    scale = model.norm1.weight.abs() / (model.norm1.running_var + model.norm1.eps).sqrt()

    def seen(kernel: torch.Tensor) -> float:
        return float((scale[:, None] * (kernel - model.conv1.weight).flatten(1)).detach().square().sum())

    tail = torch.linalg.svdvals(scale[:, None] * model.conv1.weight.flatten(1))[3:].square().sum()
    kernels = {
        choice: lrb.compose(
            lrb.compress(
                model, "channel_svd", ranks={"conv1": 3}, input_size=SIZE, options={"batch_norm": choice}
            ).model.get_submodule("conv1")
        )
        for choice in ("folded", "ignored")
    }
    least = float(tail.detach())
    assert seen(kernels["folded"]) == pytest.approx(least, rel=1e-4)  # but for channels below a thousandth
    assert seen(kernels["folded"]) < 0.9 * seen(kernels["ignored"])


@pytest.mark.parametrize("method", ["channel_svd", "tucker", "jaderberg", "cp_nls", "denton", "tt_conv"])
def test_full_rank_is_exact_behind_a_silenced_channel(method: str) -> None:
    model = block()
    model.norm1.weight.data[2] = 0
    images = torch.randn(2, *SIZE, dtype=torch.float64)
    made = lrb.compress(model, method, ranks={"conv1": "full", "conv2": "full"}, input_size=SIZE)
    torch.testing.assert_close(made.model(images), model(images), atol=1e-9, rtol=1e-9)


def test_the_scale_is_a_share_of_the_largest_and_never_nothing() -> None:
    model = block()
    model.norm1.weight.data[0] = 0
    scale = output_scale(model, "norm1")
    assert scale is not None and float(scale.max()) == 1 and float(scale[0]) == LEAST_SCALE
    model.norm1.weight.data[:] = 0
    assert output_scale(model, "norm1") is None and output_scale(model, None) is None


def test_a_budget_goes_to_the_layer_that_its_batch_norm_amplifies_unevenly() -> None:
    torch.manual_seed(0)
    layers = [
        layer
        for _ in range(3)
        for layer in (nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    ]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * 64, 3)).eval()
    norm = model[7]
    assert isinstance(norm, nn.BatchNorm2d)
    norm.weight.data[2:] = 1e-6  # the third layer has two channels that count: rank 2 does for it
    options = {"budget": lrb.Budget(macs=3, scope="convs"), "input_size": (16, 8, 8)}
    folded = lrb.compress(model, "channel_svd", **options).plan.layers
    ignored = lrb.compress(model, "channel_svd", options={"batch_norm": "ignored"}, **options).plan.layers
    assert folded["6"].ranks[0] < ignored["6"].ranks[0] and folded["3"].ranks[0] > ignored["3"].ranks[0]


def test_the_dense_model_is_left_alone() -> None:
    model = block().train()
    before = copy.deepcopy(model.state_dict())
    lrb.compress(model, "channel_svd", ranks={"conv1": 3}, input_size=SIZE)
    assert model.training and all(value.equal(before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("tokens", [8, 12])
@pytest.mark.parametrize("options", [{}, {"metric": "covariance", "centred": True}])
def test_a_norm_over_the_tokens_of_a_linear_layer_says_nothing_of_its_outputs(
    tokens: int, options: dict[str, object]
) -> None:
    torch.manual_seed(0)
    patches = nn.Sequential(nn.Flatten(2), nn.Linear(16, 12, bias=False), nn.BatchNorm1d(tokens))
    model = nn.Sequential(nn.Conv2d(3, tokens, 1), patches, nn.Flatten(), nn.Linear(12 * tokens, 4)).eval()
    norm = model.get_submodule("1.2")
    assert isinstance(norm, nn.BatchNorm1d)
    norm.running_var = torch.rand(tokens) + 0.1
    assert following_norms(model, (3, 4, 4), ["1.1"]) == {"1.1": "1.2"}
    assert takers_of_means(model, (3, 4, 4), ["1.1"]) == {}
    data = [(torch.randn(8, 3, 4, 4), torch.zeros(8))] if options else None

    def made(**more: object) -> nn.Module:
        job = {"options": options | more, "input_size": (3, 4, 4), "data": data}
        return lrb.compress(model, "channel_svd", ranks={"1.1": 4}, **job).model  # type: ignore[arg-type]

    weighed, plain = made(), made(batch_norm="ignored")
    for ours, theirs in zip(weighed.state_dict().values(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs)
