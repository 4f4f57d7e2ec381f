"""How fast the dense model is in each runtime: one estimate for all that is said of it, from timings of many hours."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

SESSION_HOURS = 1.0
"""Timings that ended within so many hours of the first of them found the machine in one state."""
HEADLINE_MARGIN = 0.2
"""By how much the dense model may be slower in a runtime that carries a headline than in its fastest one."""
REFERENCE = ["reference", "reference_low", "reference_high"]
DENSE = ["runtime_dense_ms", *REFERENCE, "headline"]

ROWS_COUNT = 3
"""As how many degrees of freedom, at most, the scatter of rows within a runtime and session counts for that between."""

_WORKLOAD = ["task", "model", "machine", "threads", "batch"]
_HAIR = 1e-6  # of ridge: of session effects that fit alike, the smallest


def with_dense_times(rows: pd.DataFrame) -> pd.DataFrame:
    """Single timings with their columns ``DENSE`` filled in; they are the same in all rows of a network, machine,
    runtime, threads and batch, whatever the recipe, method and seed: these do not change the dense model's time.

    ``runtime_dense_ms``: the dense model's ms in the row's runtime, in a session of average pace. ``reference``: its
    time in its fastest runtime in float32 over that, with a 95 % interval; NaN where nothing was timed in float32.
    ``headline``: it is within 20 % of that in its fastest runtime of this arithmetic.

    Every row holds a time of the dense model. Its logarithm is taken to be the sum of what the runtime adds, what the
    session adds, in all runtimes alike, and scatter. So runtimes are compared by rows of one session, directly or
    through a third runtime, and a session in which the machine was slower counts neither for nor against those that
    were timed in it. Rows of one runtime and session share what moved the machine meanwhile: together they count as
    one, their mean. The means' scatter is that about the sum, where sessions share runtimes, taken together with that
    of single rows about their mean, which counts as three degrees of freedom at most (t-interval). Where no session
    joins two runtimes, sessions are taken to be alike on average, and their own spread widens the interval; it is NaN
    where no spread is known.
    """
    rows = rows.copy()
    for _, group in rows.groupby(_WORKLOAD):
        rows.loc[group.index, DENSE] = _dense_times(group).reindex(group["runtime"]).to_numpy()
    return rows.astype({"headline": bool})


def _dense_times(group: pd.DataFrame) -> pd.DataFrame:
    """By runtime: the columns ``DENSE``."""
    logs = np.log(group["dense_ms"]).groupby([group["runtime"], sessions(group["finished"])])
    cells = logs.mean()
    names = cells.index.unique(0)
    of_runtime, of_session = (_indicators(cells.index.get_level_values(level)) for level in (0, 1))
    mean = np.linalg.pinv(of_runtime)
    within = of_session - of_runtime @ mean @ of_session
    square = within.T @ within
    joined = int(np.linalg.matrix_rank(square, tol=_HAIR, hermitian=True))
    to_sessions = np.linalg.solve(square + _HAIR * np.eye(len(square)), within.T)
    to_runtimes = mean @ (np.eye(len(cells)) - of_session @ to_sessions)
    log_ms, effects = to_runtimes @ cells.to_numpy(), to_sessions @ cells.to_numpy()

    rest = cells.to_numpy() - of_runtime @ log_ms - of_session @ effects
    freedom = len(group) - len(cells)
    rows = float(logs.var(ddof=0) @ logs.count()) / max(freedom, 1)
    counted = min(freedom, ROWS_COUNT)
    scatter = _variance(float(rest @ rest) + counted * rows, len(cells) - len(names) - joined + counted)
    spread = _variance(float(effects @ effects), joined)

    found = pd.DataFrame({"log_ms": log_ms, "arithmetic": group.groupby("runtime")["arithmetic"].first()}, names)
    fastest = found.groupby("arithmetic")["log_ms"].transform("min")
    found["headline"] = found["log_ms"] <= fastest + math.log1p(HEADLINE_MARGIN)
    found["runtime_dense_ms"] = np.exp(found["log_ms"])
    found[REFERENCE] = float("nan")
    floats = found["log_ms"][found["arithmetic"] == "float32"]
    if len(floats):
        first = names.get_loc(floats.idxmin())
        ratios = np.exp(log_ms[first] - log_ms)
        halves = np.exp([_half(row - to_runtimes[first], of_session, scatter, spread) for row in to_runtimes])
        found[REFERENCE] = np.column_stack([ratios, ratios / halves, ratios * halves])
    return found[DENSE]


def sessions(finished: pd.Series[str]) -> pd.Series[int]:
    """The number of each timing's session, by when it ended: a session begins with the first timing after the last
    one's hour.
    """
    ended = pd.to_datetime(finished, utc=True, format="ISO8601", errors="coerce")
    number, end = -1, pd.Timestamp.min.tz_localize("UTC")
    numbers = {}
    for index, time in ended.sort_values(kind="stable").items():
        if time > end or number < 0:
            number, end = number + 1, time + pd.Timedelta(hours=SESSION_HOURS)
        numbers[index] = number
    return pd.Series(numbers).reindex(finished.index)


def _indicators(labels: pd.Index[Any]) -> NDArray[np.float64]:
    """A column for each label: 1 where it stands."""
    return np.asarray(pd.get_dummies(labels), dtype=np.float64)


def _variance(squares: float, freedom: int) -> tuple[float, int]:
    """With its degrees of freedom; NaN without any."""
    return (squares / freedom if freedom > 0 else float("nan")), freedom


def _half(
    weights: NDArray[np.float64], of_session: NDArray[np.float64], scatter: tuple[float, int], spread: tuple[float, int]
) -> float:
    """Half of the interval of a difference of runtimes, from the weights of the cells in it; what sessions weigh in it
    is nothing where they join the two.
    """
    from scipy.special import stdtrit

    if not weights.any():
        return 0.0
    variance, freedom = scatter
    variance *= float(weights @ weights)
    loads = weights @ of_session
    if (load := float(loads @ loads)) > math.sqrt(_HAIR):
        variance, freedom = variance + spread[0] * load, min(freedom, spread[1])
    return math.sqrt(variance) * float(stdtrit(max(freedom, 1), 0.975))
