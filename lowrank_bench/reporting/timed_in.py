"""Among which runtimes a model's fastest one was chosen: it counts only as far as others were timed."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pandas as pd

from lowrank_bench.reporting.board import Row
from lowrank_bench.reporting.columns import WHAT, What, what_of

Timed = Mapping[What, Collection[str]]
"""Of every model, by method, options and target, the runtimes in which it was timed."""


def timed_in(rows: pd.DataFrame) -> Timed:
    """Of the models of these rows."""
    return {
        (str(method), str(options), str(target)): sorted(set(some["runtime"]))
        for (method, options, target), some in rows.groupby(WHAT)
    }


def fastest_of(runtimes: Collection[str]) -> str:
    """Such as ``fastest of: onnxruntime, openvino``, or ``onnxruntime only``."""
    names = sorted(set(runtimes))
    return f"fastest of: {', '.join(names)}" if len(names) > 1 else f"{', '.join(names)} only"


def chosen_text(row: Row, timed: Timed, most: int) -> str:
    """The row's runtime, and of how many it was chosen where these are fewer than ``most``."""
    count = len(timed[what_of(row)])
    if count >= most:
        return str(row.runtime)
    return f"{row.runtime} only" if count == 1 else f"{row.runtime} of {count}"
