"""Where the boards stand in the leaderboard and on the page: links to them, by network."""

from __future__ import annotations

from collections.abc import Sequence

from lowrank_bench.reporting.boards.board import Board
from lowrank_bench.reporting.boards.overall import Overall

Contents = dict[str, list[tuple[str, str]]]
"""Links (text and address) below what they have in common."""


def contents(boards: Sequence[Board], overall: Sequence[Overall]) -> Contents:
    """The links to the boards, by network, and to what holds for all networks."""
    found: Contents = {}
    for number, board in enumerate(boards):
        found.setdefault(board.network, []).append((board.conditions, f"#{board_id(number)}"))
    if overall:
        found["Together"] = [(table.name, f"#{overall_id(number)}") for number, table in enumerate(overall)]
    return found


def board_id(number: int) -> str:
    """What a link to a board names, the first board being number 0."""
    return f"board-{number}"


def overall_id(number: int) -> str:
    """What a link to a table of all networks names."""
    return f"overall-{number}"
