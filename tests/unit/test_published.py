"""What is published follows from the published records, byte for byte."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from lowrank_bench.reading import read_records
from lowrank_bench.reporting.report import write_report

pytestmark = pytest.mark.timeout(600)  # all pages and figures are made again, on machines that do other work besides

PUBLISHED = Path(__file__).parents[2] / "results" / "published"
PAGES = ("leaderboard.md", "leaderboard.csv", "findings.md", "reproduction.md")
PROFILES = [path for path in (PUBLISHED / "figures").iterdir() if path.name.startswith(("profile-", "roofline-"))]


@pytest.fixture(scope="module")
def again(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    for records in PUBLISHED.glob("*.jsonl"):
        shutil.copy(records, folder)
    (folder / "figures").mkdir()
    for profile in PROFILES:
        shutil.copy(profile, folder / "figures")
    write_report(folder)
    return folder


@pytest.mark.parametrize("name", PAGES)
def test_tables_are_those_that_the_records_give(again: Path, name: str) -> None:
    assert (again / name).read_bytes() == (PUBLISHED / name).read_bytes()


def test_the_page_is_the_one_that_the_records_give_but_for_how_its_figures_are_drawn(again: Path) -> None:
    found, published = (
        re.sub(r"<svg.*?</svg>", "", (folder / "index.html").read_text(), flags=re.DOTALL)
        for folder in (again, PUBLISHED)
    )
    assert found == published


def test_every_figure_of_theirs_is_there(again: Path) -> None:
    names = {path.name for path in (again / "figures").iterdir() if path.suffix in (".png", ".svg")}
    assert names <= {path.name for path in (PUBLISHED / "figures").iterdir()}


def test_every_profile_is_of_a_trial_that_is_among_the_records() -> None:
    recorded = {record.key for record in read_records(PUBLISHED) if record.kind == "trial"}
    assert PROFILES
    for path in PROFILES:
        assert recorded & set(re.findall(r"[0-9a-f]{16}", path.name)), path.name
