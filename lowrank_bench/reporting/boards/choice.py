"""Which model a user would choose who is free to choose the runtime too: the rule behind every named winner, and among
which runtimes it chose.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

import pandas as pd

from lowrank_bench.measurement.statistics import RatioInterval, Verdict, verdict
from lowrank_bench.reporting.boards.board import Board, Row, allowed, rows_of
from lowrank_bench.reporting.boards.cells import UNSTABLE, method_name, seeds_of
from lowrank_bench.reporting.boards.reach import reach
from lowrank_bench.reporting.frame.columns import WHAT, What, what_of
from lowrank_bench.trial import CONTROL, names_ranks

Timed = Mapping[What, Collection[str]]
"""Of every model, by method, options and target, the runtimes in which it was timed."""
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


def shared_workloads(board: Board) -> list[tuple[int, int]]:
    """The first threads and batch at which a budget was timed, which other networks may share, else the headline's; and
    what other threads were tried at that batch.
    """
    known = workloads(board)
    timed = [workload for workload in known if not at_budgets(board, *workload).empty] or known[:1]
    return [(threads, batch) for threads, batch in timed if batch == timed[0][1]]


def at_budgets(board: Board, threads: int, batch: int) -> pd.DataFrame:
    """Each model of a budget in its fastest runtime; ranks that were given one by one no other network shares."""
    models = keeping(free_choice(board, threads, batch), None)
    return models[~models["target"].map(names_ranks).astype(bool)]


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
    """Of the winner of all these models: whether no other method's interval reaches its own, both widened by their
    noise floors, nor that of what may lose as little for all that is known; whether other methods were tuned as it was,
    its processes agree, and the loss's interval keeps to the limit over several seeds. Without a limit it is said of
    the time alone.
    """
    doubts = []
    within = keeping(rows, limit)
    others = within[within["method"] != best.method]
    if others.empty:
        doubts.append("no other method there")
    elif not (others["recipe"] == best.recipe).any():
        doubts.append(f"no other method there tuned by {best.recipe}")
    near = {row.method for row in rivals(best, within)}
    if near:
        doubts.append(f"{', '.join(map(method_name, sorted(near)))} may be as fast")
    if limit is not None:
        beyond = rows.drop(within.index)
        perhaps = rivals(best, keeping(beyond[beyond["top1_drop_low"] <= allowed(limit)], None))
        if names := sorted({row.method for row in perhaps} - near):
            doubts.append(f"{', '.join(map(method_name, names))} may be as fast and lose no more")
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


def _may_reach(row: Row, best: Row) -> bool:
    name = "speedup" if row.runtime == best.runtime else "practical"
    lowest, highest = reach(best, name)[0], reach(row, name)[1]
    if row.unstable:
        highest *= max(1.0, row.speedup_most / row.speedup_high)
    return not highest < lowest


def _gains(row: Row) -> bool:
    return practical_verdict(row) == "faster"
