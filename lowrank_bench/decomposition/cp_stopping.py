"""When an iterative CP algorithm ends."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from lowrank_bench.errors import InvalidInput

FLOOR = 1e-15
"""Relative error that float64 cannot improve on."""


@dataclass(frozen=True)
class Stopping:
    """Iterations, least relative gain of one of them, and a point of `time.monotonic`."""

    max_iter: int
    tol: float
    deadline: float = math.inf

    @classmethod
    def after(cls, max_iter: int, tol: float, max_seconds: float | None) -> Stopping:
        """Limits of a run that starts now. Raises InvalidInput."""
        if max_iter < 1:
            raise InvalidInput(f"max_iter is {max_iter}: at least one iteration is needed")
        if not 0 <= tol < 1:
            raise InvalidInput(
                f"tol is {tol}: the least relative gain of an iteration is between 0 and 1, such as 1e-8"
            )
        if max_seconds is not None and not max_seconds > 0:
            raise InvalidInput(f"max_seconds is {max_seconds}: give a positive time, or None for no limit")
        return cls(max_iter, tol, math.inf if max_seconds is None else time.monotonic() + max_seconds)

    def reached(self, history: list[float]) -> bool:
        """Whether errors, the start's first, are at rounding, stalled, at the iteration limit or out of time."""
        stalled = len(history) > 1 and history[-2] - history[-1] <= self.tol * history[-2]
        return stalled or history[-1] < FLOOR or len(history) > self.max_iter or self.out_of_time()

    def out_of_time(self) -> bool:
        """Whether the deadline has passed."""
        return time.monotonic() > self.deadline
