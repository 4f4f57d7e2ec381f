"""The Gauss-Newton algebra of CP against explicit Jacobians, autograd and what equals what by theory."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from lowrank_bench.decomposition.cp_gauss_newton import Point, damped_step, gauss_newton, split
from lowrank_bench.decomposition.cp_result import cp_tensor
from lowrank_bench.decomposition.cp_stopping import Stopping
from lowrank_bench.decomposition.cp_sweeps import alternating_least_squares, least_squares
from lowrank_bench.decomposition.mttkrp import Unfolded, grams, hadamard

SHAPES = [(5, 4, 3, 2), (2, 3, 4, 5), (6, 3, 4), (2, 2, 3, 2, 3), (5, 3), (4, 1, 3, 3)]
RANK = 3


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def composed(factors: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The tensor of factors that stand side by side as (R, sum n_i)."""
    return cp_tensor([rows.T for rows in split(factors, shape)])


def point(shape: tuple[int, ...]) -> tuple[Unfolded, Point]:
    problem = Unfolded(normal(*shape))
    return problem, Point(problem, normal(RANK, sum(shape), seed=1))


@pytest.mark.parametrize("shape", SHAPES)
def test_layout_loses_nothing(shape: tuple[int, ...]) -> None:
    assert torch.equal(Unfolded(normal(*shape)).tensor, normal(*shape))


@pytest.mark.parametrize("shape", SHAPES)
def test_normal_product_is_that_of_the_explicit_jacobian(shape: tuple[int, ...]) -> None:
    _, here = point(shape)
    jacobian = torch.func.jacrev(lambda factors: composed(factors, shape).flatten())(here.factors).flatten(1)
    vector = normal(*here.factors.shape, seed=2)
    expected = jacobian.T @ (jacobian @ vector.flatten())
    torch.testing.assert_close(here.normal_product(vector).flatten(), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_and_cost_are_those_of_autograd(shape: tuple[int, ...]) -> None:
    _, here = point(shape)
    factors = here.factors.clone().requires_grad_()
    cost = 0.5 * (normal(*shape) - composed(factors, shape)).square().sum()
    cost.backward()
    assert here.cost == pytest.approx(cost.item())
    assert factors.grad is not None
    torch.testing.assert_close(here.gradient, factors.grad)


def test_gradient_near_an_exact_fit_keeps_its_digits() -> None:
    shape, factors = (6, 5, 3, 3), normal(RANK, 17)
    problem = Unfolded(composed(factors, shape))
    moved = factors + 1e-9 * normal(RANK, 17, seed=1)
    here = Point(problem, moved)
    variable = moved.clone().requires_grad_()
    (0.5 * (composed(factors, shape) - composed(variable, shape)).square().sum()).backward()
    assert variable.grad is not None
    assert float((here.gradient - variable.grad).norm() / variable.grad.norm()) < 1e-6
    exact = (composed(factors, shape) - composed(moved, shape)).square().sum() / 2
    assert here.cost == pytest.approx(float(exact), rel=1e-6)


@pytest.mark.parametrize("shape", [(5, 4, 3, 2), (2, 3, 4, 5), (6, 3, 4), (2, 2, 3, 2, 3), (4, 1, 3, 3)])
def test_block_jacobi_is_a_simultaneous_als_update(shape: tuple[int, ...]) -> None:
    problem, here = point(shape)
    updated = split(here.factors - here.block_jacobi(0)(here.gradient), shape)
    for mode, rows in enumerate(updated):
        others = [row for n, row in enumerate(here.rows) if n != mode]
        design = torch.stack([cp_tensor([row[[r]].T for row in others]).flatten() for r in range(RANK)], dim=1)
        unfolding = problem.tensor.movedim(mode, 0).flatten(1)
        torch.testing.assert_close(rows, torch.linalg.lstsq(design, unfolding.T).solution, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_cg_solves_the_damped_system_and_predicts_its_decrease(ridge: float) -> None:
    _, here = point((5, 4, 3, 2))
    step, predicted = damped_step(here, ridge, 1e-3, 500)
    model = (here.gradient * step).sum() + (step * here.normal_product(step)).sum() / 2
    model += ridge * ((here.factors * step).sum() + step.square().sum() / 2)
    assert predicted == pytest.approx(-float(model), rel=1e-2)


def test_cost_falls_at_every_step() -> None:
    problem = Unfolded(normal(12, 9, 3, 3))
    rows = [normal(10, size, seed=size) for size in problem.shape]
    _, history = gauss_newton(problem, rows, Stopping(80, 0))
    assert len(history) > 30
    assert all(later < earlier for earlier, later in pairwise(history))


def test_matrices_converge_to_the_truncated_svd() -> None:
    matrix = normal(12, 9)
    tail = float(torch.linalg.svdvals(matrix)[4:].norm())
    rows = [normal(4, 12, seed=1), normal(4, 9, seed=2)]
    for solver in (gauss_newton, alternating_least_squares):
        _, history = solver(Unfolded(matrix), rows, Stopping(300, 1e-14))
        assert history[-1] == pytest.approx(tail, rel=1e-6)


def test_nls_gets_below_where_als_crawls() -> None:
    # two nearly parallel terms: a swamp for ALS
    base = [normal(size, 1, seed=size) for size in (10, 9, 8)]
    tensor = cp_tensor([torch.cat([u, u + 0.3 * normal(len(u), 1, seed=50 + len(u))], dim=1) for u in base])
    problem = Unfolded(tensor / tensor.norm())
    rows = [normal(2, size, seed=90 + size) for size in (10, 9, 8)]
    _, newton = gauss_newton(problem, rows, Stopping(80, 0))
    _, als = alternating_least_squares(problem, rows, Stopping(80, 0))
    assert newton[-1] < 1e-9 < 1e-6 < als[-1]


def test_sweep_solves_each_mode_exactly() -> None:
    problem = Unfolded(normal(7, 6, 3, 3))
    rows, pivot_mttkrp = next(problem.sweeps([normal(4, size, seed=size) for size in problem.shape], least_squares))
    pivot = problem.pivot
    gradient = hadamard(grams(rows), pivot) @ rows[pivot] - problem.mttkrps(rows)[pivot]
    torch.testing.assert_close(pivot_mttkrp, problem.mttkrps(rows)[pivot])
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-10, rtol=0)


@pytest.mark.parametrize("rank", [3, 70, 150])
def test_terms_in_blocks_are_the_terms_at_once(rank: int) -> None:
    problem = Unfolded(normal(9, 8, 3, 2))
    rows = [normal(rank, size, seed=size) for size in problem.shape]
    names, letters = "abcd", [f"r{letter}" for letter in "abcd"]
    for mode, mttkrp in enumerate(problem.mttkrps(rows)):
        others = ",".join(letters[n] for n in range(4) if n != mode)
        expected = torch.einsum(f"{names},{others}->{letters[mode]}", problem.tensor, *rows[:mode], *rows[mode + 1 :])
        torch.testing.assert_close(mttkrp, expected)


def test_parallel_terms_still_have_a_least_squares_update() -> None:
    # the Gram matrix is singular: any split between the two terms is a solution, and none may be NaN
    one, mttkrp = torch.ones(2, 2, dtype=torch.float64), normal(1, 5).expand(2, 5)
    rows = least_squares(one, mttkrp, normal(2, 5, seed=1))
    torch.testing.assert_close(one @ rows, mttkrp, rtol=1e-3, atol=1e-3)


def test_a_step_that_is_not_taken_costs_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, rows = Unfolded(normal(90, 12, 3, 3)), [normal(100, size) for size in (90, 12, 3, 3)]
    told = []
    mttkrps = Unfolded.mttkrps
    monkeypatch.setattr(Unfolded, "mttkrps", lambda *given: told.append(given) or mttkrps(*given))
    point = Point(problem, torch.cat(rows, dim=1))
    assert point.cost > 0 and not told
    assert point.gradient.shape == point.factors.shape and point.gradient is point.gradient
    assert len(told) == 1


def test_the_mttkrp_of_the_pivot_alone_is_the_same_to_the_bit() -> None:
    problem, rows = Unfolded(normal(90, 12, 3, 3)), [normal(100, size) for size in (90, 12, 3, 3)]
    assert torch.equal(problem.mttkrps(rows)[problem.pivot], problem.pivot_mttkrp(rows))


def test_a_norm_that_is_remembered_is_of_the_tensor_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = normal(6, 5, 3)
    problem = Unfolded(tensor)
    assert problem.normalise() == pytest.approx(float(tensor.norm()))
    assert problem.squared_norm() == pytest.approx(1)
    rows = [normal(2, size) for size in (6, 5, 3)]
    rest = problem.residual(rows)
    assert rest.squared_norm() == pytest.approx(float(rest.tensor.square().sum()))
    with monkeypatch.context() as patch:
        patch.setattr(torch.linalg, "vector_norm", None)  # asked for no more
        assert problem.squared_norm() == pytest.approx(1)
