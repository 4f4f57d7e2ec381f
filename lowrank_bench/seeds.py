"""Which seeds there are: those that numpy and scikit-learn take as well as torch."""

from __future__ import annotations

from numbers import Integral
from typing import Annotated

from pydantic import Field

from lowrank_bench.errors import InvalidInput

SEEDS = 2**32
"""There are so many, from 0 on."""

Seed = Annotated[int, Field(strict=True, ge=0, lt=SEEDS)]


def check_seed(seed: int, place: str = "seed") -> None:
    """Raise InvalidInput, naming ``place``, unless a seed is a whole number from 0 to 2^32 - 1."""
    if not (isinstance(seed, Integral) and not isinstance(seed, bool) and 0 <= seed < SEEDS):
        raise InvalidInput(f"{place} {seed!r}: a whole number from 0 to {SEEDS - 1} is wanted")
