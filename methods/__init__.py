"""The compression methods that come with lowrank_bench, one per file: found by scan, so a new file is a new method.

The package is callable, so that ``lowrank_bench.methods()`` lists every method and ``lowrank_bench.methods.tucker`` is
one.
"""

from __future__ import annotations

import sys
from types import ModuleType

from lowrank_bench.compression.method import Method
from lowrank_bench.compression.registry import methods


class _Listing(ModuleType):
    def __call__(self) -> dict[str, type[Method]]:
        return methods()


sys.modules[__name__].__class__ = _Listing
