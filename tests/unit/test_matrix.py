"""The shared matrix tools: truncated SVD, SVD in the norm of a covariance, even norms."""

import math

import pytest
import torch
from torch.linalg import matrix_norm, svdvals, vector_norm

from lowrank_bench.decomposition.balance import balance_factors, balance_terms
from lowrank_bench.decomposition.matrix import as_float64, balanced_svd, relative_error, truncated_svd, weighted_svd
from lowrank_bench.errors import InvalidRanks, InvalidWeights


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (5, 40), (40, 5), (3, 4, 7), (1, 1)])
def test_truncated_svd_leaves_the_tail_of_the_singular_values(shape):
    matrix = normal(*shape)
    for rank in range(1, min(shape[-2:]) + 1):
        u, s, vh = truncated_svd(matrix, rank)
        tail = svdvals(matrix)[..., rank:].square().sum(-1).sqrt()
        torch.testing.assert_close(matrix_norm(matrix - (u * s.unsqueeze(-2)) @ vh), tail, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(u.mT @ u, torch.eye(rank).to(u).expand_as(u.mT @ u))


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (3, 4, 7)])
def test_balanced_factors_are_the_best_approximation_with_even_norms_term_by_term(shape):
    matrix = normal(*shape)
    left, right = balanced_svd(matrix, 3)
    u, s, vh = truncated_svd(matrix, 3)
    torch.testing.assert_close(left @ right, (u * s.unsqueeze(-2)) @ vh)
    torch.testing.assert_close(vector_norm(left, dim=-2), vector_norm(right, dim=-1))


def test_the_sign_of_singular_vectors_is_fixed():
    u, _, vh = truncated_svd(normal(5, 8), 5)
    u_negated, _, vh_negated = truncated_svd(-normal(5, 8), 5)
    assert (u.gather(0, u.abs().argmax(0, keepdim=True)) > 0).all()
    torch.testing.assert_close(u, u_negated)
    torch.testing.assert_close(vh, -vh_negated)


def test_weighted_svd_loses_exactly_the_tail_of_the_weighted_matrix():
    weight, x = normal(8, 12), normal(12, 50, seed=1)
    responses = weight @ x
    for rank in (1, 4, 7):
        left, right = weighted_svd(weight, x @ x.T, rank)
        # Denton's metric is PCA of the responses: their best approximation of that rank is reached by changing the
        # weights alone.
        tail = svdvals(responses)[rank:].square().sum().sqrt()
        torch.testing.assert_close(matrix_norm(responses - left @ (right @ x)), tail)
        u, s, vh = truncated_svd(weight, rank)
        assert tail <= matrix_norm(responses - (u * s) @ (vh @ x))


def test_weighted_svd_with_a_white_covariance_is_the_svd():
    weight = normal(8, 12)
    left, right = weighted_svd(weight, 3 * torch.eye(12), 5)
    u, s, vh = truncated_svd(weight, 5)
    torch.testing.assert_close(left @ right, (u * s) @ vh)


@pytest.mark.parametrize("shape", [(8, 12), (12, 8)])
@pytest.mark.parametrize("samples", [0, 3, 100])
def test_weighted_svd_is_exact_at_full_rank_even_if_the_covariance_is_singular(shape, samples):
    weight, x = normal(*shape), normal(shape[1], samples, seed=1)
    left, right = weighted_svd(weight, x @ x.T, 8)
    assert relative_error(left @ right, weight) < 1e-12


def test_weighted_svd_with_a_singular_covariance_loses_nothing_that_the_inputs_can_see():
    weight, x = normal(8, 12), normal(12, 3, seed=1)
    left, right = weighted_svd(weight, x @ x.T, 3)
    assert relative_error(left @ right @ x, weight @ x) < 1e-9


def test_balanced_factors_have_equal_norms_and_the_same_product():
    factors = [1e3 * normal(4, 3), normal(5, 3, seed=1), 1e-6 * normal(6, 3, seed=2)]
    for balanced, norms in (
        (balance_terms(factors), lambda f: vector_norm(f, dim=0)),
        (balance_factors(factors), vector_norm),
    ):
        product = [torch.einsum("ar,br,cr->abc", *f) for f in (factors, balanced)]
        torch.testing.assert_close(product[0], product[1])
        torch.testing.assert_close(norms(balanced[0]), norms(balanced[1]))
        torch.testing.assert_close(norms(balanced[0]), norms(balanced[2]))


def test_relative_error_survives_tiny_and_zero_tensors():
    x = normal(4, 5)
    assert relative_error(0.5e-200 * x, 1e-200 * x) == pytest.approx(0.5)
    assert relative_error(0 * x, 0 * x) == 0
    assert relative_error(x, 0 * x) == math.inf


def test_bad_weights_and_ranks_are_named():
    with pytest.raises(InvalidWeights, match=r"kernel of shape \(2, 2\) has 1 entries that are NaN or infinite"):
        as_float64(torch.tensor([[1.0, math.nan], [0.0, 1.0]]))
    with pytest.raises(InvalidWeights, match="empty"):
        as_float64(torch.empty(0, 3))
    with pytest.raises(InvalidWeights, match=r"covariance has shape \(3, 3\)"):
        weighted_svd(normal(4, 5), torch.eye(3), 2)
    with pytest.raises(InvalidRanks, match="rank is 6, but must be between 1 and 4"):
        truncated_svd(normal(4, 5), 6)
    with pytest.raises(InvalidRanks, match="rank is 0"):
        truncated_svd(normal(4, 5), 0)
