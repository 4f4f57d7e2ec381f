"""Readers of sweeps, plans, weights and records answer hostile input with named errors only.

The quick part; tests/slow/test_fuzz_readers.py reads a hundred thousand inputs.
"""

from __future__ import annotations

import json

import pytest
from fuzzing import Readers
from hypothesis import HealthCheck, given, settings


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> Readers:
    return Readers(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("what", ["sweep", "plan", "weights", "record"])
def test_hostile_input_is_answered_with_a_named_error(readers: Readers, what: str) -> None:
    inputs, read = readers.inputs[what]

    @settings(max_examples=150, suppress_health_check=list(HealthCheck))
    @given(inputs)
    def feed(data: bytes) -> None:
        read(data)

    feed()


def test_depth_without_end_is_refused(readers: Readers) -> None:
    for data in (b"x = " + b"[" * 100_000, b'{"a":' * 100_000, b"[" * 100_000):
        readers.read_sweep(data)
        readers.read_plan(data)
        readers.read_record(data)


def test_a_name_of_a_layer_is_a_name_and_never_a_path(readers: Readers) -> None:
    for name in ("../../x", "/etc/passwd", "0/../../x", "0.__class__", "", "\x00"):
        readers.read_plan(readers.plan.replace(b'"0"', json.dumps(name).encode()))
