"""Ranks worth trying, and which pairs of them can be filled together."""

from __future__ import annotations

import math


def grid(full: int) -> list[int]:
    """Candidate ranks from 1 to ``full``, both included: every rank up to 50, then in steps of 2 %, so that a budget
    can be met closely.
    """
    ranks = [1]
    while ranks[-1] < full:
        ranks.append(min(full, max(ranks[-1] + 1, math.ceil(1.02 * ranks[-1]))))
    return ranks


def grid_of_pairs(full_out: int, full_in: int) -> list[tuple[int, int]]:
    """Candidate pairs (R_out, R_in) in the proportion of the full ranks, as ``grid`` has them for the larger one."""
    largest = max(full_out, full_in)
    return [(max(1, round(r * full_out / largest)), max(1, round(r * full_in / largest))) for r in grid(largest)]


def fillable_pair(ranks: tuple[int, int], taps: int) -> tuple[int, int]:
    """The ranks up to (R_out, R_in) that a core R_in -> R_out of so many ``taps`` can fill: R_out maps need R_in times
    the taps of inputs, and the other way round.
    """
    out, inputs = ranks
    return min(out, inputs * taps), min(inputs, out * taps)
