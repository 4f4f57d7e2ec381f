"""Markdown: text as it stands, tables, and what opens by a click."""

from __future__ import annotations

import html
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


def folded(title: str, said: str, *parts: str) -> str:
    """Parts in markdown, empty ones left out, of which a title with what is said beside it is seen until one clicks."""
    seen = f"<summary><b>{html.escape(title, quote=False)}</b>, {html.escape(said, quote=False)}</summary>"
    return "\n\n".join([f"<details>\n{seen}", *filter(None, parts), "</details>"])


def bullets(lines: Sequence[tuple[str, str]]) -> str:
    """A list of names with their texts, escaped."""
    return "\n".join(f"- {escape(name)}: {escape(text)}" for name, text in lines)


def told_line(facts: Sequence[tuple[str, str]]) -> str:
    """Facts, each with its name, in a line."""
    return escape("; ".join(f"{name}: {text}" for name, text in facts))
