"""CP decompositions as promised: what they recover, where they are exact, what they refuse."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from lowrank_bench.decomposition.cp import cp_als, cp_nls
from lowrank_bench.decomposition.cp_closed_form import cp_full_rank
from lowrank_bench.decomposition.cp_deflation import cp_greedy
from lowrank_bench.decomposition.cp_result import CPResult, cp_tensor
from lowrank_bench.errors import InvalidInput, InvalidRanks, InvalidWeights, UnknownName

ALGORITHMS: list[Callable[..., CPResult]] = [cp_nls, cp_als, cp_greedy]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def planted(shape: tuple[int, ...], rank: int, seed: int = 0) -> list[Tensor]:
    return [normal(size, rank, seed=seed * len(shape) + mode) for mode, size in enumerate(shape)]


def relative(approximation: Tensor, tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(approximation - tensor) / torch.linalg.vector_norm(tensor))


def matrix_multiplication() -> Tensor:
    """The 4x4x4 tensor of 2x2 matrix multiplication: 1 where entries ij and jk meet in entry ki of the product."""
    tensor = torch.zeros((2,) * 6, dtype=torch.float64)
    for i in range(2):
        for j in range(2):
            for k in range(2):
                tensor[i, j, j, k, k, i] = 1
    return tensor.reshape(4, 4, 4)


def strassen() -> list[Tensor]:
    """Strassen's seven products: combinations of A's entries, of B's entries, and their share in (AB)^T."""
    a = [[1, 0, 0, 1], [0, 0, 1, 1], [1, 0, 0, 0], [0, 0, 0, 1], [1, 1, 0, 0], [-1, 0, 1, 0], [0, 1, 0, -1]]
    b = [[1, 0, 0, 1], [1, 0, 0, 0], [0, 1, 0, -1], [-1, 0, 1, 0], [0, 0, 0, 1], [1, 1, 0, 0], [0, 0, 1, 1]]
    c = [[1, 0, 0, 1], [0, 1, 0, -1], [0, 0, 1, 1], [1, 1, 0, 0], [-1, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0]]
    return [torch.tensor(factor, dtype=torch.float64).T for factor in (a, b, c)]


def same_terms(found: CPResult, factors: list[Tensor]) -> bool:
    """Whether every planted term is among the found ones: cosine 1, whatever the order and scale."""
    cosines = torch.ones(found.factors[0].shape[1], factors[0].shape[1], dtype=torch.float64)
    for mine, theirs in zip(found.factors, factors, strict=True):
        cosines *= (mine / mine.norm(dim=0)).T @ (theirs / theirs.norm(dim=0))
    return bool((cosines.amax(dim=0) > 1 - 1e-8).all())


@pytest.mark.parametrize(("shape", "rank"), [((12, 10, 3, 3), 8), ((16, 12, 9), 14), ((7, 6, 5, 4, 3), 6)])
def test_planted_rank_is_recovered_up_to_order_and_scale(shape: tuple[int, ...], rank: int) -> None:
    factors = planted(shape, rank)
    result = cp_nls(cp_tensor(factors), rank)
    assert result.error < 1e-12
    assert same_terms(result, factors)


@pytest.mark.parametrize("dims", [(20, 15, 3, 3), (20, 15, 9)])
def test_planted_rank_and_noise_leave_less_than_the_noise(dims: tuple[int, ...]) -> None:
    noise = 0.3 * normal(*dims, seed=9)
    tensor = cp_tensor(planted(dims, 5)) + noise
    assert cp_nls(tensor, 5).error < float(noise.norm() / tensor.norm())


def test_matrix_multiplication_tensor_is_strassens_seven_terms() -> None:
    assert torch.equal(cp_tensor(strassen()), matrix_multiplication())
    assert min(cp_nls(matrix_multiplication(), 7, seed=seed).error for seed in range(2)) < 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_six_products_miss_matrix_multiplication_by_exactly_one(seed: int) -> None:
    tensor = matrix_multiplication()
    error = cp_nls(tensor, 6, init="random", seed=seed).error * float(tensor.norm())
    assert error == pytest.approx(1.0, abs=1e-3)


def test_generic_4x4x4_tensor_has_rank_seven() -> None:
    assert min(cp_nls(normal(4, 4, 4), 7, seed=seed, max_iter=400).error for seed in range(4)) < 1e-9


def test_3x3x3_tensors_have_rank_five_one_above_what_counting_says() -> None:
    assert min(cp_nls(normal(3, 3, 3), 5, seed=seed, max_iter=400).error for seed in range(4)) < 1e-9
    assert cp_nls(normal(3, 3, 3), 4, max_iter=400).error > 1e-3


def hyperdeterminant(tensors: Tensor) -> Tensor:
    """Cayley's, of tensors (..., 2, 2, 2)."""
    first, second = tensors.unbind(-3)
    a, b = torch.linalg.det(first), torch.linalg.det(second)
    return (torch.linalg.det(first + second) - a - b) ** 2 - 4 * a * b


def test_2x2x2_tensors_have_rank_two_where_the_hyperdeterminant_is_positive_and_three_where_it_is_negative() -> None:
    tensors = normal(60, 2, 2, 2)  # near 0 the terms of rank two are nearly parallel
    signs = hyperdeterminant(tensors)
    errors = torch.tensor([cp_nls(tensor, 2, init="random").error for tensor in tensors])
    assert (signs > 0.3).sum() > 5 and (errors[signs > 0.3] < 1e-9).all()
    assert (signs < -0.3).sum() > 5 and (errors[signs < -0.3] > 1e-4).all()


def test_a_gaussian_2x2x2_tensor_has_rank_two_with_probability_pi_over_4() -> None:
    assert float((hyperdeterminant(normal(20_000, 2, 2, 2)) > 0).double().mean()) == pytest.approx(
        math.pi / 4, abs=0.012
    )


@pytest.mark.parametrize(("shape", "rank"), [((8, 6, 3, 3), 1), ((8, 6, 3, 3), 2), ((64, 64, 3, 3), 4)])
def test_equal_singular_values_do_not_strand_the_start_at_nothing(shape: tuple[int, ...], rank: int) -> None:
    """An identity through the kernel's centre, as ``nn.init.dirac_`` makes it: any terms of it are as good."""
    kernel = nn.init.dirac_(torch.empty(shape, dtype=torch.float64))
    inputs = min(shape[:2])
    assert cp_nls(kernel, rank).error == pytest.approx((1 - rank / inputs) ** 0.5, rel=1e-6)


def test_greedy_never_beats_nls_and_matches_it_on_matrices() -> None:
    tensor, matrix = normal(12, 10, 3, 3), normal(12, 10)
    assert cp_greedy(tensor, 6).error > cp_nls(tensor, 6).error
    tail = torch.linalg.svdvals(matrix)[4:].norm() / matrix.norm()
    assert cp_greedy(matrix, 4).error == pytest.approx(float(tail), rel=1e-12)
    assert cp_nls(matrix, 4).error == pytest.approx(float(tail), rel=1e-12)


def test_greedy_finds_terms_that_every_mean_is_orthogonal_to() -> None:
    factors = [torch.tensor([[1.0], [-1.0], [0.0]], dtype=torch.float64)] * 3
    result = cp_greedy(cp_tensor(factors), 2)
    assert result.error < 1e-15
    assert all(factor.isfinite().all() for factor in result.factors)


def test_greedy_history_falls_with_every_term() -> None:
    result = cp_greedy(normal(10, 8, 3, 3), 5)
    assert result.history[0] == 1 and len(result.history) == 6
    assert all(later < earlier for earlier, later in pairwise(result.history))
    assert result.history[-1] == pytest.approx(result.error)


SHAPES = [
    (6, 5, 3, 3),
    (4, 9, 3, 2),
    (96, 1, 9, 9),
    (1, 8, 5, 5),
    (8, 6, 1, 1),
    (1, 1, 3, 3),
    (7, 5, 9),
    (4, 3),
    (1, 1),
]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_full_rank_is_exact(shape: tuple[int, ...], algorithm: Callable[..., CPResult]) -> None:
    tensor, rank = normal(*shape), cp_full_rank(shape)
    result = algorithm(tensor, rank)
    assert [factor.shape for factor in result.factors] == [(size, rank) for size in shape]
    torch.testing.assert_close(cp_tensor(result.factors), tensor, rtol=1e-12, atol=1e-14)
    assert result.error < 1e-14
    assert result.degeneracy.term_energy == pytest.approx(1)


def test_full_rank_of_a_kernel_is_that_of_its_per_tap_svds() -> None:
    kernel = normal(6, 4, 3, 2)
    assert cp_full_rank(kernel.shape) == 3 * 2 * min(4, 6)
    columns: list[list[Tensor]] = [[], [], [], []]
    for i in range(3):
        for j in range(2):
            u, s, vh = torch.linalg.svd(kernel[:, :, i, j], full_matrices=False)
            row, column = torch.eye(3, dtype=torch.float64)[:, [i] * 4], torch.eye(2, dtype=torch.float64)[:, [j] * 4]
            for stack, factor in zip(columns, (u * s, vh.T, row, column), strict=True):
                stack.append(factor)
    factors = [torch.cat(stack, dim=1) for stack in columns]
    assert factors[0].shape[1] == cp_full_rank(kernel.shape)
    torch.testing.assert_close(cp_tensor(factors), kernel)


def test_ranks_above_the_full_rank_are_exact_too() -> None:
    tensor = normal(4, 3, 2)
    torch.testing.assert_close(cp_tensor(cp_nls(tensor, 10).factors), tensor)


def test_size_one_modes_do_not_count() -> None:
    kernel = normal(9, 1, 5, 1)
    tail = torch.linalg.svdvals(kernel.squeeze())[2:].norm() / kernel.norm()
    assert cp_nls(kernel, 2).error == pytest.approx(float(tail), rel=1e-12)


def test_terms_are_spread_evenly_over_the_factors() -> None:
    lengths = torch.stack([factor.norm(dim=0) for factor in cp_nls(normal(10, 8, 3, 3), 6).factors])
    torch.testing.assert_close(lengths, lengths[:1].expand_as(lengths))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_error_is_that_of_the_factors(algorithm: Callable[..., CPResult]) -> None:
    tensor = normal(10, 8, 3, 3)
    result = algorithm(tensor, 6)
    assert result.error == pytest.approx(relative(cp_tensor(result.factors), tensor), rel=1e-10)
    assert result.history[-1] == pytest.approx(result.error, rel=1e-7)


@pytest.mark.parametrize("algorithm", [cp_nls, cp_als])
def test_error_never_rises(algorithm: Callable[..., CPResult]) -> None:
    history = algorithm(normal(14, 10, 3, 3), 12, max_iter=60).history
    assert len(history) > 10
    assert all(later <= earlier for earlier, later in pairwise(history))


def test_compression_keeps_what_lies_outside_the_core() -> None:
    # 40 x 30 channels at rank 4: the first stage sees a 4 x 4 x 3 x 3 core, the result fits the whole kernel
    kernel = cp_tensor(planted((40, 30, 3, 3), 4)) + normal(40, 30, 3, 3, seed=5)
    start = cp_nls(kernel, 4, max_iter=1)
    assert cp_nls(kernel, 4).error < start.error < start.history[0]


@pytest.mark.parametrize("scale", [1e-200, 1e-12, 1e12, 1e200])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_scale_changes_nothing_but_the_scale(algorithm: Callable[..., CPResult], scale: float) -> None:
    tensor = normal(8, 6, 3, 3)
    small, scaled = algorithm(tensor, 4), algorithm(tensor * scale, 4)
    assert scaled.error == pytest.approx(small.error, rel=1e-6)
    torch.testing.assert_close(cp_tensor(scaled.factors) / scale, cp_tensor(small.factors), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_zero_tensor_gives_exact_zeros(algorithm: Callable[..., CPResult]) -> None:
    result = algorithm(torch.zeros(4, 3, 3, 3), 2)
    assert result.error == 0
    assert [factor.shape for factor in result.factors] == [(4, 2), (3, 2), (3, 2), (3, 2)]
    assert not any(factor.any() for factor in result.factors)
    assert (result.degeneracy.term_energy, result.degeneracy.cosine) == (0, 0)


def test_input_stays_as_it_is_and_results_are_float64_outside_autograd() -> None:
    tensor = torch.randn(6, 5, 3, 3, requires_grad=True)
    before = tensor.detach().clone()
    factors = cp_nls(tensor, 3).factors
    assert torch.equal(tensor.detach(), before)
    assert all(factor.dtype == torch.float64 and not factor.requires_grad for factor in factors)


def test_seed_decides_and_the_global_generator_does_not() -> None:
    tensor = normal(8, 7, 3, 3)
    torch.manual_seed(1)
    first = cp_nls(tensor, 5, seed=3)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    assert all(torch.equal(a, b) for a, b in zip(first.factors, cp_nls(tensor, 5, seed=3).factors, strict=True))
    torch.manual_seed(1)
    cp_nls(tensor, 5)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("algorithm", [cp_nls, cp_als])
def test_given_factors_are_where_it_starts(algorithm: Callable[..., CPResult]) -> None:
    factors = planted((10, 8, 3, 3), 4)
    tensor = cp_tensor(factors) + 0.1 * normal(10, 8, 3, 3, seed=7)
    result = algorithm(tensor, 4, init=factors, max_iter=3)
    assert result.history[0] == pytest.approx(relative(cp_tensor(factors), tensor))
    assert result.error < result.history[0]


@pytest.mark.parametrize("init", ["svd", "random"])
def test_auto_is_no_worse_than_either_start(init: str) -> None:
    tensor = normal(12, 10, 3, 3)
    assert cp_nls(tensor, 4, max_iter=1).history[0] <= cp_nls(tensor, 4, init=init, max_iter=1).history[0] * 1.02


def test_time_cap_ends_the_iteration() -> None:
    tensor = normal(30, 20, 5, 5)
    assert len(cp_nls(tensor, 40, max_seconds=1e-3).history) < len(cp_nls(tensor, 40, max_iter=20).history)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_on_a_gpu_the_factors_are_those_of_the_cpu(algorithm: Callable[..., CPResult]) -> None:
    tensor = normal(12, 10, 3, 3)
    here, there = algorithm(tensor, 5), algorithm(tensor.cuda(), 5)
    assert all(factor.is_cuda and factor.dtype == torch.float64 for factor in there.factors)
    assert there.error == pytest.approx(here.error, rel=1e-4)


def test_meta_tensors_give_shapes() -> None:
    result = cp_nls(torch.empty(6, 5, 3, 3, device="meta"), 4)
    assert [tuple(factor.shape) for factor in result.factors] == [(6, 4), (5, 4), (3, 4), (3, 4)]
    assert math.isnan(result.error)


def test_nearly_equal_filters_leave_nothing_undefined() -> None:
    kernel = normal(1, 6, 3, 3).repeat(8, 1, 1, 1) + 1e-14 * normal(8, 6, 3, 3, seed=1)
    for algorithm in ALGORITHMS:
        result = algorithm(kernel, 12)
        assert math.isfinite(result.error) and all(factor.isfinite().all() for factor in result.factors)


@pytest.mark.parametrize("rank", [0, -1, 2.0, True, "3", None])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_rank_must_be_a_positive_integer(algorithm: Callable[..., CPResult], rank: object) -> None:
    with pytest.raises(InvalidRanks, match="integer above 0"):
        algorithm(normal(4, 3, 2), rank)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_weights_must_be_finite(algorithm: Callable[..., CPResult], bad: float) -> None:
    tensor = normal(4, 3, 2)
    tensor[1, 1, 1] = bad
    with pytest.raises(InvalidWeights, match="NaN or infinite"):
        algorithm(tensor, 2)


@pytest.mark.parametrize("tensor", [torch.ones(3), torch.ones(2, 2, dtype=torch.complex64), torch.ones(0, 3)])
def test_tensor_must_be_real_with_two_modes_and_entries(tensor: Tensor) -> None:
    with pytest.raises(InvalidWeights):
        cp_nls(tensor, 1)


@pytest.mark.parametrize(
    "options", [{"max_iter": 0}, {"tol": -1.0}, {"tol": math.nan}, {"max_seconds": 0.0}, {"init": [torch.ones(4, 2)]}]
)
def test_options_out_of_range_are_named(options: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        cp_nls(normal(4, 3, 5), 2, **options)  # type: ignore[arg-type]
    with pytest.raises(UnknownName, match="did you mean 'random'"):
        cp_nls(normal(4, 3, 5), 2, init="randon")
    with pytest.raises(UnknownName, match="known are auto, random, svd"):
        cp_nls(normal(4, 3, 5), 2, init=None)  # type: ignore[arg-type]
