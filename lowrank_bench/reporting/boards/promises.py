"""What MACs promise and what the CPU delivers: shares of the MACs ratio that became speed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from lowrank_bench.reporting.boards.board import Board, Row, rows_of
from lowrank_bench.reporting.boards.cells import method_name, method_text, verdict_text, where_text
from lowrank_bench.reporting.markdown import escape, markdown_table
from lowrank_bench.trial import CONTROL

_OF_SEVERAL = ["Method", "Setting", "Models", "Median realised", "Range", "Not faster"]
_OF_ONE = ["Network", "Method", "Setting", "MACs ratio", "Realised", "Verdict"]
_ALL = "all"
SAVING = 1.05
"""A ratio of MACs from which on a model promises to be faster."""


def promises(boards: Sequence[Board]) -> list[str]:
    """A table of each board's groups of several models, then one of all groups of a single one."""
    tables, single = [], []
    for board in boards:
        groups = [*_groups(board)]
        if several := [_delivered(*group) for group in groups if len(group[-1]) > 1]:
            tables.append(f"**{escape(board.name)}**\n\n{markdown_table(_OF_SEVERAL, several)}")
        single += [_of_one(board, row) for _, rows in groups if len(rows) == 1 for row in rows_of(rows)]
    if single:
        tables.append(f"**One model each**\n\n{markdown_table(_OF_ONE, single)}")
    return tables


def _groups(board: Board) -> Iterator[tuple[str, pd.DataFrame]]:
    """In the headline setting method by method, in the others all methods together."""
    rows = board.rows
    saving = (rows["method"] != CONTROL) & (rows["macs_ratio"] >= SAVING) & (rows["arithmetic"] == "float32")
    for place, setting in enumerate(board.settings):
        here = board.in_setting(setting)
        here = here[saving[here.index]]
        methods = {str(method): group for method, group in here.groupby("method")}
        if len(methods) > 1:
            yield _ALL, here
        if place == 0 or len(methods) == 1:
            yield from methods.items()


def _delivered(method: str, rows: pd.DataFrame) -> list[str]:
    realised = rows["realised"]
    first = rows_of(rows)[0]
    return [
        method_name(method),
        where_text(first),
        str(len(rows)),
        f"{realised.median():.0%}",
        f"{realised.min():.0%} to {realised.max():.0%}",
        str(int((rows["verdict"] != "faster").sum())),
    ]


def _of_one(board: Board, row: Row) -> list[str]:
    return [
        board.name,
        method_text(row),
        where_text(row),
        f"{row.macs_ratio:.2f}",
        f"{row.realised:.0%}",
        verdict_text(row),
    ]
