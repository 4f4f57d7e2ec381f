"""Draws of a known covariance become white, and what cannot be told from few draws stays as it is."""

from __future__ import annotations

import pytest
import torch

from lowrank_bench.decomposition.shrinkage import shrinkage
from lowrank_bench.decomposition.whitening import Whitening


def _draws(count: int, *roots: torch.Tensor) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(count, *(len(root) for root in roots), dtype=torch.float64, generator=generator)
    return list(torch.einsum("nijk,ai,bj,ck->nabc", noise, *roots))


def _root(size: int, decades: float, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=generator)).Q
    return turn * torch.logspace(0, -decades, size, dtype=torch.float64)


def test_draws_of_a_kronecker_covariance_become_white() -> None:
    roots = _root(5, 1.0, 1), 3 * _root(4, 0.5, 2), _root(1, 0, 3)
    space = Whitening(_draws(2000, *roots))
    white = torch.stack([space.undo(draw) for draw in _draws(2000, *roots)]).flatten(1)
    covariance = white.T @ white / len(white)
    assert torch.linalg.eigvalsh(covariance).min() > 0.6
    assert torch.linalg.eigvalsh(covariance).max() < 1.5


def test_coordinates_lead_back() -> None:
    space = Whitening(_draws(3, _root(5, 2.0, 1), _root(4, 1.0, 2), _root(2, 0.3, 3)))
    tensor = torch.randn(5, 4, 2, dtype=torch.float64)
    torch.testing.assert_close(space.undo(space.apply(tensor)), tensor)
    torch.testing.assert_close(space.apply(space.undo(tensor)), tensor)


def test_one_draw_does_not_stretch_one_direction_over_all_others() -> None:
    lengths = torch.linalg.svdvals(_matrix(Whitening(_draws(1, _root(6, 0, 1), _root(1, 0, 2), _root(1, 0, 3)))))
    assert lengths.max() / lengths.min() < 3


def test_draws_that_are_zero_leave_a_tensor_as_it_is() -> None:
    space = Whitening([torch.zeros(3, 2, dtype=torch.float64)] * 2)
    tensor = torch.randn(3, 2, dtype=torch.float64)
    assert torch.equal(space.apply(tensor), tensor)


@pytest.mark.parametrize(("count", "least", "most"), [(4, 0.5, 1.0), (100_000, 0.0, 0.01)])
def test_few_samples_are_shrunk_and_many_are_not(count: int, least: float, most: float) -> None:
    samples = torch.randn(count, 8, dtype=torch.float64) * torch.logspace(0, -0.5, 8, dtype=torch.float64)
    share, unit = shrinkage(samples.T @ samples / count, count)
    assert least <= float(share) <= most
    assert torch.equal(unit, unit[0, 0] * torch.eye(8, dtype=torch.float64))


def _matrix(space: Whitening) -> torch.Tensor:
    return torch.stack([space.apply(unit[:, None, None]).flatten() for unit in torch.eye(6, dtype=torch.float64)])
