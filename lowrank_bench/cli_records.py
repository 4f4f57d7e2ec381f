"""The commands that read records: ``lowrank-bench report``, ``compare`` and ``merge``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from lowrank_bench.cli_inspect import DEFAULT_OUT
from lowrank_bench.errors import InvalidInput, InvalidRecord
from lowrank_bench.reporting.regressions import REGRESSIONS

MOVED = 1
"""Exit status of ``compare`` where something moved as ``--fail-on`` says."""


class Form(StrEnum):
    """What ``report`` writes besides what it always writes."""

    LATEX = "latex"


def report(
    out: Annotated[Path, typer.Option(help="Results folder.")] = DEFAULT_OUT,
    readme: Annotated[Path | None, typer.Option(help="Also renew the board between this file's board markers.")] = None,
    form: Annotated[Form | None, typer.Option("--format", help="Also write leaderboard.tex, for papers.")] = None,
) -> None:
    """Rebuild every table, page and figure from the records in a results folder: leaderboard.md and .csv, findings.md,
    reproduction.md, index.html and figures/.
    """
    from lowrank_bench.reporting.leaderboard import to_terminal
    from lowrank_bench.reporting.report import write_report

    done = write_report(out, readme=readme, latex=form is Form.LATEX)
    console = Console()
    console.print(to_terminal(done.boards, done.overall))
    counted = f", and {len(done.figures)} files in {done.figures[0].parent}" if done.figures else ""
    console.print(Text("written: " + ", ".join(map(str, done.pages)) + counted), soft_wrap=True)


def compare(
    before: Annotated[Path, typer.Argument(help="A folder of records, or one file.")],
    after: Annotated[Path, typer.Argument(help="Another, from after a change or from another machine.")],
    fail_on: Annotated[
        list[str] | None,
        typer.Option(help=f"Exit with status 1 where a row got {', '.join(REGRESSIONS)}; repeat, or join with commas."),
    ] = None,
) -> None:
    """Show which rows moved beyond their intervals between two sets of records, in speed, size and accuracy."""
    from lowrank_bench.reporting.comparison import compare as compare_records
    from lowrank_bench.reporting.comparison_tables import comparison_terminal

    wanted = [word.strip() for text in fail_on or [] for word in text.split(",")]
    if unknown := sorted(set(wanted) - set(REGRESSIONS)):
        raise InvalidInput(f"--fail-on {unknown[0]!r}: choose from {', '.join(REGRESSIONS)}")
    comparison = compare_records(before, after)
    console = Console()
    console.print(comparison_terminal(comparison))
    if comparison.notes:
        raise InvalidRecord("; ".join(comparison.notes))
    if moved := comparison.regressions(wanted):
        names = sorted({change.direction for change in moved}, key=REGRESSIONS.index)
        console.print(Text(f"--fail-on {','.join(names)}: {len(moved)} regressions", style="bold red"))
        raise typer.Exit(MOVED)


def merge(
    folders: Annotated[list[Path], typer.Argument(help="Folders of records, such as those of several machines.")],
    out: Annotated[Path, typer.Option(help="The folder to unite them in; what it holds already is kept.")],
) -> None:
    """Unite folders of records in one, without losing or doubling a line; the folders are not touched."""
    from lowrank_bench.store import merge as merge_records

    done = merge_records(folders, out)
    text = f"{done.path}: {done.records} records, {done.new} of them new; {done.repeated} repeated lines kept once"
    if done.conflicting:
        text += f"; of {done.conflicting} keys there are several records that differ, of which the last counts"
    if done.unreadable:
        text += f"; {done.unreadable} lines that cannot be read are set aside beside it"
    Console().print(Text(text), soft_wrap=True)
