"""Runs that are killed at random moments, and records that were damaged: nothing is lost, doubled or made up.

The quick part; tests/slow/test_faults.py does the same with real children, longer.
"""

from __future__ import annotations

import os
import random
import signal
import time
import warnings
from pathlib import Path

import pytest
from invariants import check_cut_off, check_finished, lines
from noop import ENVIRONMENT, NoopCrew, measurements, trials

from lowrank_bench.reading import read_records
from lowrank_bench.record import TrialRecord
from lowrank_bench.running.crew import LocalCrew
from lowrank_bench.running.engine import Engine
from lowrank_bench.store import FILE_NAME, Store

KILLS, TRIALS = 20, 40

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills copies of this process")


@pytest.fixture(autouse=True)
def own_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOWRANK_BENCH_LOCKS", str(tmp_path))


def run_all(folder: Path) -> None:
    made = trials(TRIALS)
    Engine(folder, ENVIRONMENT, crew=NoopCrew(LocalCrew(jobs=2))).run(made, measurements(made))


def killed_after(folder: Path, records: int, seconds: float) -> bool:
    """Run the sweep in a copy of this process, and kill it so long after so many more records; whether it still ran."""
    wanted = written(folder) + records
    copy = os.fork()
    if not copy:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                run_all(folder)
        finally:
            os._exit(0)
    while written(folder) < wanted and os.waitid(os.P_PID, copy, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        time.sleep(0.0005)
    time.sleep(seconds)
    os.kill(copy, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(copy, 0)[1])


def written(folder: Path) -> int:
    path = folder / FILE_NAME
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_a_run_killed_at_random_moments_loses_and_doubles_nothing(tmp_path: Path) -> None:
    folder, chance, before, killed = tmp_path / "results", random.Random(0), list[bytes](), 0
    for _ in range(KILLS):
        killed += killed_after(folder, chance.randint(0, 5), chance.uniform(0.0, 0.001))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of half-written lines
            before = check_cut_off(folder, before)
    assert killed > KILLS / 2, "most runs were still running when they were killed"
    run_all(folder)
    made = trials(TRIALS)
    check_finished(folder, [each.key for each in (*made, *measurements(made))])


def record(seed: int, **fields: object) -> TrialRecord:
    trial = trials(seed + 1)[seed]
    return TrialRecord(**{"key": trial.key, "trial": trial, "status": "ok"} | fields)


@pytest.mark.parametrize("damage", ["half", "duplicate", "reorder", "foreign", "empty", "binary"])
def test_damaged_lines_cost_at_most_themselves(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    for seed in range(3):
        store.append(record(seed))
    first, second, third = lines(tmp_path)
    changed = {
        "half": [first, second[: len(second) // 2], third],
        "duplicate": [first, first, second, second, third],
        "reorder": [third, first, second],
        "foreign": [first, b'{"kind": "trial", "accuracy": 1}', second, b"[]", b"null", third],
        "empty": [b"", first, b"", second, third, b"  "],
        "binary": [first, bytes(range(256)).replace(b"\n", b""), second, third],
    }[damage]
    (tmp_path / FILE_NAME).write_bytes(b"\n".join(changed) + b"\n")
    kept = {0, 2} if damage == "half" else {0, 1, 2}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert {r.trial.seed for r in read_records(tmp_path) if isinstance(r, TrialRecord)} == kept
        summary = Engine(tmp_path, ENVIRONMENT, crew=NoopCrew()).run(trials(3), [])
    assert summary.ran == 3 - len(kept), "what is damaged is done again, and nothing else"


@pytest.mark.parametrize("cut", [1, 2, 50])
def test_a_line_cut_off_anywhere_costs_at_most_itself(tmp_path: Path, cut: int) -> None:
    store = Store(tmp_path)
    for seed in range(2):
        store.append(record(seed))
    os.truncate(store.path, store.path.stat().st_size - cut)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        summary = Engine(tmp_path, ENVIRONMENT, crew=NoopCrew()).run(trials(3), [])
    whole = cut == 1  # but for the end of the line, which says nothing
    assert summary.ran == (1 if whole else 2)
    assert sorted(r.trial.seed for r in read_records(tmp_path) if isinstance(r, TrialRecord)) == [0, 1, 2]


def test_a_clock_that_jumps_back_does_not_bring_an_old_outcome_back(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append(record(0, status="failed", finished="2026-11-21T12:00:00+00:00"))
    store.append(record(0, finished="2001-01-01T00:00:00+00:00"))
    assert Engine(tmp_path, ENVIRONMENT, crew=NoopCrew(), retry=["failed"]).run(trials(1), []).ran == 0


def test_numbers_that_are_none_come_back_as_they_were(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append(record(0, seconds={"decompose": float("inf")}))
    (kept,) = store.records()
    assert kept.seconds == {"decompose": float("inf")}
