"""Rank rules: from what a user writes (a number, a tuple, "full", "evbmf", "energy:0.9") to the ranks of one layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import index
from typing import Any

import torch
from torch import Tensor

from lowrank_bench.compression.chain import KernelShape
from lowrank_bench.compression.factoring import LayerFactoring
from lowrank_bench.decomposition.matrix import kept_by_energy
from lowrank_bench.decomposition.vbmf import evbmf
from lowrank_bench.errors import InvalidRanks
from lowrank_bench.trial import Ranks

RULES = '"full", "evbmf" or "energy:SHARE" such as "energy:0.9"'


def resolve_ranks(
    method: LayerFactoring, weight: Tensor, groups: int, rule: Ranks, place: str
) -> tuple[int, ...] | None:
    """Ranks for a kernel (T, S / groups, dh, dw); None where the rule finds nothing but noise (EVBMF rank 0), so that
    the layer stays dense.

    Raises InvalidRanks, naming ``place``, for an unknown rule, ranks out of range and what is no rank.
    """
    shape = KernelShape(weight.shape[0] // groups, *weight.shape[1:])
    if isinstance(rule, str):
        ranks = _by_rule(method, shape, weight.detach().double().chunk(groups), rule, place)
    else:
        numbers = _whole_numbers(rule, place)
        ranks = numbers if isinstance(numbers, tuple) else method.spread(shape, numbers)
    if ranks is not None:
        method.check_ranks(shape, ranks, place)
    return ranks


def energy_rank(matrix: Tensor, share: float) -> int:
    """Smallest rank, at least 1, that keeps ``share`` of the energy, the sum of squared singular values (TRP, Xu et al.
    2020).
    """
    return max(1, int(kept_by_energy(torch.linalg.svdvals(matrix), share).sum()))


def _whole_numbers(given: Any, place: str) -> int | tuple[int, ...]:
    """One rank or several, numpy's too, as Python's own."""
    try:
        return tuple(map(_whole_number, given)) if isinstance(given, Iterable) else _whole_number(given)
    except TypeError:
        raise InvalidRanks(f"{place}: ranks {given!r}: a whole number, a tuple of them, {RULES} is wanted") from None


def _whole_number(given: Any) -> int:
    if isinstance(given, bool):
        raise TypeError
    return index(given)


def _by_rule(
    method: LayerFactoring, shape: KernelShape, parts: tuple[Tensor, ...], rule: str, place: str
) -> tuple[int, ...] | None:
    full = tuple(method.candidates(shape)[-1])
    if rule == "full":
        return full
    rank_of = rank_rule(rule, place)
    unfolded = [method.unfoldings(part) for part in parts]
    if not unfolded[0]:
        raise InvalidRanks(
            f"{place}: {method.name} has no unfolding from which {rule!r} could read its ranks: give numbers or a "
            "budget"
        )
    per_group = [
        [limit if matrix is None else rank_of(matrix) for matrix, limit in zip(matrices, full, strict=True)]
        for matrices in unfolded
    ]
    ranks = tuple(min(max(column), limit) for column, limit in zip(zip(*per_group, strict=True), full, strict=True))
    return None if 0 in ranks else method.feasible(shape, ranks)


def rank_rule(rule: str, place: str) -> Callable[[Tensor], int]:
    """How a rule other than "full" reads the rank of a matrix. Raises InvalidRanks, naming ``place``, where there is no
    such rule.
    """
    if rule == "evbmf":
        return lambda matrix: evbmf(matrix).rank
    kind, _, value = rule.partition(":")
    try:
        share = float(value)
    except ValueError:
        share = 0.0
    if kind != "energy" or not 0 < share <= 1:
        raise InvalidRanks(f"{place}: unknown rank rule {rule!r}: give numbers, {RULES}")
    return lambda matrix: energy_rank(matrix, share)
