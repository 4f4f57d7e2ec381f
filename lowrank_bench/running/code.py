"""Which source made a result: recorded beside it, and the reason to trust or drop what an interrupted trial left."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from functools import cache
from pathlib import Path

from lowrank_bench.compression import registry
from lowrank_bench.compression.method import Method


@cache
def code_fingerprint() -> str:
    """Twelve hexadecimal digits over the source of the package and its methods, recorded beside every result."""
    digest = hashlib.sha256()
    for package in ("lowrank_bench", registry.BUILT_IN):
        for path in sorted(Path(importlib.import_module(package).__path__[0]).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def source_of(method: type[Method]) -> str:
    """Twelve hexadecimal digits over the package and the file that defines a method, wherever that is."""
    digest = hashlib.sha256(code_fingerprint().encode())
    digest.update(Path(inspect.getfile(method)).read_bytes())
    return digest.hexdigest()[:12]
