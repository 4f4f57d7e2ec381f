"""The board of a README, between two lines of markers."""

from __future__ import annotations

import os
from pathlib import Path

from lowrank_bench.errors import InvalidInput
from lowrank_bench.reporting.files import replace_file

BEGIN, END = "<!-- board:begin -->", "<!-- board:end -->"


def around_board(readme: Path) -> tuple[str, str]:
    """What stands before and after the board. Raises InvalidInput where the markers lack or the file cannot be read."""
    try:
        text = readme.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{readme} cannot be read as text ({error}): name the README") from None
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise InvalidInput(f"{readme} lacks the lines {BEGIN} and {END}, in this order: the board goes between them")
    return before, after


def renew_board(readme: Path, board: str) -> Path:
    """Put a board in the place of the one there; returns the path. Raises as ``around_board`` does, and NotWritten."""
    before, after = around_board(readme)
    return replace_file(readme, f"{before}{BEGIN}\n{board}\n{END}{after}".encode())


def address_from(readme: Path, file: Path) -> str:
    """How a link in it reaches a file."""
    return os.path.relpath(file, readme.parent).replace(os.sep, "/")
