"""Which model a user would choose who is free to choose the runtime too: the rule behind every named winner."""

from __future__ import annotations

from typing import Literal

import pandas as pd

from lowrank_bench.measurement.statistics import RatioInterval, Verdict, verdict
from lowrank_bench.reporting.board import Board, Row, allowed, rows_of
from lowrank_bench.reporting.cells import UNSTABLE, method_name, seeds_of
from lowrank_bench.reporting.columns import WHAT
from lowrank_bench.reporting.reach import reach
from lowrank_bench.trial import CONTROL

Unknown = Literal["not known"]
NOT_KNOWN: Unknown = "not known"


def workloads(board: Board) -> list[tuple[int, int]]:
    """Threads and batch of a board's rows, the headline's first."""
    return [*dict.fromkeys((threads, batch) for _, threads, batch in board.settings)]


def in_float32(board: Board, threads: int, batch: int) -> pd.DataFrame:
    """A board's rows at so many threads and such a batch, but for runtimes of fewer bits."""
    rows = board.rows
    return rows[(rows["threads"] == threads) & (rows["batch"] == batch) & (rows["arithmetic"] == "float32")]


def free_choice(board: Board, threads: int, batch: int) -> pd.DataFrame:
    """Every model in float32 in the runtime in which it is fastest, at so many threads and such a batch, as
    ``by_practical`` puts them.

    Practical speedup starts from the dense model in its own fastest runtime, so none of it is owed to a slow dense
    side; what fewer bits bring is left out.
    """
    rows = in_float32(board, threads, batch)
    return by_practical(rows[rows["runtime"] == rows["practical_runtime"]])


def by_practical(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows by the lower bound of their practical speedup, the largest first, what has no such bound last."""
    return rows.sort_values(["practical_low", *WHAT], ascending=[False, True, True, True], kind="stable")


def keeping(rows: pd.DataFrame, max_loss: float | None) -> pd.DataFrame:
    """Of these rows the compressed models that lose at most so many points of top-1; all where None is asked."""
    rows = rows[rows["method"] != CONTROL]
    return rows if max_loss is None else rows[rows["top1_drop"] <= allowed(max_loss)]


def winner(rows: pd.DataFrame) -> Row | None:
    """The first of ``free_choice``'s rows whose practical speedup is beyond the noise; None where there is none."""
    return next(filter(_gains, rows_of(rows)), None)


def rivals(best: Row, rows: pd.DataFrame) -> list[Row]:
    """Those of other methods that may be as fast as the winner: the intervals of both reach each other, each widened
    by its row's noise floor. A row whose processes disagree may be as fast as the fastest of them. In the winner's
    runtime speedups are compared, elsewhere practical ones.
    """
    return [row for row in rows_of(rows) if row.method != best.method and _may_reach(row, best)]


def how_sure(best: Row, rows: pd.DataFrame, limit: float | None) -> str:
    """Whether no other method's interval reaches the winner's, both widened by their noise floors, other methods were
    tuned as it was, its processes agree, and the loss's interval keeps to the limit over several seeds; without a limit
    it is said of the time alone.
    """
    doubts = []
    others = rows[rows["method"] != best.method]
    if others.empty:
        doubts.append("no other method there")
    elif not (others["recipe"] == best.recipe).any():
        doubts.append(f"no other method there tuned by {best.recipe}")
    if names := sorted({row.method for row in rivals(best, rows)}):
        doubts.append(f"{', '.join(map(method_name, names))} may be as fast")
    if limit is not None and not best.top1_drop_high <= limit:
        doubts.append("the loss may be larger")
    if limit is not None and seeds_of(best) == 1:
        doubts.append("one seed")
    if best.unstable:
        doubts.append(UNSTABLE)
    return "; ".join(doubts) or ("sure at 95 %" if limit is not None else "sure at 95 % of the time alone")


def practical_verdict(row: Row) -> Verdict | Unknown:
    """Whether the practical speedup is beyond the row's noise floor: faster, slower or the same; not known where it has
    no interval, as nothing says how the runtimes' hours compare.
    """
    if pd.isna(row.practical_low):
        return NOT_KNOWN
    return verdict(RatioInterval(row.practical, row.practical_low, row.practical_high), row.noise_floor)


def reserve(row: Row) -> list[str]:
    """What is to be said beside a practical speedup that is not plainly a gain."""
    judged = practical_verdict(row)
    return [*([] if judged == "faster" else [judged]), *([UNSTABLE] if row.unstable else [])]


def _may_reach(row: Row, best: Row) -> bool:
    name = "speedup" if row.runtime == best.runtime else "practical"
    lowest, highest = reach(best, name)[0], reach(row, name)[1]
    if row.unstable:
        highest *= max(1.0, row.speedup_most / row.speedup_high)
    return not highest < lowest


def _gains(row: Row) -> bool:
    return practical_verdict(row) == "faster"
