"""What a user gains who is free to choose the runtime, and which runtimes may carry a headline."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

HEADLINE_MARGIN = 0.2
"""By how much the dense model may be slower in a runtime that carries a headline than in its fastest one."""
BOUNDS = ["practical", "practical_low", "practical_high"]


def with_practical(rows: pd.DataFrame, setting: Sequence[str], model: Sequence[str]) -> pd.DataFrame:
    """The rows with their columns ``practical``, ``practical_low``, ``practical_high``, ``practical_runtime`` and
    ``headline`` filled in.

    ``practical``: the dense model's time in its fastest runtime in float32 over the compressed model's in its own
    fastest one of the row's arithmetic, at the same threads and batch; so in runtimes of fewer bits the dense control
    shows what the bits alone would bring. The dense model's time in a runtime is the geometric mean over the rows, the
    compressed model's is that over its speedup there, which was measured in pairs. Its 95 % interval joins, on
    logarithms, those of the speedup and of both means (t-intervals; NaN where the runtimes differ and one of them has a
    single row). ``practical_runtime`` is the one in which the compressed model is fastest. All are the same in every
    row of a model and arithmetic, and NaN, or empty, where nothing was timed in float32.
    ``headline``: the dense model's time in the row's runtime is within 20 % of that in its fastest one of this
    arithmetic, so that the speedup is not owed to a slow dense side. ``setting``: the columns that rows to be compared
    share; ``model``: those that tell models apart.
    """
    rows = rows.assign(**dict.fromkeys(BOUNDS, float("nan")), practical_runtime="", headline=False)
    timed = rows[rows["speedup"].notna()]
    for _, group in timed.groupby(list(setting)):
        dense = _dense_times(group)
        fastest = dense.groupby("arithmetic")["log_ms"].transform("min")
        fit = dense["log_ms"] <= fastest + np.log1p(HEADLINE_MARGIN)
        rows.loc[group.index, "headline"] = group["runtime"].map(fit)
        floats = dense[dense["arithmetic"] == "float32"]
        if floats.empty:
            continue
        free = _free_choice(group, dense, str(floats["log_ms"].idxmin()))
        same = [group[name] for name in [*model, "arithmetic"]]
        best = free["practical"].groupby(same).transform("idxmax")
        rows.loc[group.index, BOUNDS] = free.loc[best, BOUNDS].to_numpy()
        rows.loc[group.index, "practical_runtime"] = group.loc[best, "runtime"].to_numpy()
    return rows


def _dense_times(group: pd.DataFrame) -> pd.DataFrame:
    """By runtime: its arithmetic, the mean logarithm of the dense model's ms over the rows, its interval's half."""
    from scipy.special import stdtrit

    logs = np.log(group["dense_ms"]).groupby(group["runtime"])
    quantile = stdtrit((logs.count() - 1).clip(lower=1), 0.975)
    return pd.DataFrame(
        {
            "arithmetic": group.groupby("runtime")["arithmetic"].first(),
            "log_ms": logs.mean(),
            "half": quantile * logs.sem(),
        }
    )


def _free_choice(group: pd.DataFrame, dense: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Each row's speedup over the dense model in the reference runtime, with its interval."""
    log_ms, half_ms = dict(dense["log_ms"]), dict(dense["half"])
    halves = {name: 0.0 if name == reference else math.hypot(half_ms[reference], half_ms[name]) for name in half_ms}
    factors = {name: math.exp(log_ms[reference] - log_ms[name]) for name in log_ms}
    own = np.log(group["speedup_high"].to_numpy() / group["speedup_low"].to_numpy()) / 2
    half = np.exp(np.hypot(group["runtime"].map(halves).to_numpy(), own))
    ratio = group["speedup"].to_numpy() * group["runtime"].map(factors).to_numpy()
    return pd.DataFrame(dict(zip(BOUNDS, (ratio, ratio / half, ratio * half), strict=True)), index=group.index)
