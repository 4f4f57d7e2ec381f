"""Scheme 1 of Jaderberg et al. 2014: separable basis filters for each input channel, mixed by a 1x1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lowrank_bench.decomposition.balance import balance_terms
from lowrank_bench.decomposition.matrix import (
    TINY,
    as_float64,
    check_rank,
    power_of_two,
    relative_error,
    truncated_svd,
)


class SeparableBasis(NamedTuple):
    """Depthwise vertical and horizontal kernels, the 1x1 that mixes them, and the relative error of the product.

    `history` is the relative error after each iteration of the last, pure least squares, stage.
    """

    vertical: Tensor
    horizontal: Tensor
    mixing: Tensor
    error: float
    history: list[float]


def separable_basis(
    kernel: Tensor, bases: int, *, anneal: int = 30, max_iter: int = 100, tol: float = 1e-5
) -> SeparableBasis:
    """Every input channel gets M = `bases` rank-1 filters: W_n^c ~ sum_m a_n^cm v_m^c (h_m^c)^T.

    kernel (T, S, dh, dw) -> vertical (S M, 1, dh, 1), horizontal (S M, 1, 1, dw) and mixing (T, S M, 1, 1), M at most
    dh dw, where the delta basis is exact. As in the paper, least squares for the mixing alternate with proximal steps
    on the nuclear norm of the filters, whose weight grows in `anneal` steps until they have rank 1. Least squares for
    one factor after another follow, at most `max_iter` times or until a round lowers the relative error by less than
    `tol`. Raises InvalidRanks and InvalidWeights.
    """
    kernel = as_float64(kernel, axes=4)
    scale = power_of_two(kernel, roots=3)  # squares of entries beyond 1e150, or below 1e-150, leave float64
    kernel = kernel / scale
    t, s, dh, dw = kernel.shape
    check_rank("bases", bases, dh * dw)
    slices = kernel.transpose(0, 1).reshape(s, t, dh * dw)
    history: list[float] = []
    if bases == dh * dw:
        vertical = torch.eye(dh).to(kernel).repeat_interleave(dw, dim=1).repeat(s, 1, 1)
        horizontal = torch.eye(dw).to(kernel).repeat(s, 1, dh)
        mixing = slices
    elif kernel.is_meta:
        vertical, horizontal = kernel.new_empty(s, dh, bases), kernel.new_empty(s, dw, bases)
        mixing = kernel.new_empty(s, t, bases)
    else:
        # To the filters only the row space of a channel's T x d^2 slice matters: its triangular factor is enough.
        target = torch.linalg.qr(slices / slices.abs().max().clamp_min(TINY)).R.unflatten(-1, (dh, dw))
        vertical, horizontal, history = _refine(target, *_anneal(target, bases, anneal), max_iter, tol)
        mixing = _mixing(slices, _filters(vertical, horizontal).flatten(2))
    mixing, vertical, horizontal = balance_terms([mixing, vertical, horizontal])
    error = relative_error(mixing @ _filters(vertical, horizontal).flatten(2), slices)
    share = scale ** (1 / 3)
    return SeparableBasis(
        share * vertical.mT.reshape(s * bases, 1, dh, 1),
        share * horizontal.mT.reshape(s * bases, 1, 1, dw),
        share * mixing.transpose(0, 1).reshape(t, s * bases, 1, 1),
        error,
        history,
    )


def per_channel_losses(kernel: Tensor, filters: Sequence[int]) -> list[float]:
    """Squared relative error of a kernel (T, S, dh, dw) for each number of filters per input channel, at the optimum:
    what the SVDs of the channels' (T, dh dw) matrices cut off. Filters that are separable as well lose no less.
    """
    squares = torch.linalg.svdvals(kernel.transpose(0, 1).flatten(2)).square().sum(0)
    kept = squares.cumsum(0) / squares.sum().clamp(min=TINY)
    return [max(0.0, 1 - float(kept[min(count, len(kept)) - 1])) for count in filters]


def singular_value_threshold(matrix: Tensor, threshold: Tensor) -> Tensor:
    """U (S - threshold)_+ V^T, the proximal map of threshold ||.||_*; thresholds (..., 1) for a batch."""
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    shrunk: Tensor = (u * (s - threshold).clamp_min(0).unsqueeze(-2)) @ vh
    return shrunk


def _anneal(target: Tensor, bases: int, steps: int) -> tuple[Tensor, Tensor]:
    """Vertical (S, dh, M) and horizontal (S, dw, M) unit filters for target (S, n, dh, dw)."""
    shape = target.shape[-2:]
    filters = torch.linalg.svd(target.flatten(2), full_matrices=True).Vh[:, :bases].unflatten(-1, shape)
    for weight in (step / steps for step in range(steps)):
        mixing = _mixing(target.flatten(2), filters.flatten(2))
        lipschitz = torch.linalg.matrix_norm(mixing, 2).square().clamp_min(TINY)[:, None, None]
        gradient = mixing.mT @ (mixing @ filters.flatten(2) - target.flatten(2))
        step = (filters.flatten(2) - gradient / lipschitz).unflatten(-1, shape)
        # Relative to a filter's spectral norm: one weight for all erases weak filters before strong ones have rank 1.
        filters = singular_value_threshold(step, weight * torch.linalg.matrix_norm(step, 2).unsqueeze(-1))
    u, _, vh = truncated_svd(filters, 1)
    return u.squeeze(-1).mT, vh.squeeze(-2).mT


def _refine(
    target: Tensor, vertical: Tensor, horizontal: Tensor, max_iter: int, tol: float
) -> tuple[Tensor, Tensor, list[float]]:
    """Alternating least squares over mixing, vertical and horizontal filters, for all channels at once."""
    mixing = _mixing(target.flatten(2), _filters(vertical, horizontal).flatten(2))
    history: list[float] = []
    while len(history) < max_iter:
        mixing, vertical, horizontal = balance_terms([mixing, vertical, horizontal])
        vertical = _solve(torch.einsum("snij,snm,sjm->sim", target, mixing, horizontal), mixing, horizontal, vertical)
        horizontal = _solve(torch.einsum("snij,snm,sim->sjm", target, mixing, vertical), mixing, vertical, horizontal)
        filters = _filters(vertical, horizontal)
        mixing = _solve(torch.einsum("snij,smij->snm", target, filters), vertical, horizontal, mixing)
        history.append(relative_error(torch.einsum("snm,smij->snij", mixing, filters), target))
        if len(history) > 1 and history[-2] - history[-1] < tol:
            break
    return vertical, horizontal, history


def _solve(mttkrp: Tensor, one: Tensor, other: Tensor, old: Tensor) -> Tensor:
    """Least squares for one mode; the tiny proximal term makes singular systems solvable and never raises the error."""
    gram = (one.mT @ one) * (other.mT @ other)
    damping = 1e-12 * gram.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None] + TINY
    damped = gram + damping * torch.eye(gram.shape[-1]).to(gram)
    factor: Tensor = torch.linalg.solve(damped, mttkrp + damping * old, left=False)
    return factor


def _mixing(slices: Tensor, filters: Tensor) -> Tensor:
    inverse: Tensor = torch.linalg.pinv(filters)
    return slices @ inverse


def _filters(vertical: Tensor, horizontal: Tensor) -> Tensor:
    """(S, M, dh, dw)."""
    return vertical.mT.unsqueeze(-1) * horizontal.mT.unsqueeze(-2)
