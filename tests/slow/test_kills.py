"""Runs are killed at random moments of real sweeps, fifty times: every invariant holds after each, and nothing is lost.

Each run is the command in a copy of this process, which has imported already what takes seconds; its children are real.
"""

from __future__ import annotations

import math
import os
import random
import signal
import sys
import time
import traceback
import warnings
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pytest
from campaign import Part
from invariants import check_cut_off, check_finished
from real_runs import MARK, check_gone, keys, write_sweep

from lowrank_bench.cli import main

pytestmark = [
    pytest.mark.timeout(7200),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="kills copies of this process"),
]

KILLS = 25
SEEDS = 1
# Seconds after the start of a run's first child; where nothing else runs, a sweep takes forty.
LATEST = 25.0
COLUMNS = ["Fault", "Tried", "With work left", "Survived", "Records lost or doubled"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_kill_at_random_moments(tmp_path: Path, jobs: int) -> None:
    """Sweep after sweep, until there were enough kills."""
    chance, part = random.Random(jobs), Part(f"Killed runs, -j {jobs}", "test_kills.py", COLUMNS)
    with part.faults("kill -9 of a run at a random moment") as row:
        row["With work left"] = 0
        for sweep in count():
            folder, before = tmp_path / str(sweep), list[bytes]()
            folder.mkdir()
            write_sweep(folder, SEEDS)
            while row["Tried"] < KILLS and not ends_well(folder, jobs, chance.uniform(0, LATEST), row):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of half-written lines
                    after = check_cut_off(folder / "results", before)
                row["Survived"] += 1
                row["With work left"] += len(after) < len(keys(folder))
                before = after
            if row["Tried"] == KILLS:
                assert ends_well(folder, jobs)
            check_finished(folder / "results", keys(folder), real=True)
            if row["Tried"] == KILLS:
                break


def ends_well(folder: Path, jobs: int, seconds: float = math.inf, row: dict[str, Any] | None = None) -> bool:
    """Run the sweep, and kill it so long after its first child began, which its row counts; whether it was done."""
    run = command(folder, "run", "sweep.toml", "--out", "results", "-j", str(jobs))
    deadline = None
    while not (ended := os.waitpid(run, os.WNOHANG))[0]:
        if deadline is None and psutil.Process(run).children():
            deadline = time.monotonic() + seconds
        if deadline is not None and time.monotonic() > deadline:
            if row is not None:
                row["Tried"] += 1
            os.kill(run, signal.SIGKILL)
            os.waitpid(run, 0)
            check_gone(folder)
            return False
        time.sleep(0.02)
    assert ended[1] == 0, (folder / "said").read_text()
    return True


def command(folder: Path, *arguments: str) -> int:
    """Run the command in a copy of this process; returns its number."""
    copy = os.fork()
    if copy:
        return copy
    code: int | str | None = 99
    try:
        os.chdir(folder)
        os.environ |= {MARK: str(folder), "LOWRANK_BENCH_LOCKS": str(folder)}
        with (folder / "said").open("ab") as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
        sys.stderr, sys.argv = sys.__stderr__, ["lowrank-bench", *arguments]
        main()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code if isinstance(code, int) else 0 if code is None else 98)
