"""Benchmark of low-rank compression methods for convolutional networks: measured CPU speedup, parameters, accuracy."""

from typing import TYPE_CHECKING, Any

from lowrank_bench import errors
from lowrank_bench.api import compress, factorize
from lowrank_bench.compression.compose import compose
from lowrank_bench.compression.cost import Cost, count
from lowrank_bench.compression.model import Compressed, load
from lowrank_bench.errors import *  # noqa: F403  every class there is public
from lowrank_bench.measurement.speedup import Speedup, measure_speedup
from lowrank_bench.trial import Budget, Measurement, Trial

if TYPE_CHECKING:
    from lowrank_bench.compression.registry import methods
    from lowrank_bench.reporting.records_frame import load_records
else:
    from lowrank_bench import methods  # the package, which lists the methods when it is called

__all__ = [
    "Budget",
    "Compressed",
    "Cost",
    "Measurement",
    "Speedup",
    "Trial",
    "compose",
    "compress",
    "count",
    "errors",
    "factorize",
    "load",
    "load_records",
    "measure_speedup",
    "methods",
    *errors.__all__,
]


def __getattr__(name: str) -> Any:
    """`load_records` comes with pandas, whose import would cost every child process half a second."""
    if name == "load_records":
        from lowrank_bench.reporting.records_frame import load_records

        return load_records
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
