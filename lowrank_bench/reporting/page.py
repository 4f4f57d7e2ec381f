"""The page: boards, figures and the list of records in one file of html that opens from disk and loads nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from lowrank_bench.reading import Line
from lowrank_bench.reporting.boards.board import Board
from lowrank_bench.reporting.boards.contents import contents, overall_id
from lowrank_bench.reporting.boards.decisions import (
    DECISIONS_LEGEND,
    DECISIONS_TITLE,
    decisions_grid,
    what_is_missing,
    with_choice,
)
from lowrank_bench.reporting.boards.overall import Overall
from lowrank_bench.reporting.boards.spans import SPANS_LEGEND, SPANS_TITLE, spans_grid, without_gain
from lowrank_bench.reporting.boards.tables import (
    overall_grid,
    overall_legend,
)
from lowrank_bench.reporting.figures.gallery import Picture
from lowrank_bench.reporting.page_records import records_table
from lowrank_bench.reporting.page_section import section
from lowrank_bench.reporting.page_table import PageTable, plain_table
from lowrank_bench.reporting.profile_links import ProfileLinks


class Opening(NamedTuple):
    """A table of all boards, which a reader sees first: how it is to be read, and what stands below it."""

    title: str
    legend: str
    table: PageTable
    notes: list[str]


def render_page(
    boards: Sequence[tuple[Board, Sequence[Picture]]],
    overall: Sequence[Overall],
    lines: Sequence[Line],
    folder: Path,
    notes: Sequence[str] = (),
    profiles: Sequence[ProfileLinks] = (),
) -> bytes:
    """The page of these boards: what they come to, in short, then each with its pictures, and what holds for all
    networks together; then links to ``profiles``, and the ``lines`` of records below ``folder`` behind it all.

    The same records give the same tables byte for byte. Whatever a record holds is text on the page, never markup, and
    a policy in the page keeps it from loading anything or running any script but its own two.
    """
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    opening = _opening([board for board, _ in boards])
    in_short = {"In short": [(part.title, f"#{part.table.id}-title") for part in opening]} if opening else {}
    scripts = [_part("assets/dataTables.min.js"), _part("assets/page.js")]
    html = environment.from_string(_part("templates/page.html.jinja")).render(
        css=Markup(_part("assets/page.css")),
        library=Markup(scripts[0]),
        script=Markup(scripts[1]),
        hashes=Markup(" ".join(f"'sha256-{_digest(text)}'" for text in scripts)),
        contents=in_short | contents([board for board, _ in boards], overall),
        opening=opening,
        overall=[_overall(number, table) for number, table in enumerate(overall)],
        sections=[section(number, board, pictures) for number, (board, pictures) in enumerate(boards)],
        profiles=profiles,
        records=records_table(lines, folder),
        notes=notes,
        version=version("lowrank-bench"),
        digest=hashlib.sha256(b"".join(line.data + b"\n" for line in lines)).hexdigest(),
    )
    return html.encode()


def _part(name: str) -> str:
    return files("lowrank_bench.reporting").joinpath(name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _opening(boards: Sequence[Board]) -> list[Opening]:
    timed = with_choice(boards)
    counted = [f"{where}: {count}" for where, count in without_gain(timed)]
    missing = [what_is_missing(timed)]
    parts = [
        ("spans", SPANS_TITLE, SPANS_LEGEND, spans_grid(timed), counted),
        ("decisions", DECISIONS_TITLE, DECISIONS_LEGEND, decisions_grid(timed), missing),
    ]
    return [
        Opening(title, legend, plain_table(name, title, grid), [*filter(None, notes)])
        for name, title, legend, grid, notes in parts
        if grid.cells or any(notes)
    ]


def _overall(number: int, table: Overall) -> dict[str, object]:
    shown = plain_table(f"overall-table-{number}", table.name, overall_grid(table), sortable=True)
    return {"id": overall_id(number), "name": table.name, "table": shown, "legend": overall_legend(table)}
