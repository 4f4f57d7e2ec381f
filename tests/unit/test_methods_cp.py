"""The method cp_nls: its chains, its options, what it promises to a budget."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lowrank_bench as lrb
from lowrank_bench.compression.chain import Factor, KernelShape
from lowrank_bench.compression.compose import chain_error, compose_chain
from lowrank_bench.compression.method import LayerMethod
from lowrank_bench.decomposition import cp as decomposition
from lowrank_bench.decomposition.cp_result import CPResult, cp_tensor


def cp(**options: Any) -> LayerMethod:
    method = lrb.methods()["cp_nls"](**options)
    assert isinstance(method, LayerMethod)
    return method


def kernel(T: int = 8, S: int = 6, dh: int = 3, dw: int = 5) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(T, S, dh, dw, dtype=torch.float64)


@pytest.mark.parametrize(("spatial", "taps"), [("separable", 9 + 9), ("joint", 9 * 9)])
def test_charnet_conv2_at_rank_64_has_the_weights_of_the_formula(spatial: str, taps: int) -> None:
    chain = cp(spatial=spatial).structure(KernelShape(128, 48, 9, 9), (64,))
    assert chain.params == 64 * (48 + taps + 128)


def test_lebedevs_chain_is_1x1_vertical_horizontal_1x1() -> None:
    stages = cp().factorize(kernel(), (4,)).stages
    assert [(stage.shape, stage.axes, stage.groups) for stage in stages if isinstance(stage, Factor)] == [
        ((4, 6, 1, 1), "", 1),
        ((4, 1, 3, 1), "h", 4),
        ((4, 1, 1, 5), "w", 4),
        ((8, 4, 1, 1), "", 1),
    ]


@pytest.mark.parametrize(
    "options", [{"spatial": "joint"}, {"algorithm": "als"}, {"algorithm": "greedy"}, {"epc": True}]
)
@pytest.mark.parametrize("taps", [(3, 5), (1, 7), (1, 1)])
def test_every_option_is_exact_at_full_rank(options: dict[str, Any], taps: tuple[int, int]) -> None:
    conv = nn.Conv2d(3, 4, taps, stride=(2, 1), padding=(1, 2), dtype=torch.float64)
    x = torch.randn(1, 3, 9, 11, dtype=torch.float64)
    torch.testing.assert_close(lrb.factorize(conv, "cp_nls", "full", **options)(x), conv(x))


def test_a_1x1_kernel_is_cut_by_svd() -> None:
    weight = kernel(dh=1, dw=1)
    tail = torch.linalg.svdvals(weight[:, :, 0, 0])[3:].square().sum() / weight.square().sum()
    chain = cp().factorize(weight, (3,))
    assert len(chain.stages) == 2
    assert chain_error(weight, chain, 1) ** 2 == pytest.approx(float(tail))
    assert cp().errors(weight, [(3,)]) == pytest.approx([float(tail)])


def test_all_factors_at_once_fit_better_than_term_after_term() -> None:
    weight = kernel()
    errors = {name: chain_error(weight, cp(algorithm=name).factorize(weight, (24,)), 1) for name in ("nls", "greedy")}
    assert errors["nls"] < 0.8 * errors["greedy"]


def test_correction_tames_the_terms_of_a_border_rank_kernel() -> None:
    x, y = torch.eye(2, dtype=torch.float64)
    border = torch.stack([torch.einsum("a,b,c->abc", *vectors) for vectors in ((x, x, y), (x, y, x), (y, x, x))])
    weight = border.sum(0).unsqueeze(3)  # rank 3, yet rank 2 comes as close as one likes (de Silva & Lim 2008)
    plain, corrected = (cp(epc=epc).factorize(weight, (2,)) for epc in (False, True))
    assert plain.notes is not None and corrected.notes is not None
    assert plain.notes["term_energy"] > 10 and plain.notes["cosine"] > 0.9
    assert corrected.notes["term_energy"] < plain.notes["term_energy"]
    assert chain_error(weight, corrected, 1) <= 1.01 * chain_error(weight, plain, 1) + 1e-9


def test_expected_errors_fall_from_below_one_to_zero() -> None:
    method, weight = cp(), kernel(16, 16, 3, 3)
    candidates = list(method.candidates(KernelShape(16, 16, 3, 3)))
    errors = method.errors(weight, candidates)
    assert errors is not None
    assert all(more >= less for more, less in pairwise(errors))
    assert errors[0] < 1 and errors[-1] == 0
    found = chain_error(weight, method.factorize(weight, (16,)), 1) ** 2
    assert errors[candidates.index((16,))] == pytest.approx(found, abs=0.05)


def test_the_same_seed_gives_the_same_factors() -> None:
    first, second = (cp().factorize(kernel(), (5,)) for _ in range(2))
    assert all(torch.equal(a.tensors[0], b.tensors[0]) for a, b in zip(first.stages, second.stages, strict=True))


@pytest.mark.parametrize(("groups", "options", "share"), [(1, {}, 1), (4, {}, 4), (4, {"embed_groups": True}, 1)])
def test_seconds_are_those_of_a_layer_and_shared_by_its_groups(
    groups: int, options: dict[str, Any], share: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    caps: list[float] = []

    def solver(*args: Any, max_seconds: float, **rest: Any) -> CPResult:
        caps.append(max_seconds)
        return solve(*args, **rest)

    solve = decomposition.cp_nls
    monkeypatch.setattr(decomposition, "cp_nls", solver)
    lrb.factorize(nn.Conv2d(8, 8, 3, groups=groups), "cp_nls", 2, max_seconds=60, **options)
    assert caps == [60 / share] * share


@pytest.mark.parametrize("options", [{"algorithm": "greedy", "max_iter": 9}, {"max_seconds": 0}, {"spatial": "both"}])
def test_options_that_mean_nothing_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(lrb.InvalidOptions, match="cp_nls"):
        cp(**options)


def test_the_limits_of_a_correction_go_with_the_greedy_algorithm_too() -> None:
    assert cp(algorithm="greedy", epc=True, max_iter=9).options.max_iter == 9


@pytest.mark.parametrize("options", [{}, {"epc": True}, {"algorithm": "als"}], ids=str)
def test_however_little_time_there_is_the_factors_are_better_than_none(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(64, 64, 3, bias=False)
    factored = lrb.factorize(layer, "cp_nls", 32, max_seconds=1e-6, **options)
    assert (lrb.compose(factored) - layer.weight).norm() <= layer.weight.norm()


def test_ranks_by_rules_that_need_an_unfolding_are_refused() -> None:
    with pytest.raises(lrb.InvalidRanks, match="no unfolding"):
        lrb.factorize(nn.Conv2d(3, 4, 3), "cp_nls", "evbmf")


@pytest.mark.parametrize("spatial", ["separable", "joint"])
@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"stride": 2, "padding": 1},
        {"stride": (1, 3), "padding": (2, 0)},
        {"dilation": (2, 1), "padding": (0, 3)},
        {"padding": "same", "padding_mode": "circular"},
    ],
    ids=str,
)
def test_planted_factors_run_as_the_dense_convolution(attributes: dict[str, Any], spatial: str) -> None:
    conv = nn.Conv2d(6, 8, (3, 5), dtype=torch.float64, **attributes).requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    factors = [torch.randn(size, 4, dtype=torch.float64, generator=generator) for size in (8, 6, 3, 5)]
    conv.weight.data = cp_tensor(factors)
    x = torch.randn(2, 6, 13, 14, dtype=torch.float64)
    factored = lrb.factorize(conv, "cp_nls", 4, spatial=spatial, max_iter=100)
    torch.testing.assert_close(factored(x), conv(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("algorithm", ["nls", "als", "greedy"])
@pytest.mark.parametrize(
    "weight",
    [
        kernel(T=8, S=1),
        kernel(T=1, S=8),
        kernel(T=1, S=1),
        kernel() * torch.tensor([1.0, 0, 1, 1, 0, 1, 1, 1])[:, None, None, None],
        kernel()[:1].repeat(8, 1, 1, 1),
        1e-30 * kernel(),
    ],
    ids=["one input channel", "one output channel", "one channel", "dead filters", "equal filters", "tiny"],
)
def test_odd_kernels_are_fitted_and_no_filter_vanishes(weight: Tensor, algorithm: str) -> None:
    full = cp().candidates(KernelShape(*weight.shape))[-1][0]
    for rank in {1, min(7, full), full}:
        fitted = compose_chain(cp(algorithm=algorithm).factorize(weight, (rank,)))
        assert float((fitted - weight).norm() / weight.norm()) < 1
        alive = weight.flatten(1).any(dim=1)
        assert fitted.isfinite().all() and fitted[alive].flatten(1).any(dim=1).all()
