"""A table of the page: what its template asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lowrank_bench.reporting.boards.tables import Grid

_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?(?=[ ,%]|$)")
_NO_NUMBER = ("", "–", "none")


class Cell(NamedTuple):
    """A cell: its text, or links in its place (text and address); by what it is sorted (None: by its text); a class for
    its looks; whether it heads its row.
    """

    text: str
    order: str | None = None
    kind: str = ""
    heads: bool = False
    links: Sequence[tuple[str, str]] = ()


class PageRow(NamedTuple):
    """A row; ``data`` are the values by which menus choose."""

    cells: Sequence[Cell]
    id: str = ""
    kind: str = ""
    data: Mapping[str, str] = {}


class Menu(NamedTuple):
    """A menu above a table that leaves only the rows with one value of a column; empty: all."""

    column: str
    label: str
    values: Sequence[str]
    chosen: str = ""


class PageTable(NamedTuple):
    """A table with its label for those who do not see it; ``long``: it scrolls within the page."""

    id: str
    label: str
    headings: Sequence[str]
    rows: Sequence[PageRow]
    menus: Sequence[Menu] = ()
    sortable: bool = False
    long: bool = False


def plain_table(name: str, label: str, grid: Grid, *, sortable: bool = False) -> PageTable:
    """A grid of text; its first column heads the rows. Columns of numbers, whatever follows these, sort as numbers."""
    numeric = [_numeric(column) for column in zip(*grid.cells, strict=True)]
    rows = [
        PageRow(
            [
                Cell(text, _order(text) if numeric[place] else None, _kind(text), heads=place == 0)
                for place, text in enumerate(cells)
            ]
        )
        for cells in grid.cells
    ]
    return PageTable(name, label, grid.headings, rows, sortable=sortable)


def _numeric(column: Sequence[str]) -> bool:
    return any(column) and all(_NUMBER.match(text) for text in column if text not in _NO_NUMBER)


def _order(text: str) -> str:
    """What is not there goes last."""
    found = _NUMBER.match(text)
    return found[0] if found else "1e99"


def _kind(text: str) -> str:
    return "prose" if len(text) > 60 else "wraps" if len(text) > 40 else ""
