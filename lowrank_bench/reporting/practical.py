"""What a user gains who is free to choose the runtime, and which runtimes may carry a headline."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

HEADLINE_MARGIN = 0.2
"""By how much the dense model may be slower in a runtime that carries a headline than in its fastest one."""


def with_practical(rows: pd.DataFrame, setting: Sequence[str], model: Sequence[str]) -> pd.DataFrame:
    """The rows with their columns ``practical`` and ``headline`` filled in.

    ``practical``: the dense model's time in its fastest runtime over the compressed model's in its own fastest one, at
    the same threads and batch; a ratio of medians of different processes, so without an interval, and the same in every
    row of a model. ``headline``: the dense model's time in the row's runtime is within 20 % of that in its fastest one,
    so that the speedup is not owed to a slow dense side. The dense model's time in a runtime is the median over the
    rows. ``setting``: the columns that rows to be compared share; ``model``: those that tell compressed models apart.
    """
    rows = rows.assign(practical=float("nan"), headline=False)
    timed = rows[rows["speedup"].notna()]
    for _, group in timed.groupby(list(setting)):
        dense = group.groupby("runtime")["dense_ms"].median()
        fastest = dense.min()
        rows.loc[group.index, "headline"] = group["runtime"].map(dense <= (1 + HEADLINE_MARGIN) * fastest)
        rows.loc[group.index, "practical"] = fastest / group.groupby(list(model))["compressed_ms"].transform("min")
    return rows
