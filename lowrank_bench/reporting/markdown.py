"""Markdown: text as it stands, and tables."""

from __future__ import annotations

import re
from collections.abc import Sequence


def escape(text: str) -> str:
    """Text as it stands, in one line, whatever characters of markdown or html it holds."""
    text = " ".join(text.split())
    # An underscore within a word means nothing, and names are full of them.
    text = re.sub(r"[\\`*|~$#]|(?<=\])\(|(?<!\w)_|_(?!\w)", r"\\\g<0>", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in markdown, its cells escaped."""
    lines = [headings, ["---"] * len(headings), *([escape(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def bullets(lines: Sequence[tuple[str, str]]) -> str:
    """A list of names with their texts, escaped."""
    return "\n".join(f"- {escape(name)}: {escape(text)}" for name, text in lines)
