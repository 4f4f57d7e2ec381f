"""The findings say of the records which method wins, how sure that is, and what became of the MACs."""

from __future__ import annotations

import re
from typing import Any

from synthetic_records import measurement_record, sweep, trial, trial_record

from lowrank_bench.reporting.board import make_boards
from lowrank_bench.reporting.findings import findings_markdown
from lowrank_bench.reporting.records_frame import to_frame


def page(records: list[Any]) -> str:
    return findings_markdown(make_boards(to_frame(records)), [])


def cells(text: str, start: str) -> list[str]:
    """Of the only table row that starts so."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {start} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_at_each_loss_the_fastest_stands_beside_the_next_method() -> None:
    row = cells(page(sweep()), "losing at most 2 points")
    assert row[1:3] == ["jaderberg macs/8", "5.20 [5.15, 5.25]"]
    assert row[4] == "tucker macs/8"
    lead = [float(number) for number in re.findall(r"[\d.]+", row[5])]
    assert lead == [1.44, 1.42, 1.47]  # 5.2 / 3.6, and the ends that are 1 % worse and better on both sides


def test_no_winner_is_sure_whose_lead_or_loss_is_within_the_noise() -> None:
    close = [trial("tucker", 4), trial("jaderberg", 4)]
    for loss, second, verdict in (
        (0.0, 2.5, "sure at 95 %"),
        (0.0, 2.98, "the next may be as fast"),
        (0.9, 2.5, "the loss may be larger"),
    ):
        records: list[Any] = [trial_record(trial("identity")), measurement_record(trial("identity"), 1.0, 0.003)]
        for of, speedup in zip(close, (3.0, second), strict=True):
            records += [trial_record(of, loss), measurement_record(of, speedup)]
        limit = "losing at most 1 points" if loss else "losing at most 2 points"
        assert cells(page(records), limit)[-1] == verdict


def test_what_is_not_faster_than_the_noise_wins_nothing() -> None:
    of = trial("tucker", 4)
    records = [trial_record(trial("identity")), measurement_record(trial("identity"), 1.0, 0.003)]
    text = page([*records, trial_record(of), measurement_record(of, 1.001)])
    assert "Which method wins" not in text
    assert cells(text, "tucker")[2:] == ["1", "25%", "25% to 25%", "1"]


def test_promise_and_delivery_are_listed_by_method_in_the_headline_setting_only() -> None:
    text = page(sweep())
    assert cells(text, "tucker")[1:] == ["onnxruntime 1t b64", "2", "52%", "45% to 60%", "0"]
    assert len([line for line in text.splitlines() if line.startswith("| all |")]) == 2  # one for each runtime


def test_no_claim_is_named_that_nobody_measured() -> None:
    assert "Which claims hold" not in page(sweep())
