"""Tables for a terminal, whose words stay whole."""

from __future__ import annotations

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

_WIDE = 10_000


class TerminalTable(Table):
    """A table of rich whose columns are as wide as their longest lines, else at least as their longest words, the
    widest ones narrowed first; where the terminal has not even room for the words, the longest of them go on below, and
    nothing is cut off. ``ruled``: with a line below the headings.
    """

    def __init__(self, *headings: str, ruled: bool = False) -> None:
        super().__init__(box=box.SIMPLE if ruled else None, padding=(0, 1 if ruled else 2, 0, 0), pad_edge=False)
        for heading in headings:
            self.add_column(heading, overflow="fold")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """As rich draws it, the columns' widths set."""
        wide = options.update(max_width=_WIDE)
        words, lines = [], []
        for column in self.columns:
            column.width = None
            cells = [console.measure(cell, options=wide) for cell in (column.header, *column.cells)]
            words.append(max(cell.minimum for cell in cells))
            lines.append(max(cell.maximum for cell in cells))
        between = console.measure(self, options=wide).maximum - sum(lines)
        for column, width in zip(self.columns, _widths(words, lines, options.max_width - between), strict=True):
            column.width = width
        yield from super().__rich_console__(console, options)


def _widths(words: list[int], lines: list[int], room: int) -> list[int]:
    """Width of each column: its lines if all fit, else the most at which no column goes beyond a common limit but for
    its longest word.
    """
    least, most = (words, lines) if sum(words) <= room else ([1] * len(words), words)
    found = least
    for limit in range(1, max(most, default=0) + 1):
        widths = [min(line, max(word, limit)) for word, line in zip(least, most, strict=True)]
        if sum(widths) > room:
            break
        found = widths
    return found
