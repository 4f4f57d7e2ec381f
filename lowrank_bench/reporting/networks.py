"""The table of the networks of which the time alone is known: a line for each and each target."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from lowrank_bench.record import Status
from lowrank_bench.reporting.board import Board, Row, rows_of
from lowrank_bench.reporting.cells import method_name, practical_text
from lowrank_bench.reporting.choice import (
    free_choice,
    in_float32,
    keeping,
    practical_verdict,
    reserve,
    rivals,
    winner,
    workloads,
)
from lowrank_bench.reporting.columns import what_of
from lowrank_bench.reporting.tables import Grid
from lowrank_bench.reporting.timed_in import Timed, chosen_text, timed_in
from lowrank_bench.trial import names_ranks


def networks_grid(boards: Sequence[Board], threads: int, batch: int) -> tuple[Grid, list[tuple[str, str]]]:
    """Of every method the practical speedup of its fastest variant, the runtime in which it is reached and the
    number of its options where it has any; ★ the largest that is beyond noise, ☆ what is so too and may be as large;
    what refused or failed there is said so. Beside the table what each number stands for. Ranks that were given one by
    one, which a network shares with no other, are left to its own board.
    """
    lines: list[tuple[Board, str, pd.DataFrame]] = []
    for board in boards:
        models = _at_budgets(board, threads, batch)
        lines += [(board, str(target), some.drop_duplicates("method")) for target, some in models.groupby("target")]
    unmet = [untimed(board, target) for board, target, _ in lines]
    methods = sorted(
        {method for _, _, rows in lines for method in rows["method"]} | {m for some in unmet for m in some}
    )
    given = sorted({options for _, _, rows in lines for options in rows["options"]} - {""})
    marks = {options: f"({number})" for number, options in enumerate(given, start=1)}
    cells = []
    for (board, target, rows), without in zip(lines, unmet, strict=True):
        timed = timed_in(in_float32(board, threads, batch))
        here = sorted({name for row in rows_of(rows) for name in timed[what_of(row)]})
        found = without | {row.method: _cell(row, timed, len(here), marks) for row in rows_of(rows)}
        best = winner(rows)
        if best is not None:
            found[best.method] += " ★"
            for row in rivals(best, rows):
                found[row.method] += " ☆" * (practical_verdict(row) == "faster")
        dense = _fastest_dense(board, threads, batch)
        cells.append([board.model, target, ", ".join(here), dense, *(found.get(method, "") for method in methods)])
    headings = ["Network", "Target", "Runtimes timed", "Dense ms, in", *map(method_name, methods)]
    return Grid(headings, cells), [(f"Options {mark}", options) for options, mark in marks.items()]


def untimed(board: Board, target: str) -> dict[str, str]:
    """How each method ended of which no variant came to a time at a target: refused, where it said so by name, or
    failed.
    """
    timed = set(board.rows.loc[board.rows["target"] == target, "method"])
    ends: dict[str, set[str]] = {}
    for (method, _, at), statuses in board.without_time().items():
        if at == target and method not in timed:
            ends.setdefault(method, set()).update(statuses)
    return {method: "refused" if ends[method] == {str(Status.SKIPPED)} else "failed" for method in sorted(ends)}


def shared_workload(board: Board) -> tuple[int, int]:
    """The first threads and batch at which a budget was timed, which other networks may share; else the headline's."""
    known = workloads(board)
    return next((workload for workload in known if not _at_budgets(board, *workload).empty), known[0])


def _at_budgets(board: Board, threads: int, batch: int) -> pd.DataFrame:
    models = keeping(free_choice(board, threads, batch), None)
    return models[~models["target"].map(names_ranks).astype(bool)]


def _cell(row: Row, timed: Timed, most: int, marks: dict[str, str]) -> str:
    chosen = f"{chosen_text(row, timed, most)} {marks.get(row.options, '')}".strip()
    return f"{practical_text(row)} {', '.join([chosen, *reserve(row)])}"


def _fastest_dense(board: Board, threads: int, batch: int) -> str:
    times = in_float32(board, threads, batch).groupby("runtime")["runtime_dense_ms"].first()
    return f"{times.min():.3g} {times.idxmin()}"
