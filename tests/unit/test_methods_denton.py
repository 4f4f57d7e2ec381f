"""The method denton: blocks of clusters, and colours of first layers, as plain and grouped convolutions."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lowrank_bench as lrb
from lowrank_bench.compression.chain import KernelShape
from lowrank_bench.compression.compose import chain_error
from lowrank_bench.compression.method import LayerMethod

VARIANTS = [
    {"variant": "svd", "in_clusters": 3, "out_clusters": 2},
    {"variant": "outer", "in_clusters": 3, "out_clusters": 4},
    {"variant": "outer", "in_clusters": 1, "out_clusters": 4},
    {"variant": "svd", "in_clusters": 3, "out_clusters": 1},
    {"variant": "monochromatic", "out_clusters": 4},
]


def denton(**options: Any) -> LayerMethod:
    method = lrb.methods()["denton"](**options)
    assert isinstance(method, LayerMethod)
    return method


def kernel(T: int = 8, S: int = 6, dh: int = 3, dw: int = 3) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(T, S, dh, dw, dtype=torch.float64)


def test_weights_are_those_of_the_formulas() -> None:
    shape, G, H, taps = KernelShape(256, 96, 5, 5), 8, 2, 25
    outer = denton(variant="outer", in_clusters=G, out_clusters=H).structure(shape, (8,))
    assert outer.params == G * H * 8 * (96 // G + taps + 256 // H)
    svd = denton(variant="svd", in_clusters=G, out_clusters=H).structure(shape, (24, 10))
    assert svd.params == G * H * (96 // G * 10 + 10 * 24 * taps + 24 * 256 // H)
    first_layer = denton(variant="monochromatic", out_clusters=12).structure(KernelShape(96, 3, 7, 7), (1,))
    assert first_layer.params == 3 * 12 + 49 * 96


@pytest.mark.parametrize("options", VARIANTS)
@pytest.mark.parametrize("groups", [1, 2])
def test_every_variant_is_exact_at_full_rank(options: dict[str, Any], groups: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(6 * groups, 8 * groups, (3, 5), (2, 1), (1, 2), groups=groups, dtype=torch.float64)
    x = torch.randn(2, 6 * groups, 9, 8, dtype=torch.float64)
    torch.testing.assert_close(lrb.factorize(conv, "denton", "full", **options)(x), conv(x))


@pytest.mark.parametrize("options", VARIANTS)
def test_structure_and_expected_errors_are_those_of_the_factors(options: dict[str, Any]) -> None:
    method, weight = denton(**options), kernel()
    candidates = list(method.candidates(KernelShape(*weight.shape)))
    expected = method.errors(weight, candidates)
    assert expected is not None and expected[-1] == pytest.approx(0, abs=1e-12)
    for ranks, error in zip(candidates, expected, strict=True):
        chain = method.factorize(weight, ranks)
        assert str(chain) == str(method.structure(KernelShape(*weight.shape), ranks))
        found = chain_error(weight, chain, 1) ** 2
        if options["variant"] == "svd":
            assert found <= (1 + 1e-9) * error + 1e-9
        else:
            assert found == pytest.approx(error, abs=1e-9)


def test_planted_blocks_are_found_behind_shuffled_channels() -> None:
    torch.manual_seed(0)
    strength = torch.tensor([1.0, 10.0], dtype=torch.float64).repeat_interleave(3)
    rank_one = torch.einsum("t,s,ij->tsij", torch.randn(8).double(), strength, kernel(1, 1)[0, 0])
    weight = (rank_one + 1e-9 * kernel())[torch.randperm(8)][:, torch.randperm(6)]
    chain = denton(variant="outer").factorize(weight, (1,))
    assert chain_error(weight, chain, 1) < 1e-6


def test_one_colour_per_filter_suffices_for_filters_of_one_colour_each() -> None:
    colours = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float64).repeat(2, 1)
    weight = colours[:, :, None, None] * kernel(6, 1, 5, 5)
    chain = denton(variant="monochromatic", out_clusters=3).factorize(weight, (1,))
    assert chain_error(weight, chain, 1) < 1e-9


@pytest.mark.parametrize("shape", [(8, 3, 3, 3), (7, 1, 3, 3), (1, 5, 3, 3), (5, 7, 1, 1)])
def test_channels_that_the_clusters_do_not_divide_get_fewer(shape: tuple[int, int, int, int]) -> None:
    weight, method = kernel(*shape), denton(in_clusters=4, out_clusters=4)
    full = list(method.candidates(KernelShape(*shape)))[-1]
    assert chain_error(weight, method.factorize(weight, full), 1) < 1e-9


def test_aligned_ranks_of_a_block_can_be_filled_together() -> None:
    model = nn.Sequential(nn.Conv2d(32, 256, 3))
    compressed = lrb.compress(model, "denton", lrb.Budget(macs=1.88), options={"align": 8}, input_size=(32, 9, 9))
    assert compressed.dense_cost.macs / compressed.cost.macs == pytest.approx(1.88, rel=0.05)
    method = denton(align=8)
    assert all(k2 <= 9 * k1 and k1 <= 9 * k2 for k2, k1 in method.aligned_candidates(KernelShape(256, 32, 3, 3)))
    with pytest.raises(
        lrb.InvalidRanks, match=r"layer: denton ranks \(80, 8\) .* cannot be filled together: \(72, 8\) can"
    ):
        lrb.factorize(model[0], "denton", (80, 8))


def test_clusters_that_a_variant_does_not_have_are_refused() -> None:
    with pytest.raises(lrb.InvalidOptions, match="in_clusters would do nothing"):
        denton(variant="monochromatic", in_clusters=2)


def first_heavy() -> nn.Sequential:
    """A first convolution that takes most of the MACs, and two behind it."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 48, 7), nn.Conv2d(48, 16, 3, 4), nn.Conv2d(16, 8, 3), nn.Flatten(), nn.Linear(8, 4)
    )


@pytest.mark.parametrize("allocation", ["price", "uniform"])
def test_the_monochromatic_variant_cuts_the_layer_that_reads_the_image_and_no_other(allocation: str) -> None:
    options = {"variant": "monochromatic", "out_clusters": 4, "allocation": allocation}
    compressed = lrb.compress(first_heavy(), "denton", lrb.Budget(macs=1.4), options=options, input_size=(3, 18, 18))
    assert set(compressed.plan.layers) == {"0"}
    assert compressed.dense_cost.macs / compressed.cost.macs == pytest.approx(1.4, rel=0.05)
    assert set(compressed.skipped) == {"1", "2", "4"}
    assert all("for the convolution that reads the image" in reason for reason in compressed.skipped.values())


def test_what_the_monochromatic_variant_is_not_for_is_refused_by_name() -> None:
    how = {"options": {"variant": "monochromatic"}, "input_size": (3, 18, 18)}
    with pytest.raises(lrb.UnsupportedLayer, match="layer '1': denton with these options is for the convolution that"):
        lrb.compress(first_heavy(), "denton", ranks={"1": 1}, **how)
    with pytest.raises(lrb.InvalidBudget, match="out of reach: the largest ratio"):
        lrb.compress(first_heavy(), "denton", lrb.Budget(macs=100), **how)
    assert set(lrb.compress(first_heavy(), "denton", ranks={"0": 1}, **how).plan.layers) == {"0"}


def test_the_largest_aligned_rank_of_a_sum_is_not_told_to_be_exact() -> None:
    method, weight = denton(variant="outer", align=16), kernel(12, 12)
    candidates = method.aligned_candidates(KernelShape(*weight.shape))
    told = method.errors(weight, candidates)
    unaligned = denton(variant="outer")
    assert told is not None and candidates[-1] == (32,)  # of 36
    assert told == pytest.approx(unaligned.errors(weight, [*candidates, (36,)])[:-1]) and told[-1] > 0
    assert method.versions != unaligned.versions
