"""From a sweep file to a board of true numbers: the real task, the real network, real children, a real clock."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lowrank_bench.reporting.frame.records_frame import load_records

SWEEP = """
[sweep]
task = "chars36"
models = ["charnet"]
methods = ["jaderberg"]
budgets = [{macs = 4}, {macs = 100000}]
recipe = "none"
[measure]
runtimes = ["eager-nhwc"]
batches = [64]
precision = 0.05
max_seconds = 2
"""


def lowrank_bench(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-c", "from lowrank_bench.cli import main; main()", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.timeout(300)
def test_a_sweep_becomes_a_board_and_running_again_does_nothing(tmp_path: Path) -> None:
    (tmp_path / "mini.toml").write_text(SWEEP)
    ran = lowrank_bench("run", "mini.toml", folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    records = tmp_path / "results" / "local" / "records.jsonl"
    before = records.read_bytes()
    again = lowrank_bench("run", "mini.toml", folder=tmp_path)
    assert again.returncode == 0 and "0 done now" in again.stderr
    assert records.read_bytes() == before

    frame = load_records(tmp_path / "results" / "local")
    control = frame[(frame.method == "identity") & (frame.runtime == "eager-nhwc")].iloc[0]
    assert control.speedup == pytest.approx(1, abs=0.15) and control.top1_drop == 0 and control.verdict == "same"
    row = frame[(frame.method == "jaderberg") & (frame.status == "ok")].iloc[0]
    assert row.macs_ratio == pytest.approx(4, rel=0.05)
    assert row.speedup_low <= row.speedup <= row.speedup_high
    assert row.speedup > 1.3 and row.realised == pytest.approx(row.speedup / row.macs_ratio)
    assert 0 < row.top1_before < 100 and row.top1_drop_low <= row.top1_drop <= row.top1_drop_high
    refused = frame[frame.status == "skipped"].iloc[0]
    assert "largest ratio" in refused.reason

    reported = lowrank_bench("report", folder=tmp_path)
    assert reported.returncode == 0 and re.search(r"written: .*leaderboard\.md.*, and \d+ files in", reported.stdout)
    board = (records.parent / "leaderboard.md").read_text()
    assert "jaderberg" in board and "A/A" in board and "largest ratio" in board
    assert list((records.parent / "figures").glob("*.png"))

    profiled = lowrank_bench("profile", "*jaderberg macs/4*", "--batch", "64", "--seconds", "0.2", folder=tmp_path)
    assert profiled.returncode == 0, profiled.stderr
    assert all(word in profiled.stdout for word in ("conv2", "network", "GFLOP/s"))
    names = {path.name.partition("-")[0] for path in (records.parent / "figures").glob("*-jaderberg-*")}
    assert names == {"profile", "roofline"}
