"""The files that a module of the user's is made of: its own, and those beside and below it that it imports."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

INSTALLED = ("site-packages", "dist-packages")
"""Folders in which the modules have nothing to do with one another."""


def python_files(package: Path) -> list[Path]:
    """Those of a package's folder, and below it."""
    return sorted(file for file in package.rglob("*.py") if not file.name.startswith("."))


def imported_files(modules: Iterable[Path], folder: Path) -> list[Path]:
    """The modules' files and, unless that is where packages are installed, those of the ``folder`` that they are
    imported from, or below it, that their import statements name, wherever they stand, and those that these name;
    sorted. Nothing is run, so that the answer is the same whatever was imported before; what is imported by a name that
    is only known then is not seen.
    """
    found, waiting = set[Path](), [*modules]
    if folder.name in INSTALLED:
        return sorted(waiting)
    while waiting:
        if (file := waiting.pop()) not in found:
            found.add(file)
            waiting += [place for name in _imported_names(file, folder) for place in _files_of(name, folder)]
    return sorted(found)


def _imported_names(file: Path, folder: Path) -> Iterator[str]:
    """Those of modules, and of what may be one, as seen from ``folder``."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # whoever imports it says so
        return
    package = file.parent.relative_to(folder).parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = [*above, *([node.module] if node.module else [])]
            yield ".".join(base)
            yield from (".".join([*base, alias.name]) for alias in node.names)


def _files_of(name: str, folder: Path) -> Iterator[Path]:
    """Those that importing it runs: of the packages on the way, and its own."""
    place = folder
    for part in name.split("."):
        place /= part
        package, module = place / "__init__.py", place.with_name(f"{part}.py")
        if package.is_file():
            yield package
        elif module.is_file():
            yield module
            return
        elif not place.is_dir():
            return
