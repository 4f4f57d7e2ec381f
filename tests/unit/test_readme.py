"""The README keeps its word: its plug-in works as printed, its commands exist, its board is the published one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import lowrank_bench as lrb
from lowrank_bench.compression import registry
from lowrank_bench.reporting.records_frame import load_records
from lowrank_bench.reporting.report import summary_board

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_method_that_it_adds_is_listed_and_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_folders", [])
    code = re.search(r"```python\n(from lowrank_bench.*?)```", README, re.DOTALL)
    assert code is not None
    (tmp_path / "input_svd.py").write_text(code[1])
    registry.add_methods_folder(tmp_path)
    conv = nn.Conv2d(6, 8, (3, 5), stride=2, padding=1, groups=2, dtype=torch.float64)
    factored = lrb.factorize(conv, "input_svd", "full")
    x = torch.randn(1, 6, 9, 9, dtype=torch.float64)
    assert (factored(x) - conv(x)).abs().max() < 1e-12
    model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3)).eval()
    compressed = lrb.compress(model, "input_svd", lrb.Budget(macs=2), input_size=(3, 16, 16))
    assert compressed.dense_cost.macs / compressed.cost.macs == pytest.approx(2, rel=0.05)


def test_its_board_is_what_the_published_records_say() -> None:
    board = README.split("<!-- board:begin -->\n")[1].split("\n<!-- board:end -->")[0]
    assert board == summary_board(load_records(ROOT / "results" / "published"))


def test_its_two_commands_and_its_files_are_there() -> None:
    assert "pip install tox && tox run -m bench" in README and "pip install tox && tox run -m test" in README
    assert (ROOT / ".ci" / "run").read_text().count("pip install tox && tox run -m test") == 1
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_it_names_every_method() -> None:
    table = README.split("## The methods")[1].split("\n## ")[0]
    assert all(f"`{name}`" in table for name in lrb.methods())
