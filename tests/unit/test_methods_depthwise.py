"""The method depthwise_separable: filters within each input channel, then a mix of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import lowrank_bench as lrb
from lowrank_bench.compression.chain import KernelShape
from lowrank_bench.compression.method import LayerMethod
from lowrank_bench.record import Status
from lowrank_bench.running.worker import STATUS_OF


def depthwise(**options: Any) -> LayerMethod:
    method = lrb.methods()["depthwise_separable"](**options)
    assert isinstance(method, LayerMethod)
    return method


def test_weights_and_macs_are_those_of_mobilenets() -> None:
    shape = KernelShape(64, 32, 3, 3)
    assert depthwise().structure(shape, (1,)).params == 32 * 9 + 32 * 64
    conv = nn.Conv2d(32, 64, 3, stride=2, padding=1, bias=False)
    factored = lrb.factorize(conv, "depthwise_separable", 1)
    assert lrb.count(factored, (32, 14, 14)).macs == 32 * 7 * 7 * 9 + 32 * 64 * 7 * 7  # eq. 5 of Howard et al. 2017


def test_each_input_channel_is_cut_at_its_own_optimum() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, (3, 5), dtype=torch.float64)
    kernel = conv.weight.detach()
    for rank in (1, 3):
        tails = sum(torch.linalg.svdvals(kernel[:, s].flatten(1))[rank:].square().sum() for s in range(4))
        left = (lrb.compose(lrb.factorize(conv, "depthwise_separable", rank)) - kernel).detach().square().sum()
        torch.testing.assert_close(left, tails)
        (told,) = depthwise().errors(kernel, [(rank,)]) or ()
        assert told == pytest.approx(float(tails / kernel.square().sum()))


def test_a_kernel_that_is_depthwise_separable_comes_back() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, 3, dtype=torch.float64)
    with torch.no_grad():
        conv.weight.copy_(torch.einsum("ts,shw->tshw", torch.randn(6, 4), torch.randn(4, 3, 3)))
    torch.testing.assert_close(lrb.compose(lrb.factorize(conv, "depthwise_separable", 1)), conv.weight.detach())


def test_from_scratch_only_the_architecture_is_taken() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8 * 16, 3)).eval()
    batches = [(torch.randn(16, 1, 8, 8), torch.randint(3, (16,)))]
    options = {"start": "scratch", "scratch_recipe": "short"}
    short = {"ranks": {"2": 1}, "options": options, "input_size": (1, 8, 8), "data": batches}
    made = lrb.compress(model, "depthwise_separable", **short)
    assert made.plan.layers["2"].error is None and made.plan.layers["2"].notes["scratch_epochs"] == 1
    assert made.cost.params < made.dense_cost.params
    with pytest.raises(lrb.UnsupportedLayer, match="whole network") as refused:
        lrb.factorize(nn.Conv2d(2, 2, 3), "depthwise_separable", 1, start="scratch")
    assert next(status for kinds, status in STATUS_OF if isinstance(refused.value, kinds)) is Status.SKIPPED
