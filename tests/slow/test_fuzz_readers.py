"""More than a hundred thousand hostile inputs to the readers of sweeps, plans, weights and records: only named errors.

By hypothesis, which damages good documents in all ways, and by atheris, where it is installed, which looks for inputs
that reach code which none before has reached.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from campaign import Part
from fuzzing import Readers
from hypothesis import HealthCheck, Phase, given, settings

pytestmark = pytest.mark.timeout(7200)

INPUTS = {"sweep": 30_000, "plan": 25_000, "weights": 20_000, "record": 30_000}
RUNS = 10_000
TESTS = Path(__file__).parents[1]


PART = Part("Hostile input", "test_fuzz_readers.py", ["Reader", "By", "Inputs", "Errors without a name"], keys=2)


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

    with PART.row(what, "hypothesis") as row:
        row["Errors without a name"] = "at least 1"
        try:
            feed()
        finally:
            row["Inputs"] = f"{count:,}"
        row["Errors without a name"] = 0
        assert count >= INPUTS[what] and readers.outside() == readers.before


@pytest.mark.parametrize("what", INPUTS)
def test_nor_where_inputs_are_led_by_the_code_that_they_reach(tmp_path: Path, what: str) -> None:
    pytest.importorskip("atheris", reason="pip install atheris")
    command = [sys.executable, "-P", str(TESTS / "atheris_target.py"), what, str(tmp_path), f"-runs={RUNS}"]
    environment = os.environ | {"PYTHONPATH": str(TESTS), "PYTHONWARNINGS": "ignore"}
    run = subprocess.run([*command, "-max_len=8192"], env=environment, capture_output=True, text=True, cwd=tmp_path)
    with PART.row(what, "atheris") as row:
        assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-4000:]
        row["Errors without a name"] = 0
        done = re.search(r"Done (\d+) runs", run.stderr)
        assert done and int(done[1]) >= RUNS
        row["Inputs"] = f"{int(done[1]):,}"
