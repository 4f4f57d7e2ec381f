"""Ctrl-C: the children go, what is recorded stays, and the last line says how to go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import alive
from real_runs import START

from lowrank_bench.reading import read_records

PLUGINS = Path(__file__).parents[1] / "plugins"
SWEEP = """
[sweep]
task = "chars36"
models = ["charnet"]
methods = ["raises", "hangs"]
ranks = ["full"]
recipe = "none"
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_ends_the_children_keeps_the_records_and_says_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "sweep.toml").write_text(SWEEP)
    mark = tmp_path / "mark"
    command = [sys.executable, "-P", "-c", START]
    command += ["run", "sweep.toml", "--methods-dir", str(PLUGINS), "--out", "results", "-j", "3"]
    run = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=os.environ | {"LOWRANK_BENCH_TEST_MARK": str(mark), "LOWRANK_BENCH_LOCKS": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while not (mark.exists() and len(read_records(tmp_path / "results", allow_empty=True)) == 2):
            assert run.poll() is None, run.communicate()
            time.sleep(0.1)
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=30)
    finally:
        run.kill()
    assert run.returncode == 130
    assert "the same command goes on from here" in said and "Traceback" not in said
    assert not any(alive(int(process)) for process in mark.read_text().split())
    assert {record.status for record in read_records(tmp_path / "results")} == {"ok", "failed"}
