"""Which models no other beats in both speed and accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence

DENSE = (1.0, 0.0)
"""Speedup and loss of the dense control, by definition; what is slower and less accurate than that is no choice."""


def pareto_front(speedups: Sequence[float], losses: Sequence[float]) -> list[bool]:
    """Tell for each model whether neither another one nor the dense control is as good in both and better in one.

    A model without speedup or loss (NaN) is on no front.
    """
    points = [*zip(speedups, losses, strict=True)]
    known = [DENSE, *(point for point in points if not any(map(math.isnan, point)))]
    return [
        not any(map(math.isnan, point))
        and not any(s >= point[0] and loss <= point[1] and (s, loss) != point for s, loss in known)
        for point in points
    ]
