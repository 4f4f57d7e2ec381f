"""EVBMF: ranks planted under noise, the exact threshold and the global minimum of the free energy."""

import math

import pytest
import torch

from lowrank_bench.decomposition.vbmf import critical_tau, evbmf
from lowrank_bench.errors import InvalidInput, InvalidWeights


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def planted(rows, columns, rank, sigma=0.1, seed=0):
    return normal(rows, rank, seed=seed) @ normal(rank, columns, seed=seed + 1) + sigma * normal(
        rows, columns, seed=seed + 2
    )


def spectrum(values, columns):
    """A matrix of the given singular values."""
    rows = len(values)
    u, v = torch.linalg.qr(normal(rows, rows)).Q, torch.linalg.qr(normal(columns, rows, seed=1)).Q
    return (u * torch.as_tensor(values, dtype=torch.float64)) @ v.T


@pytest.mark.parametrize(("rows", "columns", "rank"), [(60, 200, 5), (64, 576, 10), (100, 900, 1)])
@pytest.mark.parametrize("seed", [0, 10])
def test_planted_rank_and_noise_are_found(rows, columns, rank, seed):
    noise = 0.1 * normal(rows, columns, seed=seed + 2)
    result = evbmf(planted(rows, columns, rank, sigma=0, seed=seed) + noise)
    assert result.rank == rank
    assert math.sqrt(result.variance) == pytest.approx(float(noise.std()), rel=0.01)


def test_planted_rank_of_a_square_matrix_is_found():
    assert evbmf(planted(40, 40, 3)).rank == 3


@pytest.mark.parametrize("shape", [(100, 900), (64, 64), (1, 30)])
def test_noise_alone_has_rank_zero(shape):
    result = evbmf(normal(*shape))
    assert result.rank == 0 and result.u.shape == (shape[0], 0) and result.s.shape == (0,)


def test_without_noise_the_rank_is_that_of_the_matrix():
    assert evbmf(planted(60, 200, 5, sigma=0)).rank == 5


@pytest.mark.parametrize("noise", [1e-7, 1e-8, 1e-10, 1e-12])
def test_noise_far_below_the_signal_does_not_decide_the_rank_by_rounding(noise):
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        left, right, rest = (
            torch.randn(*shape, dtype=torch.float64, generator=generator) for shape in ((64, 10), (10, 576), (64, 576))
        )
        assert evbmf(left @ right / 10**0.5 + noise * rest).rank == 10


@pytest.mark.parametrize("factor", [1e-30, 7e5])
def test_scaling_leaves_the_rank(factor):
    matrix = planted(60, 200, 5)
    plain, scaled = evbmf(matrix), evbmf(factor * matrix)
    assert scaled.rank == plain.rank
    assert scaled.variance == pytest.approx(factor**2 * plain.variance, rel=1e-5)
    torch.testing.assert_close(scaled.s, factor * plain.s, rtol=1e-5, atol=0)


def test_transposing_swaps_the_factors():
    matrix = planted(60, 200, 5)
    plain, transposed = evbmf(matrix), evbmf(matrix.T)
    assert transposed.rank == plain.rank
    torch.testing.assert_close((transposed.u * transposed.s) @ transposed.v.T, ((plain.u * plain.s) @ plain.v.T).T)


@pytest.mark.parametrize("alpha", [1, 0.5, 0.1, 0.02, 1e-4])
def test_tau_is_the_root_and_the_usual_approximation_is_not(alpha):
    tau = critical_tau(alpha)
    assert math.log1p(tau) / tau + math.log1p(tau / alpha) / (tau / alpha) == pytest.approx(1, abs=1e-12)
    approximation = 2.5129 * math.sqrt(alpha)
    assert tau == pytest.approx(approximation, abs=1e-4) if alpha == 1 else tau > approximation + 1e-3


def test_exact_tau_in_two_known_cases():
    assert critical_tau(0.1) == pytest.approx(0.8222, abs=5e-5)
    assert critical_tau(0.02) == pytest.approx(0.3888, abs=5e-5)


@pytest.mark.parametrize(("rows", "columns"), [(40, 40), (60, 200), (64, 576)])
def test_threshold_lies_above_the_noise_and_decides_what_is_kept(rows, columns):
    threshold = evbmf(normal(rows, columns), variance=0.3).threshold
    edge = math.sqrt(0.3) * (
        math.sqrt(rows) + math.sqrt(columns)
    )  # Marchenko and Pastur: the largest singular value of noise
    assert edge < threshold < 1.15 * edge
    values = threshold * torch.linspace(1.5, 0.5, rows, dtype=torch.float64)
    result = evbmf(spectrum(values, columns), variance=0.3)
    assert result.rank == int((values > threshold).sum())


def test_kept_values_shrink_and_do_not_without_noise():
    matrix = planted(60, 200, 5)
    values = torch.linalg.svdvals(matrix)[:5]
    result = evbmf(matrix)
    assert (result.s > 0).all() and (result.s < values).all()
    torch.testing.assert_close(evbmf(matrix, variance=0).s[:5], values)


@pytest.mark.parametrize("decay", [0.6, 0.9, 0.95])
def test_the_variance_is_the_global_minimum_of_the_free_energy(decay):
    rows, columns = 48, 300
    values = decay ** torch.arange(rows, dtype=torch.float64) + 0.02
    result = evbmf(spectrum(values, columns))
    tau = critical_tau(rows / columns)

    def free_energy(variances):
        """Nakajima et al. 2013, theorem 9, of (number,) variances."""
        alpha = rows / columns
        x = values.square() / (columns * variances[:, None])
        kept = x > (1 + tau) * (1 + alpha / tau)
        middle = torch.where(kept, x - 1 - alpha, 2.0)
        t = (middle + (middle.square() - 4 * alpha).sqrt()) / 2
        gain = torch.log1p(t) + alpha * torch.log1p(t / alpha) - t
        return (x - x.log() + torch.where(kept, gain, 0.0)).sum(1)

    energies = free_energy(torch.logspace(-12, 2, 40_000, dtype=torch.float64))
    assert 0 < energies.argmin() < len(energies) - 1
    assert free_energy(torch.tensor([result.variance]).double()) <= energies.min() + 1e-6


def test_zero_matrices_and_bad_input():
    with pytest.raises(InvalidWeights, match="real numbers along 2 axes are wanted"):
        evbmf(torch.zeros(4, 4, 3, 3))
    zero = evbmf(torch.zeros(5, 9))
    assert (zero.rank, zero.variance) == (0, 0)
    with pytest.raises(InvalidWeights):
        evbmf(torch.full((3, 4), torch.nan))
    for variance in (-1.0, math.nan, math.inf):
        with pytest.raises(InvalidInput, match="variance"):
            evbmf(normal(3, 4), variance=variance)
