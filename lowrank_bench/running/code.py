"""Which source made a result: recorded beside it, and the reason to trust or drop what an interrupted trial left."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from functools import cache
from pathlib import Path

from lowrank_bench.compression import registry
from lowrank_bench.compression.method import Method
from lowrank_bench.tasks.own_imports import imported_files, python_files


@cache
def code_fingerprint() -> str:
    """Twelve hexadecimal digits over the source of the package and its methods, recorded beside every result."""
    digest = hashlib.sha256()
    for package in ("lowrank_bench", registry.BUILT_IN):
        for path in sorted(Path(importlib.import_module(package).__path__[0]).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def source_of(method: type[Method]) -> str:
    """Twelve hexadecimal digits over the package and, for a method that is not its own, over the file or the package
    that defines it, with what these import from beside them.
    """
    digest = hashlib.sha256(code_fingerprint().encode())
    if not method.__module__.startswith(f"{registry.BUILT_IN}."):
        for path in _files_of(Path(inspect.getfile(method))):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _files_of(file: Path) -> list[Path]:
    outermost = file
    while (outermost.parent / "__init__.py").is_file():
        outermost = outermost.parent
    return imported_files([file] if outermost == file else python_files(outermost), outermost.parent)
