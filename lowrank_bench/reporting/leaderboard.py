"""Boards as people and programs read them: markdown, csv and the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.text import Text

from lowrank_bench.reporting.boards.board import ROW_COLUMNS, Board
from lowrank_bench.reporting.boards.cells import COLUMNS
from lowrank_bench.reporting.boards.contents import board_id, contents, overall_id
from lowrank_bench.reporting.boards.latency import LATENCY_LEGEND, LATENCY_TITLE, latency_grid
from lowrank_bench.reporting.boards.overall import Overall
from lowrank_bench.reporting.boards.tables import (
    SETTINGS_LEGEND,
    Grid,
    facts,
    legend,
    overall_grid,
    overall_legend,
    rows_grid,
    runtimes_grid,
    settings_grid,
    untimed_grids,
)
from lowrank_bench.reporting.markdown import bullets, escape, markdown_table
from lowrank_bench.terminal import TerminalTable

FEWEST_COLUMNS = 5  # up to the speedup


def leaderboard_markdown(
    boards: Sequence[Board], overall: Sequence[Overall] = (), below: Mapping[int, Sequence[str]] = {}
) -> str:
    """All boards in markdown, below links to each and what their tables mean, said once; ``below``: what stands below a
    board, by its number.
    """
    links = [
        f"- {escape(name)}: " + ", ".join(f"[{escape(text)}]({address})" for text, address in some)
        for name, some in contents(boards, overall).items()
    ]
    parts = ["# Leaderboard", "\n".join(links)]
    if any(not board.rows.empty for board in boards):
        parts += ["## How to read the boards", legend(boards[0].max_loss), f"{LATENCY_TITLE}: {LATENCY_LEGEND}"]
    for number, table in enumerate(overall):
        parts += [_anchor(overall_id(number)), overall_markdown(table)]
    for number, board in enumerate(boards):
        parts += [_anchor(board_id(number)), board_markdown(board), *below.get(number, ())]
    return "\n\n".join(parts)


def board_markdown(board: Board) -> str:
    """One board as a section of markdown."""
    parts = [f"## {escape(board.name)}", bullets(facts(board))]
    if not board.rows.empty:
        parts += [f"{SETTINGS_LEGEND}:", markdown_table(*settings_grid(board))]
        parts += [markdown_table(*grid) for grid in (runtimes_grid(board), rows_grid(board))]
        parts += [f"### {LATENCY_TITLE}", markdown_table(*latency_grid(board))]
    for title, grid in untimed_grids(board):
        parts += [f"### {title}", markdown_table(*grid)]
    return "\n\n".join(parts)


def overall_markdown(overall: Overall) -> str:
    """All networks together as a section of markdown."""
    parts = [f"## {escape(overall.name)}", markdown_table(*overall_grid(overall)), escape(overall_legend(overall))]
    return "\n\n".join(parts)


def _anchor(name: str) -> str:
    return f'<a id="{name}"></a>'


def to_csv(boards: Sequence[Board]) -> str:
    """Every row of every board, then all that has no time with its status and reason; six significant digits."""
    tables = [board.rows.assign(status="ok") for board in boards] + [board.unranked for board in boards]
    rows = [row for table in tables for row in table.to_dict("records")]
    table = pd.DataFrame(rows, columns=[*ROW_COLUMNS, "status", "reason"])
    counts = ("rank", "threads", "batch", "bytes", "runtime_bytes", "processes", "pairs_least", "pairs_most", "images")
    return table.astype(dict.fromkeys(counts, "Int64")).to_csv(index=False, float_format="%.6g", lineterminator="\n")


def to_terminal(boards: Sequence[Board], overall: Sequence[Overall] = ()) -> Group:
    """Every board for rich to print, all networks together first: the columns that fit a terminal."""
    columns = [column for column in COLUMNS if column.in_terminal]
    parts: list[Text | TerminalTable | Fitting] = []
    for table in overall:
        parts += [Text(table.name, style="bold"), rich_table(overall_grid(table)), Text(overall_legend(table)), Text()]
    for board in boards:
        parts += [Text(board.name, style="bold"), Text("\n".join(f"{name}: {text}" for name, text in facts(board)))]
        if not board.rows.empty:
            parts += [
                rich_table(settings_grid(board)),
                Fitting(rows_grid(board, columns)),
                Text(legend(board.max_loss)),
            ]
        for title, grid in untimed_grids(board):
            parts += [Text(title), rich_table(grid)]
        parts.append(Text())
    return Group(*parts)


def rich_table(grid: Grid) -> TerminalTable:
    """A table for rich to print, its cells as they stand."""
    table = TerminalTable(*grid.headings, ruled=True)
    for row in grid.cells:
        table.add_row(*map(Text, row))
    return table


class Fitting:
    """A table whose last columns, the least important ones, are left out where the terminal is too narrow for all."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The widest table that fits, and how many columns it lacks."""
        headings, cells = self.grid
        for count in range(len(headings), FEWEST_COLUMNS - 1, -1):
            table = rich_table(Grid(headings[:count], [row[:count] for row in cells]))
            if console.measure(table, options=options.update(max_width=10_000)).maximum <= options.max_width:
                break
        yield table
        if lacking := len(headings) - count:
            yield Text(f"{lacking} more columns in leaderboard.md, and in a wider terminal\n")
