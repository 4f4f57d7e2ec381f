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
    "not_a_number": (Status.DIVERGED, "not finite"),
    "wrong_shape": (Status.FAILED, "NonConforming"),
    "cannot_export": (Status.NOT_EXPORTABLE, "cannot take"),
}
