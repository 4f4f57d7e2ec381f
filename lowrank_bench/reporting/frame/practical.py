"""What a user gains who is free to choose the runtime."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lowrank_bench.reporting.frame.dense_times import REFERENCE

BOUNDS = ["practical", "practical_low", "practical_high"]


def with_practical(rows: pd.DataFrame, setting: Sequence[str], model: Sequence[str]) -> pd.DataFrame:
    """The rows with their columns ``practical``, ``practical_low``, ``practical_high`` and ``practical_runtime`` filled
    in.

    ``practical``: the dense model's time in its fastest runtime in float32 over the compressed model's in its own
    fastest one of the row's arithmetic, at the same threads and batch; so in runtimes of fewer bits the dense control
    shows what the bits alone would bring. It is the speedup, which was measured in pairs, times ``reference``, the
    dense model's times in the two runtimes; its 95 % interval joins those of both on logarithms.
    ``practical_runtime`` is the one in which the compressed model is fastest: the lower end of that interval is the
    largest, where any is known. All are the same in every row of a model and arithmetic, and NaN, or empty, where
    nothing was timed in float32. ``setting``: the columns that rows to be compared share; ``model``: those that tell
    models apart.
    """
    rows = rows.assign(**dict.fromkeys(BOUNDS, float("nan")), practical_runtime="")
    timed = rows[rows["speedup"].notna() & rows["reference"].notna()]
    free = _free_choice(timed)
    ordered = free.sort_values(["practical_low", "practical"], na_position="first", kind="stable").index.to_series()
    best = ordered.groupby([timed[name] for name in [*setting, *model, "arithmetic"]]).transform("last")[timed.index]
    rows.loc[timed.index, BOUNDS] = free.loc[best, BOUNDS].to_numpy()
    rows.loc[timed.index, "practical_runtime"] = timed.loc[best, "runtime"].to_numpy()
    return rows


def _free_choice(rows: pd.DataFrame) -> pd.DataFrame:
    """Each row's speedup over the dense model in its fastest runtime, with its interval."""
    ratio, low, high = (rows[name].to_numpy("float64") for name in ("speedup", "speedup_low", "speedup_high"))
    reference, least, most = (rows[name].to_numpy("float64") for name in REFERENCE)
    practical = ratio * reference
    half = np.exp(np.hypot(np.log(high / low), np.log(most / least)) / 2)
    return pd.DataFrame(dict(zip(BOUNDS, (practical, practical / half, practical * half), strict=True)), rows.index)
