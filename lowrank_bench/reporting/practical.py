"""What a user gains who is free to choose the runtime, and which runtimes may carry a headline."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

HEADLINE_MARGIN = 0.2
"""By how much the dense model may be slower in a runtime that carries a headline than in its fastest one."""


def with_practical(rows: pd.DataFrame, setting: Sequence[str], model: Sequence[str]) -> pd.DataFrame:
    """The rows with their columns ``practical`` and ``headline`` filled in.

    ``practical``: the dense model's time in its fastest runtime in float32 over the compressed model's in its own
    fastest one of the row's arithmetic, at the same threads and batch; so in runtimes of fewer bits the dense control
    shows what the bits alone would bring. The dense model's time in a runtime is the median over the rows, the
    compressed model's is that over its speedup there, which was measured in pairs. It is the same in every row of a
    model and arithmetic, and NaN where nothing was timed in float32. ``headline``: the dense model's time in the row's
    runtime is within 20 % of that in its fastest one of this arithmetic, so that the speedup is not owed to a slow
    dense side. ``setting``: the columns that rows to be compared share; ``model``: those that tell models apart.
    """
    rows = rows.assign(practical=float("nan"), headline=False)
    timed = rows[rows["speedup"].notna()]
    for _, group in timed.groupby(list(setting)):
        dense = group.groupby("runtime")["dense_ms"].median()
        arithmetic = group.groupby("runtime")["arithmetic"].first()
        fastest = dense.groupby(arithmetic).transform("min")
        rows.loc[group.index, "headline"] = group["runtime"].map(dense <= (1 + HEADLINE_MARGIN) * fastest)
        free = group["speedup"] * group["runtime"].map(dense[arithmetic == "float32"].min() / dense)
        rows.loc[group.index, "practical"] = free.groupby([group[name] for name in [*model, "arithmetic"]]).transform(
            "max"
        )
    return rows
