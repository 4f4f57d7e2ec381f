"""Separable filters: Tai's closed form (Jaderberg's scheme 2) and the separable basis of scheme 1."""

from itertools import pairwise

import pytest
import torch
from torch.linalg import svdvals, vector_norm
from torch.nn.functional import conv2d

from lowrank_bench.decomposition.matrix import relative_error
from lowrank_bench.decomposition.separable import separable
from lowrank_bench.decomposition.separable_basis import separable_basis, singular_value_threshold
from lowrank_bench.errors import InvalidOptions, InvalidRanks, InvalidWeights

ORDERS = ("vh", "hv")


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def composed(first, second):
    """The kernel of two convolutions one after the other, by what they do to unit impulses."""
    inputs, dh, dw = first.shape[1], first.shape[2] * second.shape[2], first.shape[3] * second.shape[3]
    impulses = torch.zeros(inputs, inputs, 2 * dh - 1, 2 * dw - 1, dtype=torch.float64)
    impulses[range(inputs), range(inputs), dh - 1, dw - 1] = 1
    return conv2d(conv2d(impulses, first), second).transpose(0, 1).flip(2, 3)


def tails(kernel, order):
    """tails[K]: the distance to the nearest sum of K separable pairs, by the bijection with a matrix."""
    matrix = torch.stack(
        [torch.cat([*(kernel if order == "vh" else kernel.mT)[:, c]], dim=1) for c in range(kernel.shape[1])]
    )
    return svdvals(matrix.flatten(0, 1)).square().flip(0).cumsum(0).flip(0).sqrt()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (4, 7, 5, 2), (1, 1, 3, 3), (5, 3, 1, 1), (3, 2, 1, 4)])
def test_full_rank_is_lossless(shape, order):
    t, s, dh, dw = shape
    kernel = normal(*shape)
    full = min(s * dh, t * dw) if order == "vh" else min(s * dw, t * dh)
    pair = separable(kernel, full, order)
    assert pair.error < 1e-12
    torch.testing.assert_close(composed(pair.first, pair.second), kernel, rtol=0, atol=1e-12)


@pytest.mark.parametrize("order", ORDERS)
def test_the_error_is_the_tail_of_the_singular_values(order):
    kernel = normal(6, 4, 3, 5)
    for rank in (1, 5, 11):
        pair = separable(kernel, rank, order)
        tail = tails(kernel, order)[rank] / vector_norm(kernel)
        assert pair.error == pytest.approx(float(tail), rel=1e-10)
        assert relative_error(composed(pair.first, pair.second), kernel) == pytest.approx(pair.error, rel=1e-10)


@pytest.mark.parametrize("order", ORDERS)
def test_planted_pairs_are_recovered(order):
    first, second = (normal(3, 4, 3, 1), normal(6, 3, 1, 3, seed=1))
    if order == "hv":
        first, second = first.mT, second.mT
    assert separable(composed(first, second), 3, order).error < 1e-12


def test_alternating_least_squares_converges_to_the_closed_form_and_never_below():
    kernel, rank = normal(6, 4, 3, 3), 5
    unfolded = kernel.permute(1, 2, 0, 3).reshape(12, 18)
    closed = separable(kernel, rank).error
    horizontal = normal(rank, 18, seed=1)
    for _ in range(3000):
        vertical = torch.linalg.lstsq(horizontal.T, unfolded.T).solution.T
        horizontal = torch.linalg.lstsq(vertical, unfolded).solution
        error = relative_error(vertical @ horizontal, unfolded)
        assert error >= closed - 1e-12
    assert error == pytest.approx(closed, rel=1e-6)


def test_either_order_can_be_the_better_one():
    kernel = composed(normal(2, 4, 3, 1), normal(6, 2, 1, 3, seed=1))
    assert separable(kernel, 2, "vh").error < 1e-12 < 0.1 < separable(kernel, 2, "hv").error
    assert separable(kernel.mT, 2, "hv").error < 1e-12 < 0.1 < separable(kernel.mT, 2, "vh").error


def test_both_factors_carry_the_same_norm_in_every_component():
    first, second, _ = separable(normal(6, 4, 3, 3), 5)
    torch.testing.assert_close(
        vector_norm(first.flatten(1), dim=1), vector_norm(second.transpose(0, 1).flatten(1), dim=1)
    )


@pytest.mark.parametrize("bases", [1, 4, 9])
def test_scheme_1_is_a_depthwise_pair_and_a_mixing(bases):
    kernel = normal(6, 4, 3, 3)
    basis = separable_basis(kernel, bases)
    x = normal(2, 4, 8, 8, seed=1)
    y = conv2d(conv2d(conv2d(x, basis.vertical, groups=4), basis.horizontal, groups=4 * bases), basis.mixing)
    product = torch.einsum(
        "tcm,cmi,cmj->tcij",
        *(
            f.reshape(shape)
            for f, shape in zip(
                (basis.mixing, basis.vertical, basis.horizontal),
                ((6, 4, bases), (4, bases, 3), (4, bases, 3)),
                strict=True,
            )
        ),
    )
    torch.testing.assert_close(y, conv2d(x, product))
    assert relative_error(product, kernel) == pytest.approx(basis.error, abs=1e-12)


@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (2, 3, 2, 5), (1, 1, 3, 3), (4, 3, 1, 1)])
def test_scheme_1_with_the_delta_basis_is_lossless(shape):
    assert separable_basis(normal(*shape), shape[2] * shape[3]).error < 1e-12


def test_scheme_1_never_raises_the_error_in_its_last_stage():
    for bases in (1, 2, 5, 8):
        history = separable_basis(normal(20, 6, 3, 3), bases, tol=0).history
        assert len(history) > 5
        assert all(after <= before + 1e-13 for before, after in pairwise(history))


def test_scheme_1_error_lies_between_that_of_any_basis_and_that_of_the_taps_left_out():
    kernel = normal(20, 6, 3, 3)
    slices = kernel.transpose(0, 1).flatten(2)
    for bases in (1, 3, 6):
        # Below: the best `bases` filters per channel, separable or not. Above: the strongest taps of each channel kept
        # as they are.
        unconstrained = svdvals(slices)[:, bases:].square().sum().sqrt()
        strongest = slices.square().sum(1).sort(dim=1, descending=True).values[:, bases:].sum().sqrt()
        error = separable_basis(kernel, bases).error * vector_norm(kernel)
        assert unconstrained <= error <= strongest


def test_scheme_1_finds_planted_separable_filters():
    vertical, horizontal, mixing = normal(5, 2, 3), normal(5, 2, 3, seed=1), normal(12, 5, 2, seed=2)
    kernel = torch.einsum("tcm,cmi,cmj->tcij", mixing, vertical, horizontal)
    assert separable_basis(kernel, 2, max_iter=2000, tol=0).error < 1e-6


def test_singular_value_threshold_is_the_proximal_map_of_the_nuclear_norm():
    matrix, threshold = normal(4, 6), torch.tensor([1.5], dtype=torch.float64)

    def objective(x):
        return (x - matrix).square().sum() / 2 + threshold * torch.linalg.matrix_norm(x, "nuc")

    best = singular_value_threshold(matrix, threshold)
    assert torch.linalg.matrix_rank(best) < 4
    for seed in range(50):
        for size in (1e-3, 1e-1, 1):
            assert objective(best + size * normal(4, 6, seed=seed)) > objective(best)


@pytest.mark.parametrize(
    "factorise", [lambda k: separable(k, 5), lambda k: separable(k, 5, "hv"), lambda k: separable_basis(k, 3)]
)
def test_zero_kernels_scale_and_shapes(factorise):
    kernel = normal(6, 4, 3, 3)
    zero = factorise(0 * kernel)
    assert zero.error == 0 and not any(factor.any() for factor in zero if torch.is_tensor(factor))
    assert factorise(1e-30 * kernel).error == pytest.approx(factorise(kernel).error, rel=1e-6)
    shapes = [[f.shape for f in factorise(k) if torch.is_tensor(f)] for k in (kernel, kernel.to("meta"))]
    assert shapes[0] == shapes[1]
    kernel[0, 0, 0, 0] = torch.inf
    with pytest.raises(InvalidWeights):
        factorise(kernel)


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e300])
def test_basis_filters_of_kernels_beyond_the_range_of_squares_are_no_worse(scale):
    kernel = normal(6, 4, 3, 3)
    found, plain = separable_basis(scale * kernel, 3), separable_basis(kernel, 3)
    assert found.error == pytest.approx(plain.error)
    share = scale ** (1 / 3)
    for one, other in zip(found[:3], plain[:3], strict=True):
        torch.testing.assert_close(one / share, other)


def test_basis_filters_do_not_depend_on_the_default_dtype():
    kernel = normal(6, 4, 3, 3)
    plain = separable_basis(kernel, 3)
    torch.set_default_dtype(torch.float16)
    try:
        found = separable_basis(kernel, 3)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(one, other) for one, other in zip(found[:3], plain[:3], strict=True))


def test_bad_ranks_and_orders_are_named():
    kernel = normal(6, 4, 3, 3)
    for rank in (1.5, True, None):
        with pytest.raises(InvalidRanks, match="a whole number"):
            separable(kernel, rank)
    for odd in (kernel[0], kernel + 1j * kernel):
        with pytest.raises(InvalidWeights, match="real numbers along 4 axes are wanted"):
            separable(odd, 2)
    with pytest.raises(InvalidRanks, match="between 1 and 12"):
        separable(kernel, 13)
    with pytest.raises(InvalidRanks, match="bases is 10, but must be between 1 and 9"):
        separable_basis(kernel, 10)
    with pytest.raises(InvalidOptions, match="'vv'"):
        separable(kernel, 3, "vv")
