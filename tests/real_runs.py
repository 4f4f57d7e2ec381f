"""Real runs of the command line in a folder of their own, to be killed, stopped and watched."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import psutil

from lowrank_bench.measurement.environment import fingerprint
from lowrank_bench.running.sweep import plan

# The run and its children read it in /proc/PID/environ: so they are known from all others.
MARK = "LOWRANK_BENCH_FAULT_TEST"
SWEEP = """
[sweep]
task = "chars36"
models = ["charnet"]
methods = {methods}
budgets = [{{macs = 4}}]
seeds = {seeds}
recipe = "none"
[measure]
runtimes = ["eager"]
precision = 0.1
max_seconds = 1
"""
METHODS = '["channel_svd", "jaderberg"]'
# Where a shell started the tests in the background, they and what they start ignore Ctrl-C.
START = "import signal; signal.signal(2, signal.default_int_handler); from lowrank_bench.cli import main; main()"


def write_sweep(folder: Path, seeds: int, methods: str = METHODS) -> None:
    """The sweep of so many seeds of each method."""
    (folder / "sweep.toml").write_text(SWEEP.format(methods=methods, seeds=list(range(seeds))))


def start(
    folder: Path,
    seeds: int,
    *arguments: str,
    methods: str = METHODS,
    locks: Path | None = None,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> subprocess.Popen[str]:
    """A run of it into ``folder / "results"``; only runs with the same ``locks`` wait for one another."""
    write_sweep(folder, seeds, methods)
    command = [sys.executable, "-P", "-c", START, "run", "sweep.toml", "--out", "results", *arguments]
    environment = os.environ | {MARK: str(folder), "LOWRANK_BENCH_LOCKS": str(locks or folder)} | variables
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


def keys(folder: Path) -> list[str]:
    """What its sweep is to leave."""
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


def check_gone(folder: Path, within: float = 10) -> None:
    """Nothing of a folder's runs goes on computing."""
    ended = time.monotonic()
    while left(folder):
        assert time.monotonic() - ended < within, "a child outlived its parent"
        time.sleep(0.05)


def children_of(run: subprocess.Popen[str], within: float = 60) -> list[psutil.Process]:
    """The children of a run, as soon as it has one; none where it ended without."""
    begun = time.monotonic()
    while run.poll() is None:
        if found := psutil.Process(run.pid).children(recursive=True):
            return found
        assert time.monotonic() - begun < within, "the run has no child"
        time.sleep(0.05)
    return []
