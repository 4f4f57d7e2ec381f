"""The method jaderberg: filters across channels (scheme 2) and a basis for each channel (scheme 1)."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lowrank_bench as lrb
from lowrank_bench.compression.chain import Factor, KernelShape
from lowrank_bench.compression.compose import chain_error
from lowrank_bench.compression.method import LayerMethod


def jaderberg(**options: Any) -> LayerMethod:
    method = lrb.methods()["jaderberg"](**options)
    assert isinstance(method, LayerMethod)
    return method


def kernel(T: int = 8, S: int = 4, dh: int = 3, dw: int = 5) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(T, S, dh, dw, dtype=torch.float64)


def test_weights_are_those_of_the_formulas() -> None:
    shape = KernelShape(128, 48, 9, 7)
    assert jaderberg(scheme=2).structure(shape, (20,)).params == 20 * (48 * 9 + 128 * 7)
    assert jaderberg(scheme=1).structure(shape, (5,)).params == 48 * 5 * (9 + 7 + 128)


@pytest.mark.parametrize("order", ["vh", "hv"])
@pytest.mark.parametrize("groups", [1, 2])
def test_scheme_1_is_exact_with_one_filter_per_tap(order: str, groups: int) -> None:
    conv = nn.Conv2d(4 * groups, 6 * groups, (3, 5), (2, 1), (1, 2), groups=groups, dtype=torch.float64)
    x = torch.randn(2, 4 * groups, 9, 8, dtype=torch.float64)
    factored = lrb.factorize(conv, "jaderberg", "full", scheme=1, order=order)
    torch.testing.assert_close(factored(x), conv(x))


def test_scheme_1_runs_depthwise_filters_and_mixes_them() -> None:
    method, weight = jaderberg(scheme=1), kernel()
    chain = method.factorize(weight, (2,))
    assert [(stage.shape, stage.axes, stage.groups) for stage in chain.stages if isinstance(stage, Factor)] == [
        ((8, 1, 3, 1), "h", 4),
        ((8, 1, 1, 5), "w", 8),
        ((8, 8, 1, 1), "", 1),
    ]
    assert str(chain) == str(method.structure(KernelShape(*weight.shape), (2,)))


def test_scheme_1_recovers_separable_filters() -> None:
    torch.manual_seed(0)
    basis = torch.einsum("smi,smj->smij", torch.randn(4, 2, 3).double(), torch.randn(4, 2, 5).double())
    weight = torch.einsum("tsm,smij->tsij", torch.randn(8, 4, 2).double(), basis)
    assert chain_error(weight, jaderberg(scheme=1).factorize(weight, (2,)), 1) < 0.02


def test_scheme_1_expects_no_more_error_than_it_makes() -> None:
    method, weight = jaderberg(scheme=1), kernel()
    candidates = list(method.candidates(KernelShape(*weight.shape)))
    expected = method.errors(weight, candidates)
    assert expected is not None and expected[-1] == pytest.approx(0, abs=1e-12)
    for ranks, bound in zip(candidates, expected, strict=True):
        assert bound <= chain_error(weight, method.factorize(weight, ranks), 1) ** 2 + 1e-12


def test_the_structure_at_given_ranks_is_worked_out_once() -> None:
    method, shape = lrb.methods()["jaderberg"](), KernelShape(8, 6, 3, 3)
    assert isinstance(method, LayerMethod)
    assert method.structure_layer(shape, 2, (4,)) is method.structure_layer(shape, 2, (4,))
    assert method.structure_layer(shape, 1, (4,)) is not method.structure_layer(shape, 2, (4,))
