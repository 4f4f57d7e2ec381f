"""The README's steps from nothing to a row on the board, as printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lowrank_bench.reporting.records_frame import load_records

README = (Path(__file__).parents[2] / "README.md").read_text()


@pytest.mark.skipif(os.name == "nt", reason="the steps are for a POSIX shell")
@pytest.mark.timeout(300)
def test_a_new_method_reaches_the_board_by_the_readmes_steps(tmp_path: Path) -> None:
    section = README.split("## Add a method")[1].split("\n## ")[0]
    steps = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert steps is not None
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["sh", "-e", "-c", steps[1]], cwd=tmp_path, env=os.environ | {"PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    frame = load_records(tmp_path / "results")
    row = frame[frame["method"] == "input_svd"].iloc[0]
    assert row.status == "ok" and row.macs_ratio == pytest.approx(4, rel=0.05) and row.speedup > 1
    assert "| input_svd |" in (tmp_path / "results" / "leaderboard.md").read_text()
