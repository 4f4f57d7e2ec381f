"""A hundred thousand hostile inputs to the readers of sweeps, plans, weights and records: only named errors."""

from __future__ import annotations

import pytest
from fuzzing import Readers
from hypothesis import HealthCheck, Phase, given, settings

pytestmark = pytest.mark.timeout(7200)

INPUTS = {"sweep": 30_000, "plan": 30_000, "weights": 20_000, "record": 30_000}


@pytest.mark.parametrize("what", INPUTS)
def test_only_named_errors_come_out(tmp_path_factory: pytest.TempPathFactory, what: str) -> None:
    inputs, read = (readers := Readers(tmp_path_factory.mktemp(what))).inputs[what]
    count = 0

    @settings(
        max_examples=INPUTS[what],
        derandomize=False,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs)
    def feed(data: bytes) -> None:
        nonlocal count
        count += 1
        read(data)

    feed()
    print(f"{what}: {count:,} inputs")
    assert count >= INPUTS[what] and readers.outside() == readers.before
