"""Benchmark of low-rank compression methods for convolutional networks: measured CPU speedup, parameters, accuracy.

Public names are imported when they are first asked for: torch takes seconds, and every run of pytest imports this
package for its plug-in.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lowrank_bench import errors
from lowrank_bench.errors import *  # noqa: F403  every class there is public

if TYPE_CHECKING:
    from lowrank_bench.api import compress, factorize, measure_speedup
    from lowrank_bench.compression.compose import compose
    from lowrank_bench.compression.cost import Cost, count
    from lowrank_bench.compression.model import Compressed, load
    from lowrank_bench.compression.registry import methods
    from lowrank_bench.measurement.speedup import Speedup
    from lowrank_bench.reporting.frame.records_frame import load_records
    from lowrank_bench.trial import Budget, Measurement, Trial

_HOMES = {
    "Budget": "trial",
    "Compressed": "compression.model",
    "Cost": "compression.cost",
    "Measurement": "trial",
    "Speedup": "measurement.speedup",
    "Trial": "trial",
    "compose": "compression.compose",
    "compress": "api",
    "count": "compression.cost",
    "factorize": "api",
    "load": "compression.model",
    "load_records": "reporting.frame.records_frame",
    "measure_speedup": "api",
}
_ROOMS = {"compression", "decomposition", "measurement", "methods", "reporting", "running", "tasks", "training"}

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
    """Import what is asked for; ``methods`` is a package, which lists the methods when it is called."""
    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
