"""The pytest plug-in: the ``lowrank`` fixture, and this machine in what pytest-benchmark writes.

Every run of pytest loads it where the package is installed, so nothing is imported before a test asks for the fixture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from lowrank_bench.benchmarking import LowRank

KEY = "lowrank_bench"
"""Of this machine in pytest-benchmark's ``machine_info``."""

_USED = pytest.StashKey[bool]()


@pytest.fixture
def lowrank(benchmark: Any, request: pytest.FixtureRequest) -> LowRank:
    """Time one low-rank method on one model: ``lowrank(model, method, budget)``. Needs pytest-benchmark.

    See ``lowrank_bench.benchmarking.LowRank``.
    """
    from lowrank_bench.benchmarking import LowRank

    request.config.stash[_USED] = True
    return LowRank(benchmark)


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Where the fixture was used, add versions, threads and processor as every record of this package has them."""
    if config.stash.get(_USED, False):
        _describe(machine_info)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_benchmark_compare_machine_info(machine_info: dict[str, Any], compared_benchmark: dict[str, Any]) -> None:
    """Compare like with like: the saved run used the fixture, this one has not yet begun."""
    if KEY in compared_benchmark["machine_info"]:
        _describe(machine_info)


def _describe(machine_info: dict[str, Any]) -> None:
    from lowrank_bench.measurement.environment import fingerprint

    machine_info[KEY] = fingerprint().model_dump(mode="json", exclude={"load"})
    for passing in ("hz_actual", "hz_actual_friendly"):  # the clock at this moment would make every two runs differ
        machine_info.get("cpu", {}).pop(passing, None)
