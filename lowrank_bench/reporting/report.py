"""From a folder of records to what people read: leaderboard, page, figures and the README's board."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from lowrank_bench.reading import latest, read_lines
from lowrank_bench.reporting.boards.board import Board, make_boards
from lowrank_bench.reporting.boards.overall import Overall, make_overall
from lowrank_bench.reporting.claims.evidence import Evidence
from lowrank_bench.reporting.claims.paper import load_paper
from lowrank_bench.reporting.claims.reproduction import reproduced, reproduction_markdown
from lowrank_bench.reporting.figures.gallery import Picture, pictures_of
from lowrank_bench.reporting.files import plain_name, replace_files
from lowrank_bench.reporting.findings import findings_markdown
from lowrank_bench.reporting.latex import to_latex
from lowrank_bench.reporting.leaderboard import leaderboard_markdown, to_csv
from lowrank_bench.reporting.markdown import escape
from lowrank_bench.reporting.page import render_page
from lowrank_bench.reporting.profile_links import profiles_markdown, profiles_of
from lowrank_bench.reporting.readme import address_from, around_board, renew_board
from lowrank_bench.reporting.summary import summary_board
from lowrank_bench.shipped import paper_names


class Report(NamedTuple):
    """What was written where, and the tables that it was made of."""

    pages: list[Path]
    figures: list[Path]
    boards: list[Board]
    overall: list[Overall]


def write_report(
    folder: Path | str, max_loss: float = 1.0, *, readme: Path | str | None = None, latex: bool = False
) -> Report:
    """Write leaderboard.md, leaderboard.csv, findings.md, index.html and figures/*.png and *.svg into a folder of
    records, leaderboard.tex where it is asked for, and reproduction.md where a paper's claim was measured; renew the
    board between the two markers of ``readme``.

    The same records and profiles give the same bytes; of profiles those are linked that lie in its figures and whose
    trials are among the records. Each file replaces its predecessor at once; figures of boards that are no
    longer there are removed. Raises InvalidRecord where the folder holds no readable record or cannot be written,
    InvalidInput for a ``max_loss`` that is not finite, and before any work is done for a README that cannot be read or
    has no markers.
    """
    if readme is not None:
        around_board(Path(readme))
    folder = Path(folder)
    lines = read_lines(folder)
    counting = latest(line.record for line in lines if line.record)
    evidence = Evidence(counting.values())
    frame = evidence.frame
    boards = make_boards(frame, max_loss)
    overall = make_overall(boards)
    notes = _notes(frame, counting)
    files: dict[str, bytes] = {}
    figures: dict[int, list[str]] = {}
    pages: list[tuple[Board, list[Picture]]] = []
    for number, board in enumerate(boards):
        pages.append((board, [*pictures_of(board, evidence.trials)]))
        for picture in pages[-1][1]:
            name = f"figures/{_slug(board)}-{picture.kind}"
            files |= {f"{name}.{form}": file for form, file in picture.files.items()}
            figures.setdefault(number, []).append(f"![{escape(f'{picture.title}: {board.name}')}]({name}.svg)")
    profiles = profiles_of(folder, evidence.trials)
    sections = [leaderboard_markdown(boards, overall, figures), *([profiles_markdown(profiles)] if profiles else [])]
    files["leaderboard.md"] = ("\n\n".join([*sections, *notes]) + "\n").encode()
    files["leaderboard.csv"] = to_csv(boards).encode()
    files["index.html"] = render_page(pages, overall, lines, folder, notes, profiles)
    papers = [reproduced(load_paper(name), evidence) for name in paper_names()]
    files["findings.md"] = findings_markdown(boards, papers).encode()
    if any(done.measured for done in papers):
        files["reproduction.md"] = reproduction_markdown(papers).encode()
    if latex:
        files["leaderboard.tex"] = to_latex(boards, overall).encode()
    written = replace_files(folder, files)
    named = [path for path in written if path.parent == folder]
    if readme is not None:
        summary = summary_board(boards, address_from(Path(readme), folder / "leaderboard.md"))
        named.append(renew_board(Path(readme), summary))
    return Report(named, [path for path in written if path.parent != folder], boards, overall)


def _notes(frame: pd.DataFrame, counting: Collection[str]) -> list[str]:
    """What was left out of the boards, and why."""
    notes = []
    if orphans := int((frame["task"] == "").sum()):
        notes.append(f"Measurements left out, as their trials are not among the records: {orphans}.")
    if outdated := len(set(counting) - {*frame["key"], *frame["trial"]}):
        notes.append(f"Records left out, as later ones of other versions or weights took their place: {outdated}.")
    return notes


def _slug(board: Board) -> str:
    """A file name that is the same whatever other boards there are; no two boards share it."""
    names = (board.task, board.model, board.recipe, board.machine)
    digest = hashlib.sha256("\0".join(names).encode()).hexdigest()[:6]
    return "-".join([*map(plain_name, names), digest])
