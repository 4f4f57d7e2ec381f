"""Boards for papers: tables in LaTeX with booktabs."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lowrank_bench.reporting.boards.board import Board, rows_of
from lowrank_bench.reporting.boards.cells import COLUMNS, setting_text
from lowrank_bench.reporting.boards.overall import Overall
from lowrank_bench.reporting.boards.tables import Grid, overall_grid

_SHOWN = ("#", "Method", "Target", "Speedup [95 %]", "Loss, points [95 %]", "MACs ratio", "Realised", "Params ratio")
_SIGNS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "%": r"\%",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "$": r"\$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # at the start of a row it would be an argument of the line break before it
    "]": "{]}",
    "–": "--",
    "→": r"$\to$",
    "◆": r"$\diamond$",
    "×": r"$\times$",
    "≤": r"$\leq$",
}


def to_latex(boards: Sequence[Board], overall: Sequence[Overall] = ()) -> str:
    r"""All networks together, then each board in its headline setting: one ``table`` each, in the order of ranking.

    Text of records is written out as it stands, whatever signs of LaTeX it holds.
    """
    tables = [_table(escape_latex(table.name), overall_grid(table)) for table in overall]
    tables += [_board(board) for board in boards if not board.rows.empty]
    return "\n".join(["% needs \\usepackage{booktabs}", *tables])


def escape_latex(text: str) -> str:
    """Text as it stands, in one line; signs beyond Latin that LaTeX may not know become a question mark."""
    text = "".join(_SIGNS.get(sign, sign) for sign in " ".join(text.split()))
    return re.sub(r"[^\x20-\x7e\u00a0-\u017f]", "?", text)


def _board(board: Board) -> str:
    setting = board.settings[0]
    columns = [column for column in COLUMNS if column.heading in _SHOWN]
    rows = rows_of(board.in_setting(setting))
    cells = [[column.cell(row) for column in columns] for row in rows]
    caption = (
        f"{escape_latex(board.name)}, {escape_latex(setting_text(*setting))}. Speedup is dense over compressed time "
        r"with its 95\,\% interval, loss in points of top-1 from the dense control; $\star$ marks the Pareto front."
    )
    return _table(caption, Grid([column.heading for column in columns], cells))


def _table(caption: str, grid: Grid) -> str:
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{caption}}}",
        rf"\begin{{tabular}}{{{'l' * len(grid.headings)}}}",
        r"\toprule",
        _row(grid.headings),
        r"\midrule",
        *map(_row, grid.cells),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return " & ".join(map(escape_latex, cells)) + r" \\"
