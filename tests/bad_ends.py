"""Every method of tests/plugins/ends.py, with the status and the words of the record that it leaves."""

from __future__ import annotations

from pathlib import Path

from lowrank_bench.record import Status

PLUGINS = Path(__file__).parent / "plugins"
EXPECTED = {
    "hangs": (Status.TIMEOUT, "not done after"),
    "raises": (Status.FAILED, "RuntimeError: no luck"),
    "exits": (Status.CRASHED, "with status 7"),
    "eats_tensors": (Status.OUT_OF_MEMORY, "memory"),
    "eats_objects": (Status.OUT_OF_MEMORY, "MemoryError"),
    "returns_nan": (Status.DIVERGED, "not finite"),
    "returns_a_wrong_shape": (Status.FAILED, "NonConforming"),
    "cannot_export": (Status.NOT_EXPORTABLE, "cannot take"),
}
