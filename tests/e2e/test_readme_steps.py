"""The README's steps from nothing to a row on the board, as printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lowrank_bench.reporting.frame.records_frame import load_records

README = (Path(__file__).parents[2] / "README.md").read_text()

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="the steps are for a POSIX shell"),
    pytest.mark.timeout(300),
]


def steps(section: str) -> str:
    """The first shell lines of a section."""
    found = re.search(r"```sh\n(.*?)```", README.split(f"## {section}")[1].split("\n## ")[0], re.DOTALL)
    assert found is not None
    return found[1]


def run(lines: str, folder: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path}
    done = subprocess.run(["sh", "-e", "-c", lines], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_new_method_reaches_the_board_by_the_readmes_steps(tmp_path: Path) -> None:
    run(steps("Add a method"), tmp_path)
    frame = load_records(tmp_path / "results")
    row = frame[frame["method"] == "input_svd"].iloc[0]
    assert row.status == "ok" and row.macs_ratio == pytest.approx(4, rel=0.05) and row.speedup > 1
    assert "| input_svd |" in (tmp_path / "results" / "input_svd" / "leaderboard.md").read_text()


def test_a_network_of_ones_own_reaches_the_board_in_ten_lines(tmp_path: Path) -> None:
    lines = steps("Your own network")
    assert lines.count("\n") <= 10
    network = "nn.Sequential(nn.Conv2d(3, 32, 7, 4), nn.ReLU(), nn.Conv2d(32, 64, 3))"
    (tmp_path / "mine.py").write_text(f"from torch import nn\n\n\ndef Net():\n    return {network}\n")
    run(lines.replace('["eager-nhwc"]', '["eager-nhwc"], max_seconds = 2'), tmp_path)
    frame = load_records(tmp_path / "results")
    assert set(frame["method"]) == {"identity", "tucker", "jaderberg"} and set(frame["status"]) == {"ok"}
