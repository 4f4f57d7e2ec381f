"""The page of faults tells of campaigns that failed too, and what held until then."""

from __future__ import annotations

from pathlib import Path

import campaign
import pytest
from campaign import Part

PART = Part("Faults", "test_faults.py", ["Fault", "Tried", "Survived", "Records lost or doubled"])


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(campaign.PAGE, str(tmp_path / "faults.md"))
    return tmp_path / "faults.md"


def cells(page: Path) -> list[list[str]]:
    """Of the rows of the page's only table."""
    lines = [line for line in page.read_text().splitlines() if line.startswith("| ")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def campaign_of(faults: int, fails_at: int | None = None, end: type[BaseException] = AssertionError) -> None:
    with PART.faults("a plug is pulled") as row:
        for number in range(faults):
            row["Tried"] += 1
            if number == fails_at:
                raise end
            row["Survived"] += 1


def test_a_campaign_that_passes_says_what_it_survived(page: Path) -> None:
    campaign_of(5)
    ((*told, where),) = cells(page)
    assert told == ["a plug is pulled", "5", "5", "0"]
    assert "failed" not in where


@pytest.mark.parametrize("end", [AssertionError, pytest.fail.Exception])
def test_one_that_fails_takes_the_place_of_what_passed_before(page: Path, end: type[BaseException]) -> None:
    campaign_of(5)
    with pytest.raises(end):
        campaign_of(5, fails_at=3, end=end)
    ((*told, where),) = cells(page)
    assert told == ["a plug is pulled", "4", "3", "not known"]
    assert where.endswith(f"failed: {end.__name__}")


def test_one_that_was_interrupted_leaves_the_page_as_it_was(page: Path) -> None:
    campaign_of(5)
    before = page.read_text()
    with pytest.raises(KeyboardInterrupt):
        campaign_of(5, fails_at=3, end=KeyboardInterrupt)
    assert page.read_text() == before
