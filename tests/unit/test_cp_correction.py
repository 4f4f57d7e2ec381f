"""Error-preserving correction: the bound holds, the terms shrink; the alarm that says when it is needed."""

import pytest
import torch
from torch import Tensor

from lowrank_bench.decomposition.cp import cp_nls
from lowrank_bench.decomposition.cp_correction import cp_epc
from lowrank_bench.decomposition.cp_result import CPResult, cp_tensor
from lowrank_bench.errors import InvalidInput


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def border_rank_tensor() -> Tensor:
    """xxy + xyx + yxx: of rank 3, and a limit of tensors of rank 2."""
    tensor = torch.zeros(2, 2, 2, dtype=torch.float64)
    tensor[0, 0, 1] = tensor[0, 1, 0] = tensor[1, 0, 0] = 1
    return tensor


def diverging_terms(n: float) -> list[Tensor]:
    """n (x + y/n)^3 - n x^3, which is within about sqrt(3) / n of the border-rank tensor."""
    root = n ** (1 / 3)
    return [root * torch.tensor([[1, -1], [1 / n, 0]], dtype=torch.float64)] * 3


@pytest.mark.parametrize("n", [10, 100, 1000])
def test_border_rank_error_falls_as_terms_diverge(n: int) -> None:
    error = float((border_rank_tensor() - cp_tensor(diverging_terms(n))).norm())
    assert error == pytest.approx(3**0.5 / n, rel=0.01)


def test_degeneracy_alarm_sounds_on_the_border_rank_tensor() -> None:
    alarms = [cp_nls(border_rank_tensor(), 2, max_iter=steps).degeneracy for steps in (10, 40, 160)]
    assert alarms[0].term_energy < alarms[1].term_energy < alarms[2].term_energy
    assert alarms[2].term_energy > 100 and alarms[2].cosine > 0.99


def test_degeneracy_is_silent_on_orthogonal_terms() -> None:
    q = torch.linalg.qr(normal(5, 5)).Q[:, :3]
    result = cp_nls(cp_tensor([q, q, q]), 3)
    assert result.degeneracy.term_energy == pytest.approx(1)
    assert result.degeneracy.cosine == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("n", [10, 100, 1000])
def test_border_rank_terms_stay_bounded_after_correction(n: int) -> None:
    corrected = cp_epc(border_rank_tensor(), diverging_terms(n), 0.2)
    assert corrected.error <= 0.2
    assert corrected.degeneracy.term_energy < 2


def energy(factors: list[Tensor]) -> float:
    """sum_r ||term_r||^2."""
    return float(torch.stack([factor.square().sum(dim=0) for factor in factors]).prod(dim=0).sum())


@pytest.fixture(scope="module")
def kernel() -> Tensor:
    return normal(16, 12, 3, 3)


@pytest.fixture(scope="module")
def fit(kernel: Tensor) -> CPResult:
    return cp_nls(kernel, 30, max_iter=100)


@pytest.mark.parametrize("room", [1.0, 1.001, 1.01, 1.1])
def test_error_stays_within_the_bound_and_the_terms_shrink(kernel: Tensor, fit: CPResult, room: float) -> None:
    corrected = cp_epc(kernel, fit, room * fit.error)
    assert corrected.error <= room * fit.error
    assert energy(corrected.factors) < energy(fit.factors)
    assert float((cp_tensor(corrected.factors) - kernel).norm() / kernel.norm()) == pytest.approx(corrected.error)


@pytest.mark.parametrize("noise", [1e-5, 1e-8, 1e-10])
def test_a_bound_near_an_exact_fit_holds_too(noise: float) -> None:
    kernel = cp_tensor([normal(size, 3, seed=mode) for mode, size in enumerate((6, 5, 3, 3))])
    kernel = kernel / kernel.norm() + noise * normal(6, 5, 3, 3, seed=100) / 270**0.5
    fit = cp_nls(kernel, 4)
    corrected = cp_epc(kernel, fit, 1.01 * fit.error, max_iter=20)
    assert corrected.error <= 1.01 * fit.error
    assert energy(corrected.factors) <= energy(fit.factors) * (1 + 1e-12)


def test_one_percent_of_room_takes_most_of_the_term_energy(kernel: Tensor, fit: CPResult) -> None:
    corrected = cp_epc(kernel, fit, 1.01 * fit.error)
    assert corrected.degeneracy.term_energy < fit.degeneracy.term_energy / 3


def test_scale_of_the_kernel_does_not_matter(kernel: Tensor, fit: CPResult) -> None:
    factors = [1e-3 * factor for factor in fit.factors]
    corrected = cp_epc(1e-12 * kernel, factors, 1.01 * fit.error, max_iter=20)
    assert corrected.error <= 1.01 * fit.error
    assert corrected.degeneracy.term_energy < fit.degeneracy.term_energy


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 2, 2), (5, 1, 3, 3)])
def test_exact_decompositions_stay_exact(shape: tuple[int, ...]) -> None:
    tensor = normal(*shape)
    exact = cp_nls(tensor, 12)
    torch.testing.assert_close(cp_tensor(cp_epc(tensor, exact, 1.01 * exact.error).factors), tensor)


@pytest.mark.parametrize("bound", [-0.1, 1.0, float("nan")])
def test_bound_must_be_a_relative_error(kernel: Tensor, fit: CPResult, bound: float) -> None:
    with pytest.raises(InvalidInput, match="error_bound"):
        cp_epc(kernel, fit, bound)


def test_bound_below_the_error_of_the_start_is_refused(kernel: Tensor, fit: CPResult) -> None:
    with pytest.raises(InvalidInput, match="below"):
        cp_epc(kernel, fit, 0.9 * fit.error)
