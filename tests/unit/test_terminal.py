"""Tables for a terminal: words stay whole where there is room for them, and nothing is ever cut off."""

from __future__ import annotations

import pytest
from rich.console import Console
from rich.text import Text

from lowrank_bench.terminal import TerminalTable

WORDS = ["jaderberg", "onnxruntime 1t b1", "1.51 [1.50, 1.52]", "a reason that goes on for longer than all the others"]


def drawn(width: int, *, ruled: bool = False) -> list[str]:
    table = TerminalTable("Method", "Setting", "Speedup", "Reason", ruled=ruled)
    table.add_row(*map(Text, WORDS))
    console = Console(width=width)
    with console.capture() as shown:
        console.print(table)
    return shown.get().splitlines()


@pytest.mark.parametrize("ruled", [False, True])
@pytest.mark.parametrize("width", [50, 60, 80, 100])
def test_words_stay_whole_and_lines_fit(width: int, ruled: bool) -> None:
    lines = drawn(width, ruled=ruled)
    assert max(map(len, lines)) <= width
    shown = " ".join(lines).split()
    assert {word for text in WORDS for word in text.split()} <= set(shown)


def test_a_row_takes_one_line_where_there_is_room() -> None:
    assert [line.split() for line in drawn(120)][1] == " ".join(WORDS).split()


def test_the_widest_columns_are_narrowed_first() -> None:
    first, second = drawn(80)[1:3]
    assert all(text in first for text in WORDS[:3])
    assert second.strip() == "longer than all the others"


def test_where_not_even_the_words_fit_nothing_is_cut_off() -> None:
    lines = drawn(24)
    assert max(map(len, lines)) <= 24
    letters = sorted("".join(["Method", "Setting", "Speedup", "Reason", *WORDS]).replace(" ", ""))
    assert sorted("".join(lines).replace(" ", "")) == letters
