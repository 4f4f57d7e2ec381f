"""Networks of which the time alone is known, side by side: a table for each machine and number of threads."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from lowrank_bench.reporting.boards.board import Board, Row, rows_of
from lowrank_bench.reporting.boards.cells import (
    method_name,
    method_text,
    practical_text,
    speedup_text,
    workload_text,
)
from lowrank_bench.reporting.boards.choice import (
    Timed,
    at_budgets,
    chosen_text,
    free_choice,
    in_float32,
    practical_verdict,
    reserve,
    rivals,
    shared_workloads,
    timed_in,
    winner,
)
from lowrank_bench.reporting.boards.spans import untimed
from lowrank_bench.reporting.boards.tables import Grid, own_facts
from lowrank_bench.reporting.frame.columns import what_of
from lowrank_bench.reporting.markdown import folded, markdown_table, told_line


def networks_tables(boards: Sequence[Board]) -> list[str]:
    """A table of the networks on each machine, by recipe, threads and batch."""
    alike: dict[tuple[str, str, tuple[int, int]], list[Board]] = {}
    for board in boards:
        for workload in shared_workloads(board):
            alike.setdefault((board.machine, board.recipe, workload), []).append(board)
    tables = []
    for (machine, recipe, workload), some in alike.items():
        grid, options = networks_grid(some, *workload)
        if not grid.cells:
            continue
        title = f"Networks by time alone, recipe {recipe}, {machine}"
        said = f"{workload_text(*workload)}, practical speedup of each model in the fastest of the runtimes timed"
        floors = pd.concat([free_choice(board, *workload)["noise_floor"] for board in some])
        told = [*options, *own_facts(*some), ("Noise floor, median of these rows", f"{floors.median():.1%}")]
        tables.append(folded(title, said, markdown_table(*grid), told_line(told)))
    return tables


def networks_grid(boards: Sequence[Board], threads: int, batch: int) -> tuple[Grid, list[tuple[str, str]]]:
    """Of every method the practical speedup of its fastest variant, the runtime in which it is reached and the
    number of its options where it has any; ★ the largest that is beyond noise, ☆ what is so too and may be as large;
    what refused or failed there is said so. Beside the table what each number stands for, and what latency targets came
    to in their own runtime. Ranks that were given one by one, which a network shares with no other, are left to its own
    board.
    """
    lines: list[tuple[Board, str, pd.DataFrame]] = []
    for board in boards:
        models = at_budgets(board, threads, batch)
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
        found = without | {row.method: _network_cell(row, timed, len(here), marks) for row in rows_of(rows)}
        best = winner(rows)
        if best is not None:
            found[best.method] += " ★"
            for row in rivals(best, rows):
                found[row.method] += " ☆" * (practical_verdict(row) == "faster")
        dense = _fastest_dense(board, threads, batch)
        cells.append([board.model, target, ", ".join(here), dense, *(found.get(method, "") for method in methods)])
    headings = ["Network", "Target", "Runtimes timed", "Dense ms, in", *map(method_name, methods)]
    told = [(f"Options {mark}", options) for options, mark in marks.items()]
    asked = [
        f"{method_text(row)} on {board.model} {speedup_text(row)}"
        for board, target, rows in lines
        for row in rows_of(rows)
        if target.startswith("latency/") and f"@{row.runtime}," in target
    ]
    if asked:
        told.append(("Latency targets, by the dense model's time in the runtime that they name", ", ".join(asked)))
    return Grid(headings, cells), told


def _network_cell(row: Row, timed: Timed, most: int, marks: dict[str, str]) -> str:
    chosen = f"{chosen_text(row, timed, most)} {marks.get(row.options, '')}".strip()
    return f"{practical_text(row)} {', '.join([chosen, *reserve(row)])}"


def _fastest_dense(board: Board, threads: int, batch: int) -> str:
    times = in_float32(board, threads, batch).groupby("runtime")["runtime_dense_ms"].first()
    return f"{times.min():.3g} {times.idxmin()}"
