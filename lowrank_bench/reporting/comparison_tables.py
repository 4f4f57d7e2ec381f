"""A comparison as people read it in a terminal: what differs around the rows first, then what moved."""

from __future__ import annotations

from rich.console import Group
from rich.text import Text

from lowrank_bench.reporting.boards.tables import Grid
from lowrank_bench.reporting.comparison import Change, Comparison
from lowrank_bench.reporting.leaderboard import rich_table
from lowrank_bench.terminal import TerminalTable

_LISTED = 20


def comparison_terminal(comparison: Comparison) -> Group:
    """All of a comparison, for rich to print."""
    parts: list[Text | TerminalTable] = [Text(note, style="bold red") for note in comparison.notes]
    if comparison.differences:
        parts += [_title("What differs around the rows"), _grid(["", "Before", "After"], comparison.differences)]
    elif not comparison.notes:
        parts.append(Text("Environment, versions and code are the same on both sides."))
    if comparison.other_machines:
        parts.append(
            Text(
                "The machines differ: what moved in speed is shown, but a difference of machines is no regression and "
                "fails nothing. Time both sides on one machine to tell.",
                style="bold",
            )
        )
    both = f"{comparison.compared} timed rows and {comparison.models} models of both sides"
    parts.append(_title(f"{len(comparison.changes)} changes in {both}"))
    if comparison.changes:
        headings = ["Row", "Where", "What", "Before", "After", "", "Regression"]
        parts.append(_grid(headings, [_cells(change) for change in comparison.changes]))
    elif not comparison.notes:
        parts.append(Text("Nothing moved beyond its interval."))
    for title, names in (("Only before", comparison.only_before), ("Only after", comparison.only_after)):
        if names:
            parts += [_title(f"{title}: {len(names)} rows"), *map(Text, names[:_LISTED])]
        if len(names) > _LISTED:
            parts.append(Text(f"and {len(names) - _LISTED} more"))
    return Group(*parts)


def _cells(change: Change) -> tuple[str, ...]:
    regression = "yes" if change.regression else ""
    return change.row, change.setting, change.measure, change.before, change.after, change.direction, regression


def _title(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def _grid(headings: list[str], rows: list[tuple[str, ...]] | list[tuple[str, str, str]]) -> TerminalTable:
    return rich_table(Grid(headings, [[*row] for row in rows]))
