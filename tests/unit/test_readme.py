"""The README keeps its word: its plug-in works as printed, its commands exist, its board is the published one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from torch import nn

import lowrank_bench as lrb
from lowrank_bench.compression import registry
from lowrank_bench.reporting.records_frame import load_records
from lowrank_bench.reporting.report import summary_board
from lowrank_bench.scaffold import new_method

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_method_that_it_shows_is_what_new_writes(tmp_path: Path) -> None:
    code = re.search(r"```python\n(\"\"\"input_svd.*?)```", README, re.DOTALL)
    assert code is not None and code[1] == new_method("input_svd", tmp_path)[0].read_text()


def test_the_method_that_it_shows_meets_a_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_folders", [])
    new_method("input_svd", tmp_path)
    registry.add_methods_folder(tmp_path)
    model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3)).eval()
    compressed = lrb.compress(model, "input_svd", lrb.Budget(macs=2), input_size=(3, 16, 16))
    assert compressed.dense_cost.macs / compressed.cost.macs == pytest.approx(2, rel=0.05)


def test_its_board_is_what_the_published_records_say() -> None:
    board = README.split("<!-- board:begin -->\n")[1].split("\n<!-- board:end -->")[0]
    assert board == summary_board(load_records(ROOT / "results" / "published"))


def test_the_range_that_it_opens_with_is_that_of_the_published_records() -> None:
    told = re.search(r"the same 4x fewer MACs is anything from ([\d.]+)x to ([\d.]+)x in time", README)
    frame = load_records(ROOT / "results" / "published")
    found = frame[frame["target"].str.startswith("macs/4")]["speedup"].dropna()
    assert told is not None and (told[1], told[2]) == (f"{found.min():.1f}", f"{found.max():.1f}")


def test_its_two_commands_and_its_files_are_there() -> None:
    assert "pip install tox && tox run -m bench" in README and "pip install tox && tox run -m test" in README
    assert (ROOT / ".ci" / "run").read_text().count("pip install tox && tox run -m test") == 1
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_it_names_every_method() -> None:
    table = README.split("## The methods")[1].split("\n## ")[0]
    assert all(f"`{name}`" in table for name in lrb.methods())


def test_its_example_of_an_own_plot_draws_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.search(r"```python\n([^`]*promise\.png[^`]*)```", README)
    assert code is not None
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").symlink_to(ROOT / "results")
    exec(compile(code[1], "README.md", "exec"), {})
    assert (tmp_path / "promise.png").stat().st_size > 10_000
