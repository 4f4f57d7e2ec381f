"""The README and those it leads to keep their word: the plug-in works as printed, commands exist, the board is the
published one, and numbers are those measured.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections import OrderedDict
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

import lowrank_bench as lrb
from lowrank_bench.compression import registry
from lowrank_bench.measurement.environment import QUIET_LOAD
from lowrank_bench.reporting.boards.board import make_boards
from lowrank_bench.reporting.frame.clocked import pooled_clock
from lowrank_bench.reporting.frame.records_frame import load_records
from lowrank_bench.reporting.summary import summary_board
from lowrank_bench.scaffold import new_method

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
RESULTS = (ROOT / "results" / "README.md").read_text()
MANY_MACHINES = (ROOT / "lowrank_bench" / "running" / "README.md").read_text()


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
    boards = make_boards(load_records(ROOT / "results" / "published"))
    assert board == summary_board(boards, "results/published/leaderboard.md")


def test_it_opens_with_both_ends_of_what_fewer_macs_become() -> None:
    above, below = README.split("<!-- board:begin -->\n")
    assert "The first table gives, machine by machine, the least and the most" in above
    title, table, counted = below.split("\n\n")[:3]
    assert title.startswith("**What fewer MACs become**, times as fast as the dense network [95 %]")
    number = r"[\d.]+ \[[\d., ]+\], \S+.* on \S+ in \S+ \dt b\d+.*"
    line = rf"\| \S* \| [24]x in .* \(macs/[24].*\)( \| \d+){{3}} \| {number} \| {number} \|"
    assert all(re.fullmatch(line, row) for row in table.splitlines()[2:])
    count = r"- \S+, at any budget and recipe, at the .* headlines: of \d+ models with at least 5% fewer MACs .*\."
    assert counted and all(re.fullmatch(count, row) for row in counted.splitlines())


def test_its_table_of_rooms_is_in_the_order_of_the_arrows() -> None:
    table = README.split("## Architecture")[1].split("\n\n")[2]
    rooms = [re.findall(r"`([a-z_]+)(?:/|\.py)`", line.split("|")[1]) for line in table.splitlines()[2:]]
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    layers = [re.findall(r"\w+", layer) for layer in contract["layers"]]
    depth = {room: place for place, layer in enumerate(layers) for room in layer if not room.startswith("cli_")}
    assert sorted(depth) == sorted(room for row in rooms for room in row)
    ordered = [depth[room] for row in rooms for room in sorted(row, key=depth.__getitem__)]
    assert ordered == sorted(ordered)


def small_network(weights: str) -> nn.Module:
    """In the place of ResNet-18: it has a layer1[0].conv1 too, and takes a second."""
    block = nn.Sequential(OrderedDict(conv1=nn.Conv2d(64, 64, 3, padding=1), conv2=nn.Conv2d(64, 64, 3, padding=1)))
    stem = nn.Conv2d(3, 64, 7, stride=8)
    return nn.Sequential(OrderedDict(stem=stem, layer1=nn.Sequential(block), top=nn.Conv2d(64, 64, 3)))


def test_its_first_example_in_python_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = re.search(r"## In Python\n\n```python\n(.*?)```", README, re.DOTALL)
    assert code is not None
    monkeypatch.setattr(torchvision.models, "resnet18", small_network)
    monkeypatch.setattr(lrb, "measure_speedup", partial(lrb.measure_speedup, max_seconds=1))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").symlink_to(ROOT / "results")
    names: dict[str, Any] = {}
    exec(compile(code[1], "README.md", "exec"), names)
    assert "noise floor" in capsys.readouterr().out
    assert names["compressed"].dense_cost.macs / names["compressed"].cost.macs == pytest.approx(3, rel=0.05)
    images = torch.zeros(1, 3, 64, 64)
    torch.testing.assert_close(names["again"](images), names["compressed"].model(images))
    assert names["kernel"].shape == names["model"].layer1[0].conv1.weight.shape


def test_what_it_says_of_many_trials_is_what_was_measured() -> None:
    page = (ROOT / "results" / "published" / "faults.md").read_text()
    row = next(line for line in page.splitlines() if line.startswith("| dask, 2 workers |"))
    trials, wall, cpu, of_a_quarter = (float(text.strip(" ms").replace(",", "")) for text in row.split("|")[2:6])
    told = MANY_MACHINES.split("**How far it was tried.**")[1].split("\n\n")[0]
    growth = cpu / of_a_quarter
    at_10_000 = cpu * (10_000 / trials) ** (math.log(growth) / math.log(4))
    for text in (
        f"{trials:,.0f} trials",
        f"{wall} ms a trial",
        f"{cpu} ms of it CPU",
        f"{of_a_quarter} ms of CPU each",
    ):
        assert text in told
    assert f"grew by {growth - 1:.0%}".replace("%", " %") in told and f"about {at_10_000:.0f} ms of CPU" in told
    assert "Neither 10,000 trials nor 100 hosts were tried" in told


def test_its_two_commands_and_its_files_are_there() -> None:
    assert "pip install tox && tox run -m bench" in README and "pip install tox && tox run -m test" in README
    assert (ROOT / ".ci" / "run").read_text().count("pip install tox && tox run -m test") == 1


@pytest.mark.parametrize("folder", [".", "results", "lowrank_bench/running"])
def test_what_a_readme_links_to_is_there(folder: str) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / folder / "README.md").read_text())
    assert [target for target in targets if not (ROOT / folder / target).exists()] == []


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


def _covered(part: str) -> list[list[str]]:
    """The rows of one part of the page of coverage."""
    page = (ROOT / "results" / "published" / "timing_coverage.md").read_text()
    lines = page.split(f"## {part}")[1].split("\n## ")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")][2:]


def test_what_it_says_of_the_coverage_is_in_its_tables() -> None:
    precise = [float(row[2].rstrip("%")) for row in _covered("Timed until")]
    published = _covered("Timed as the published")
    few = [float(row[4].rstrip("%")) for row in published]
    (missed,) = [row[6] for row in published if row[1:4] == ["6", "0%", "1.25"]]
    assert f"{min(precise)} to {max(precise)} % of them hold it for a nominal 95 %" in RESULTS
    assert f"in each of five processes, {min(few)} to {max(few)} %." in RESULTS
    assert f"hold the truth in {min(few)} to {max(few)} % of the rows" in README
    for calls, pairs in (("300 ms, 2 s", "with 6 pairs"), ("22 ms, 3 s", "with some 20")):
        found = [float(row[8].rstrip("%")) for row in published if (row[0], row[2]) == (calls, "5%")]
        assert re.search(rf"in {min(found):.0f} to {max(found):.0f} % (of\s+simulated rows )?{pairs}", RESULTS)
    assert f'is called "same" in {missed.rstrip("%")} % of the rows' in RESULTS


def test_what_it_says_of_pairs_and_stop_reasons_is_in_the_records() -> None:
    timed = load_records(ROOT / "results" / "published").query("speedup.notna()")
    pooled = pooled_clock(timed)
    share = f"{100 * pooled['stopped_by_time']:.0f} %"
    pairs = f"{pooled['pairs_least']} to {pooled['pairs_most']} pairs, the median row {pooled['pairs']:g}"
    assert f"Of the published processes {share} stopped\n  by time" in RESULTS
    assert pairs in RESULTS
    loaded = int((timed["load_most"] > 2 * QUIET_LOAD).sum())
    assert f"in {loaded} of {len(timed)} published timings it is above the {2 * QUIET_LOAD:g}" in RESULTS
