"""Benchmark of low-rank compression methods for convolutional networks: measured CPU speedup, parameters, accuracy."""

from typing import TYPE_CHECKING

from lowrank_bench import errors
from lowrank_bench.api import compress, factorize
from lowrank_bench.compression.compose import compose
from lowrank_bench.compression.cost import Cost, count
from lowrank_bench.compression.model import Compressed, load
from lowrank_bench.errors import *  # noqa: F403  every class there is public
from lowrank_bench.measurement.speedup import Speedup, measure_speedup
from lowrank_bench.reporting.records_frame import load_records
from lowrank_bench.trial import Budget, Measurement, Trial

if TYPE_CHECKING:
    from lowrank_bench.compression.registry import methods
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
