"""The method tt_conv: trains of the plain kernel, and of one with split channels, run core by core or rebuilt."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lowrank_bench as lrb
from lowrank_bench.compression.chain import KernelShape, Permute
from lowrank_bench.compression.compose import chain_error, compose_chain
from lowrank_bench.compression.method import LayerMethod


def tt(**options: Any) -> LayerMethod:
    method = lrb.methods()["tt_conv"](**options)
    assert isinstance(method, LayerMethod)
    return method


def kernel(T: int = 8, S: int = 12, dh: int = 3, dw: int = 5) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(T, S, dh, dw, dtype=torch.float64)


@pytest.mark.parametrize("rank", [8, 4])
def test_core_by_core_runs_the_macs_of_the_formula(rank: int) -> None:
    """Published: 111,616 and 31,232 a pixel for 128 -> 128 3x3 in modes (4, 8, 4), of 147,456 dense."""
    shape, ranks = KernelShape(128, 128, 3, 3), (rank,) * 3
    chain = tt(mode="core_by_core").structure(shape, ranks)
    macs = sum(math.prod(stage.shape) for stage in chain.stages if not isinstance(stage, Permute))
    assert macs == {8: 111_616, 4: 31_232}[rank]
    c = (4, 8, 4)
    assert chain.params == 9 * rank + sum(n * n for n in c[:2]) * rank**2 + c[2] ** 2 * rank


def test_the_naive_train_is_four_convolutions() -> None:
    chain = tt().structure(KernelShape(8, 12, 3, 5), (4, 6, 5))
    assert [stage.shape for stage in chain.stages if not isinstance(stage, Permute)] == [
        (4, 12, 1, 1),
        (6, 4, 3, 1),
        (5, 6, 1, 5),
        (8, 5, 1, 1),
    ]


@pytest.mark.parametrize("modes", [2, 3])
@pytest.mark.parametrize("taps", [(3, 5), (1, 1)])
@pytest.mark.parametrize("groups", [1, 2])
def test_core_by_core_and_rebuilt_kernels_are_the_same(modes: int, taps: tuple[int, int], groups: int) -> None:
    weight = kernel(8 * groups, 12, *taps)
    rebuild, cores = (tt(mode=mode, modes=modes) for mode in ("rebuild", "core_by_core"))
    ranks = rebuild.spread(KernelShape(8, 12, *taps), 3)
    a, b = (compose_chain(method.factorize_layer(weight, groups, ranks), groups) for method in (rebuild, cores))
    torch.testing.assert_close(a, b)
    assert not torch.allclose(a, weight)


@pytest.mark.parametrize("mode", ["naive", "rebuild", "core_by_core"])
def test_in_every_mode_a_network_of_convolutions_alone_has_all_its_parameters_in_that_scope(mode: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3))
    made = lrb.compress(model, "tt_conv", ranks={"1": 4}, options={"mode": mode}, input_size=(3, 8, 8)).model
    assert lrb.count(made, (3, 8, 8), scope="convs").params == lrb.count(made, (3, 8, 8)).params


@pytest.mark.parametrize("mode", ["naive", "rebuild", "core_by_core"])
@pytest.mark.parametrize("taps", [(3, 5), (1, 5), (3, 1), (1, 1)])
def test_every_mode_is_exact_at_full_rank_and_within_the_tails_below(mode: str, taps: tuple[int, int]) -> None:
    method, weight = tt(mode=mode), kernel(8, 12, *taps)
    candidates = list(method.candidates(KernelShape(*weight.shape)))
    told = method.errors(weight, candidates)
    assert told is not None
    energies = [torch.linalg.svdvals(matrix).square() / weight.square().sum() for matrix in method.unfoldings(weight)]
    for ranks, expected in zip(candidates, told, strict=True):
        tails = [float(energy[rank:].sum()) for energy, rank in zip(energies, ranks, strict=True)]
        assert chain_error(weight, method.factorize(weight, ranks), 1) ** 2 <= sum(tails) + 1e-12
        assert max(tails) - 1e-12 <= expected <= sum(tails) + 1e-12
    conv = nn.Conv2d(12, 8, taps, 2, (1, 2), dtype=torch.float64)
    x = torch.randn(2, 12, 9, 8, dtype=torch.float64)
    torch.testing.assert_close(lrb.factorize(conv, "tt_conv", "full", mode=mode)(x), conv(x))


def test_the_naive_train_of_a_1x1_kernel_is_its_svd() -> None:
    weight = kernel(dh=1, dw=1)
    chain = tt().factorize(weight, (3, 3, 3))
    tail = torch.linalg.svdvals(weight[:, :, 0, 0])[3:].square().sum() / weight.square().sum()
    assert len(chain.stages) == 2
    assert chain_error(weight, chain, 1) ** 2 == pytest.approx(float(tail))


def test_one_integer_is_every_rank_that_can_be_so_large() -> None:
    assert tt().spread(KernelShape(8, 12, 3, 5), 10) == (10, 10, 8)


def test_linear_layers_are_tt_matrices_where_the_kernel_is_rebuilt() -> None:
    linear = nn.Linear(64, 27, dtype=torch.float64)
    x = torch.randn(2, 64, dtype=torch.float64)
    torch.testing.assert_close(lrb.factorize(linear, "tt_conv", "full", mode="rebuild")(x), linear(x))
    small = lrb.factorize(linear, "tt_conv", 2, mode="rebuild")
    assert sum(p.numel() for p in small.parameters()) == (4 * 3) * (2 + 4 + 2) + 27
    for mode in ("naive", "core_by_core"):
        with pytest.raises(lrb.UnsupportedLayer, match="linear"):
            lrb.factorize(linear, "tt_conv", "full", mode=mode)


@pytest.mark.parametrize("mode", ["naive", "rebuild"])
def test_ranks_that_no_svd_can_fill_are_refused_by_name_and_never_proposed(mode: str) -> None:
    method, shape = tt(mode=mode, align=4), KernelShape(256, 256, 3, 3)
    for ranks in method.aligned_candidates(shape):
        method.check_ranks(shape, ranks)
    ranks = (1, *method.candidates(shape)[-1][1:])
    with pytest.raises(lrb.InvalidRanks, match=r"layer: tt_conv ranks .* cannot be filled together: \(1, "):
        lrb.factorize(nn.Conv2d(256, 256, 3), "tt_conv", ranks, mode=mode)


def test_modes_that_split_nothing_are_refused() -> None:
    with pytest.raises(lrb.InvalidOptions, match="modes would do nothing with mode='naive'"):
        tt(modes=4)
