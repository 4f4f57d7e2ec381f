"""Benchmark of low-rank compression methods for convolutional networks: measured CPU speedup, parameters, accuracy."""

from lowrank_bench import errors
from lowrank_bench.api import compress, factorize
from lowrank_bench.compression.compose import compose
from lowrank_bench.compression.cost import Cost, count
from lowrank_bench.compression.model import Compressed, load
from lowrank_bench.compression.registry import methods
from lowrank_bench.errors import *  # noqa: F403  every class there is public
from lowrank_bench.trial import Budget, Measurement, Trial

__all__ = [
    "Budget",
    "Compressed",
    "Cost",
    "Measurement",
    "Trial",
    "compose",
    "compress",
    "count",
    "errors",
    "factorize",
    "load",
    "methods",
    *errors.__all__,
]
