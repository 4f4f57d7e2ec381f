"""The whole campaign of faults, on real sweeps with real children: what is tried, and that nothing is lost.

With LOWRANK_BENCH_FAULTS_TABLE set, the table is written to the file that it names:
LOWRANK_BENCH_FAULTS_TABLE=results/published/faults.md pytest tests/slow/test_faults.py --timeout 0
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from invariants import check_cut_off, check_finished
from small_disk import small_disk

from lowrank_bench.measurement.environment import fingerprint
from lowrank_bench.running.sweep import plan

pytestmark = [
    pytest.mark.timeout(7200),
    pytest.mark.skipif(os.name == "nt", reason="signals of POSIX"),
]

KILLS = 50
# The run and its children read it in /proc/PID/environ: so they are known from all others.
MARK = "LOWRANK_BENCH_FAULT_TEST"
SWEEP = """
[sweep]
task = "chars36"
models = ["charnet"]
methods = ["channel_svd", "jaderberg"]
budgets = [{{macs = 4}}]
seeds = {seeds}
recipe = "none"
[measure]
runtimes = ["eager"]
precision = 0.1
max_seconds = 1
"""
START = "from lowrank_bench.cli import main; main()"


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    rows: list[str] = []
    yield rows
    text = "| Fault | Tried | Survived | Records lost or doubled |\n| --- | --- | --- | --- |\n" + "".join(rows)
    print(f"\n{text}")
    if path := os.environ.get("LOWRANK_BENCH_FAULTS_TABLE"):
        Path(path).write_text(f"# Faults\n\nMade by `pytest tests/slow/test_faults.py`, on real sweeps.\n\n{text}")


def start(folder: Path, seeds: int, *arguments: str) -> subprocess.Popen[str]:
    (folder / "sweep.toml").write_text(SWEEP.format(seeds=list(range(seeds))))
    command = [sys.executable, "-P", "-c", START, "run", "sweep.toml", "--out", "results", *arguments]
    environment = os.environ | {MARK: str(folder), "TMPDIR": str(folder)}
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


def keys(folder: Path) -> list[str]:
    trials, measurements = plan(str(folder / "sweep.toml"), fingerprint().machine)
    return [each.key for each in (*trials, *measurements)]


def left(folder: Path) -> list[psutil.Process]:
    """Processes of a folder's runs that are still there."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            pass
    return found


@pytest.mark.parametrize("jobs", [1, 2])
def test_kill_at_random_moments(tmp_path: Path, table: list[str], jobs: int) -> None:
    chance, before, killed = random.Random(jobs), list[bytes](), 0
    while killed < KILLS // 2:
        run = start(tmp_path, 8, "-j", str(jobs))
        try:
            run.wait(timeout=chance.uniform(5, 40))
            break  # all was done
        except subprocess.TimeoutExpired:
            run.send_signal(signal.SIGKILL)
            run.communicate()
        killed += 1
        ended = time.monotonic()
        while left(tmp_path):
            assert time.monotonic() - ended < 10, "a child outlived its parent"
            time.sleep(0.1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of half-written lines
            before = check_cut_off(tmp_path / "results", before)
    last = start(tmp_path, 8)
    _, said = last.communicate()
    assert last.returncode == 0, said
    check_finished(tmp_path / "results", keys(tmp_path), real=True)
    table.append(f"| kill -9 of the run at a random moment, -j {jobs} | {killed} | {killed} | 0 |\n")


def test_a_disk_that_fills(tmp_path: Path, table: list[str]) -> None:
    stopped = 0
    with small_disk(tmp_path / "results", 4_000) as disk:
        while stopped < 20:
            run = start(tmp_path, 2)
            _, said = run.communicate()
            if run.returncode == 0:
                break
            stopped += 1
            assert run.returncode == 2 and "No space left" in said and "Traceback" not in said, said
            assert not list(disk.rglob(".*.draft"))
            more = f"remount,size={4_000 * (stopped + 1)}k"
            subprocess.run(["mount", "-o", more, str(disk)], check=True)
        assert stopped
        check_finished(disk, keys(tmp_path), real=True)
    table.append(f"| the disk fills | {stopped} | {stopped} | 0 |\n")


def test_two_runs_over_one_folder(tmp_path: Path, table: list[str]) -> None:
    first, second = start(tmp_path, 1), start(tmp_path, 1)
    said = [run.communicate()[1] for run in (first, second)]
    assert sorted((first.returncode, second.returncode)) in ([0, 0], [0, 2]), said
    check_finished(tmp_path / "results", keys(tmp_path), real=True)
    table.append("| two runs over one folder | 1 | 1 | 0 |\n")


def test_runs_side_by_side_over_two_folders_time_one_after_the_other(tmp_path: Path, table: list[str]) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    runs = [start(folder, 1) for folder in folders]
    said = [run.communicate()[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    for folder in folders:
        check_finished(folder / "results", keys(folder), real=True)
    table.append("| two runs on one machine | 1 | 1 | 0 |\n")
