"""A board on the page: the first answers, its rows, its pictures and tables."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
from markupsafe import Markup, escape

from lowrank_bench.reporting.boards.board import THRESHOLDS, Board, Row, rows_of
from lowrank_bench.reporting.boards.cells import (
    COLUMNS,
    Column,
    method_text,
    points_text,
    practical_text,
    row_id,
    setting_text,
    where_text,
    workload_text,
)
from lowrank_bench.reporting.boards.choice import free_choice, how_sure, keeping, winner, workloads
from lowrank_bench.reporting.boards.contents import board_id
from lowrank_bench.reporting.boards.decisions import NO_LOSS, none_faster
from lowrank_bench.reporting.boards.latency import LATENCY_LEGEND, LATENCY_TITLE, latency_grid
from lowrank_bench.reporting.boards.tables import (
    SETTINGS_LEGEND,
    facts,
    legend,
    runtimes_grid,
    settings_grid,
    untimed_grids,
)
from lowrank_bench.reporting.figures.gallery import Picture
from lowrank_bench.reporting.frame.columns import setting_of, what_of
from lowrank_bench.reporting.page_records import links_of
from lowrank_bench.reporting.page_table import Cell, Menu, PageRow, PageTable, plain_table


class Answer(NamedTuple):
    """What a reader wants to know first: the largest practical speedup at an allowed loss."""

    question: str
    value: str
    what: str
    sure: str


class Section(NamedTuple):
    """A board on the page; its pictures with the svg as the page has it; ``tables`` have a title and, where there is
    one, a note on how to read them.
    """

    id: str
    name: str
    headline: str
    answers: list[Answer]
    facts: list[tuple[str, str]]
    rows: PageTable | None
    legend: str
    pictures: list[tuple[Picture, Markup]]
    tables: list[tuple[str, PageTable, str]]


def inline_svg(svg: bytes, prefix: str, title: str) -> Markup:
    """A figure of matplotlib's as a part of a page: ids of its own, markers that name their row, a text for those who
    do not see it.
    """
    text = svg.decode()
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'\bid="(row-[0-9a-f]+)"', r'data-row="\1"', text)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    text = re.sub(r'^(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", text)
    return Markup(text.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1))


def section(number: int, board: Board, pictures: Sequence[Picture]) -> Section:
    """Of the board of that number on the page."""
    tables = []
    if not board.rows.empty:
        tables += [
            ("Settings", _settings_table(number, board), f"{SETTINGS_LEGEND}."),
            ("Every method in every setting", _runtimes_table(number, board), ""),
            (LATENCY_TITLE, _latency_table(number, board), LATENCY_LEGEND),
        ]
    for place, (title, grid) in enumerate(untimed_grids(board)):
        table = plain_table(f"untimed-{number}-{place}", f"{title}: {board.name}", grid, sortable=True)
        tables.append((title, table, ""))
    return Section(
        id=board_id(number),
        name=board.name,
        headline="" if board.rows.empty else workload_text(*workloads(board)[0]),
        answers=[] if board.rows.empty else _answers(board),
        facts=facts(board),
        rows=None if board.rows.empty else _rows_table(number, board),
        legend=legend(board.max_loss),
        pictures=[
            (picture, inline_svg(picture.files["svg"], f"b{number}f{place}", f"{picture.title}: {board.name}"))
            for place, picture in enumerate(pictures)
        ],
        tables=tables,
    )


def _settings_table(number: int, board: Board) -> PageTable:
    return plain_table(f"settings-{number}", f"Settings of {board.name}", settings_grid(board))


def _runtimes_table(number: int, board: Board) -> PageTable:
    label = f"Every method in every setting: {board.name}"
    return plain_table(f"runtimes-{number}", label, runtimes_grid(board), sortable=True)


def _latency_table(number: int, board: Board) -> PageTable:
    return plain_table(f"latency-{number}", f"{LATENCY_TITLE}: {board.name}", latency_grid(board), sortable=True)


def _answers(board: Board) -> list[Answer]:
    answers = []
    rows = free_choice(board, *workloads(board)[0])
    for limit in THRESHOLDS if board.scored else [None]:
        question = "accuracy not measured" if limit is None else f"loss of at most {points_text(limit)}"
        among = keeping(rows, limit)
        row = winner(among)
        if row is None:
            known = limit is None or keeping(rows, None)["top1_drop"].notna().any()
            answers.append(Answer(question, "none", none_faster(among) if known else NO_LOSS, ""))
        else:
            interval = practical_text(row).partition(" ")[2]
            what = f"{method_text(row)} {row.target} in {row.runtime}, {interval}"
            answers.append(Answer(question, f"{row.practical:.2f}×", what, how_sure(row, rows, limit)))
    return answers


def _rows_table(number: int, board: Board) -> PageTable:
    links = links_of(board)
    rows = []
    for row in rows_of(board.rows):
        cells = [_cell(column, row) for column in COLUMNS]
        keys = links.get((what_of(row), setting_of(row)), [])
        cells.append(Cell("", links=[(key[:6], f"#record-{key}") for key in keys]))
        data = {"setting": where_text(row), "method": method_text(row), "target": row.target}
        rows.append(PageRow(cells, row_id(row), "front" if row.pareto else "", data))
    settings = [setting_text(*setting) for setting in board.settings]
    menus = [
        Menu("setting", "Setting", settings, settings[0]),
        Menu("method", "Method", sorted({row.data["method"] for row in rows})),
        Menu("target", "Target", sorted({row.data["target"] for row in rows} - {""})),
    ]
    headings = [*(column.heading for column in COLUMNS), "Records"]
    return PageTable(f"rows-{number}", f"Rows of {board.name}", headings, rows, menus, sortable=True)


def _cell(column: Column, row: Row) -> Cell:
    order = _order(getattr(row, column.order)) if column.order else None
    kind = {"Verdict": row.verdict, "Target": "wraps"}.get(column.heading, "")
    return Cell(column.cell(row), order, kind, heads=column.heading == "Method")


def _order(value: float) -> str:
    """What a cell is sorted by; what is not known goes last of all."""
    return "1e99" if pd.isna(value) or not math.isfinite(value) else f"{value:.9g}"
