"""Denton's clusters, colours and blocks."""

import itertools

import pytest
import torch
from torch.linalg import svdvals, vector_norm
from torch.nn.functional import conv2d

from lowrank_bench.decomposition.blocks import double_svd, outer_products, split_blocks
from lowrank_bench.decomposition.clustering import balanced_kmeans, bicluster, monochromatic
from lowrank_bench.decomposition.matrix import relative_error, truncated_svd
from lowrank_bench.errors import InvalidRanks, InvalidWeights


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def within(rows, labels):
    """The within-cluster sum of squares."""
    return sum((rows[labels == k] - rows[labels == k].mean(0)).square().sum() for k in labels.unique())


def responses(kernel, covariance):
    """||W Sigma^(1/2)||_F^2."""
    return torch.einsum("ta,ab,tb->", kernel.flatten(1), covariance, kernel.flatten(1))


def outer_blocks(result):
    return torch.einsum("...tk,...ks,...kij->...tsij", result.output, result.input, result.taps)


def double_blocks(result):
    return torch.einsum("...tp,...pqij,...qs->...tsij", result.output, result.core, result.input)


# Clusters


@pytest.mark.parametrize("clusters", [1, 2, 3, 4, 6, 12])
def test_clusters_have_equal_sizes(clusters):
    assert balanced_kmeans(normal(12, 5), clusters).bincount().tolist() == clusters * [12 // clusters]


def test_planted_clusters_are_found():
    planted = torch.arange(24) % 4
    rows = 10 * normal(4, 30)[planted] + normal(24, 30, seed=1)
    labels = balanced_kmeans(rows, 4)
    assert len({(int(a), int(b)) for a, b in zip(planted, labels, strict=True)}) == 4


def test_few_points_are_split_as_well_as_by_trying_everything():
    rows = normal(6, 2)
    best = min(
        within(rows, torch.tensor([i in half for i in range(6)])) for half in itertools.combinations(range(6), 3)
    )
    torch.testing.assert_close(within(rows, balanced_kmeans(rows, 2)), best)


def test_no_exchange_of_two_rows_between_assigned_centres_helps():
    rows = normal(20, 6)
    labels = balanced_kmeans(rows, 4)
    centres = torch.stack([rows[labels == k].mean(0) for k in range(4)])
    cost = torch.cdist(rows, centres).square()
    for i, j in itertools.combinations(range(20), 2):
        swapped = cost[i, labels[j]] + cost[j, labels[i]]
        assert swapped >= cost[i, labels[i]] + cost[j, labels[j]] - 1e-9


def test_equal_rows_are_shared_out_and_seeds_repeat():
    assert balanced_kmeans(torch.zeros(8, 3), 4).bincount().tolist() == [2, 2, 2, 2]
    assert torch.equal(balanced_kmeans(normal(20, 6), 4, seed=3), balanced_kmeans(normal(20, 6), 4, seed=3))


def test_biclustering_lowers_the_error_of_blocks_that_were_shuffled():
    mixing = torch.block_diag(1 + 0.3 * normal(4, 4), 1 + 0.3 * normal(4, 4, seed=1)) + 0.01 * normal(8, 8, seed=2)
    kernel = torch.einsum("ts,ij->tsij", mixing, normal(3, 3, seed=3))
    shuffled = kernel[torch.randperm(8, generator=torch.Generator().manual_seed(0))][:, [0, 4, 1, 5, 2, 6, 3, 7]]
    order = bicluster(shuffled, 2, 2)
    assert sorted(order.inputs.tolist()) == sorted(order.outputs.tolist()) == list(range(8))
    norms = split_blocks(shuffled[order.outputs][:, order.inputs], 2, 2).flatten(2).norm(dim=2)
    assert sorted((norms < 0.1 * norms.max()).flatten().tolist()) == [False, False, True, True]


def test_cluster_numbers_that_do_not_divide_are_refused_with_those_that_do():
    for clusters in (0, 5, 24):
        with pytest.raises(InvalidRanks, match=rf"12 channels cannot form {clusters} .*: use one of 1, 2, 3, 4, 6, 12"):
            balanced_kmeans(normal(12, 5), clusters)
    with pytest.raises(InvalidWeights):
        bicluster(normal(4, 4, 3, 3) / 0, 2, 2)


# Colours


def colour_kernel(result, kernel):
    """The kernel that colours and filters stand for, filters in the order of the kernel's."""
    size = len(result.filters) // (len(result.colours) // result.filters.shape[1])
    rebuilt = torch.empty_like(kernel)
    for k, output in enumerate(result.outputs):
        own = result.colours.unflatten(0, (-1, result.filters.shape[1]))[k // size, :, :, 0, 0]
        rebuilt[output] = torch.einsum("qs,qij->sij", own, result.filters[k])
    return rebuilt


@pytest.mark.parametrize(("colours", "components"), [(4, 1), (12, 1), (3, 2), (1, 1)])
def test_colours_are_a_1x1_and_a_grouped_convolution(colours, components):
    kernel, x = normal(12, 3, 5, 5), normal(2, 3, 9, 9, seed=1)
    result = monochromatic(kernel, colours, components)
    rebuilt = colour_kernel(result, kernel)
    assert relative_error(rebuilt, kernel) == pytest.approx(result.error)
    y = conv2d(conv2d(x, result.colours), result.filters, groups=colours)
    torch.testing.assert_close(y, conv2d(x, rebuilt)[:, result.outputs])


@pytest.mark.parametrize("colours", [1, 2, 12])
def test_as_many_components_as_inputs_are_lossless(colours):
    assert monochromatic(normal(12, 3, 5, 5), colours, components=3).error < 1e-12


def test_one_colour_a_filter_leaves_the_tails_of_the_filters():
    kernel = normal(12, 3, 5, 5)
    tails = svdvals(kernel.flatten(2))[:, 1:].square().sum().sqrt()
    assert monochromatic(kernel, 12).error == pytest.approx(float(tails / vector_norm(kernel)))


def test_planted_colours_are_found():
    colours = normal(3, 4)[torch.arange(12) % 3]
    kernel = torch.einsum("ts,tij->tsij", colours, normal(12, 5, 5, seed=1))
    assert monochromatic(kernel, 3).error < 1e-12


def test_no_centre_is_a_better_colour():
    """Neither the paper's, the cluster's mean with filters kept or projected on it, nor any single filter's own."""
    kernel = normal(12, 3, 5, 5)
    result = monochromatic(kernel, 3)
    u, s, vh = truncated_svd(kernel.flatten(2), 1)
    for cluster in result.outputs.reshape(3, 4):
        filters = kernel.flatten(2)[cluster]
        centre = u[cluster].mean(0)
        own = colour_kernel(result, kernel)[cluster].flatten(2)
        kept = filters - centre * s[cluster].unsqueeze(1) * vh[cluster]
        for colour in (centre, *u[cluster]):
            projected = filters - colour @ (colour.T @ filters) / colour.square().sum()
            assert vector_norm(filters - own) <= vector_norm(projected) + 1e-12
            if colour is centre:
                assert vector_norm(projected) <= vector_norm(kept)


# Blocks


@pytest.mark.parametrize("clusters", [(1, 1), (2, 3), (8, 12)])
def test_blocks_are_the_kernel_cut_along_both_channel_axes(clusters):
    kernel = normal(12, 8, 3, 3)
    blocks = split_blocks(kernel, *clusters)
    rows = [torch.cat([*row], dim=1) for row in blocks]
    assert torch.equal(torch.cat(rows), kernel)


@pytest.mark.parametrize("shape", [(2, 3, 6, 4, 3, 3), (5, 12, 3, 3), (12, 2, 1, 1), (2, 2, 5, 5), (1, 1, 3, 3)])
def test_blocks_are_lossless_at_full_ranks(shape):
    blocks = normal(*shape)
    t, s, d = shape[-4], shape[-3], shape[-2] * shape[-1]
    outer = outer_products(blocks, t * s * d // max(t, s, d))
    double = double_svd(blocks, min(s, t * d), min(t, min(s, t * d) * d))
    for result, rebuilt in ((outer, outer_blocks(outer)), (double, double_blocks(double))):
        assert result.error < 1e-12
        torch.testing.assert_close(rebuilt, blocks, rtol=0, atol=1e-12)


@pytest.mark.parametrize("covariance", [None, "unit"])
def test_double_svd_is_bounded_by_the_tails_of_both_unfoldings(covariance):
    block = normal(7, 5, 3, 3)
    sigma = None if covariance is None else torch.eye(45)
    error = double_svd(block, 3, 4, sigma).error * vector_norm(block)
    by_input, by_output = (svdvals(block.transpose(0, a).flatten(1)) for a in (1, 0))
    tails = by_input[3:].norm(), by_output[4:].norm()
    assert max(tails) <= error <= torch.stack(tails).norm()
    assert double_svd(block, 3, 4, torch.eye(45)).error == pytest.approx(double_svd(block, 3, 4).error)


def test_double_svd_in_the_norm_of_the_data_is_the_pca_of_the_responses():
    block, x = normal(7, 5, 3, 3), normal(45, 20, seed=1)
    result = double_svd(block, 5, 3, x @ x.T)
    lost = (block - double_blocks(result)).flatten(1) @ x
    torch.testing.assert_close(vector_norm(lost), svdvals(block.flatten(1) @ x)[3:].norm())


@pytest.mark.parametrize("samples", [20, 200])
def test_the_second_cut_is_the_exact_minimum_that_the_inputs_leave(samples):
    """Of all maps from the kept inputs, tap by tap, to K2 outputs: the truncated projection of the responses."""
    block, x = normal(7, 5, 3, 3), normal(45, samples, seed=1)
    result = double_svd(block, 3, 2, x @ x.T)
    kept = torch.einsum("ks,sxn->kxn", result.input, x.unflatten(0, (5, 9))).flatten(0, 1)
    rows = torch.linalg.svd(kept, full_matrices=False).Vh[: min(27, samples)]
    wanted = block.flatten(1) @ x
    told = wanted @ rows.T
    least = wanted.square().sum() - svdvals(told)[:2].square().sum()
    torch.testing.assert_close(((block - double_blocks(result)).flatten(1) @ x).square().sum(), least)


def test_the_norm_of_the_data_lowers_the_error_of_responses_in_every_block():
    blocks = split_blocks(normal(12, 8, 3, 3), 2, 3)
    x = normal(2, 36, 60, seed=1) * torch.logspace(0, -2, 36, dtype=torch.float64).unsqueeze(1)
    covariance = x @ x.mT
    plain, weighted = (double_blocks(double_svd(blocks, 3, 2, sigma)) for sigma in (None, covariance))
    for h, g in itertools.product(range(3), range(2)):
        errors = [responses((blocks - rebuilt)[h, g], covariance[g]) for rebuilt in (weighted, plain)]
        assert errors[0] < errors[1]


def test_one_outer_product_of_a_matrix_is_its_best():
    blocks = normal(3, 8, 6, 1, 1)
    result = outer_products(blocks, 1, tol=0)
    tails = svdvals(blocks[..., 0, 0])[:, 1:].norm()
    assert result.error == pytest.approx(float(tails / vector_norm(blocks)), rel=1e-6)


def test_a_planted_outer_product_is_recovered_in_every_block():
    blocks = torch.einsum("bt,bs,bij->btsij", normal(4, 6), normal(4, 5, seed=1), normal(4, 3, 3, seed=2))
    assert outer_products(blocks, 1).error < 1e-6


def test_every_further_outer_product_lowers_the_error():
    blocks = normal(2, 2, 6, 5, 3, 3)
    errors = [outer_products(blocks, terms).error for terms in (1, 2, 4, 8, 16)]
    assert all(more < less for less, more in itertools.pairwise(errors))


def test_outer_products_have_evenly_spread_norms():
    result = outer_products(normal(2, 6, 5, 3, 3), 4)
    torch.testing.assert_close(result.input.norm(dim=-1), result.output.norm(dim=-2))
    torch.testing.assert_close(result.input.norm(dim=-1), result.taps.flatten(-2).norm(dim=-1))


# Metrics


@pytest.mark.parametrize(
    "factorise",
    [
        lambda k: monochromatic(k, 3),
        lambda k: outer_products(split_blocks(k, 2, 2), 3),
        lambda k: double_svd(split_blocks(k, 2, 2), 2, 3),
    ],
)
def test_zero_kernels_scale_shapes_and_bad_weights(factorise):
    kernel = normal(12, 4, 3, 3)
    zero = factorise(0 * kernel)
    assert zero.error == 0 and all(torch.isfinite(factor).all() for factor in zero if torch.is_tensor(factor))
    assert factorise(1e-30 * kernel).error == pytest.approx(factorise(kernel).error, rel=1e-6)
    shapes = [[f.shape for f in factorise(k) if torch.is_tensor(f)] for k in (kernel, kernel.to("meta"))]
    assert shapes[0] == shapes[1]
    kernel[0, 0, 0, 0] = torch.nan
    with pytest.raises(InvalidWeights):
        factorise(kernel)


def test_ranks_out_of_range_are_named():
    kernel = normal(12, 4, 3, 3)
    with pytest.raises(InvalidRanks, match="components per colour is 5, but must be between 1 and 4"):
        monochromatic(kernel, 3, components=5)
    with pytest.raises(InvalidRanks, match="outer-product terms is 37, but must be between 1 and 36"):
        outer_products(kernel, 37)
    with pytest.raises(InvalidRanks, match="input rank K1 is 5, but must be between 1 and 4"):
        double_svd(kernel, 5, 1)
    with pytest.raises(InvalidRanks, match="output rank K2 is 10, but must be between 1 and 9"):
        double_svd(kernel, 1, 10)


def test_a_colour_and_its_negative_are_one():
    """Opponent colours, as first layers have them: their largest entry is positive as often as negative by noise."""
    colours = torch.tensor([[1.0, -1, 0], [0, 1, -1], [1, 0, -1], [1, 1, 1]], dtype=torch.float64)
    which = torch.arange(64) % 4
    kernel = torch.einsum("ts,tij->tsij", colours[which], normal(64, 7, 7)) + 0.01 * normal(64, 3, 7, 7, seed=1)
    found = monochromatic(kernel, 4)
    assert found.error < 0.02
    assert all(len(which[found.outputs][16 * c : 16 * (c + 1)].unique()) == 1 for c in range(4))
