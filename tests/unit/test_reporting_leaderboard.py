import csv
import io
import math
import re

import pandas as pd
import pytest
from rich.console import Console
from synthetic_records import failed_trial, measurement_record, processes, sweep, trial, trial_record, write

from lowrank_bench.errors import InvalidInput
from lowrank_bench.record import Status
from lowrank_bench.reporting.boards import tables
from lowrank_bench.reporting.boards.board import make_boards
from lowrank_bench.reporting.boards.cells import interval_text
from lowrank_bench.reporting.boards.tables import facts, runtimes_grid, settings_grid
from lowrank_bench.reporting.frame.records_frame import to_frame
from lowrank_bench.reporting.leaderboard import board_markdown, leaderboard_markdown, to_csv, to_terminal
from lowrank_bench.reporting.markdown import escape
from lowrank_bench.reporting.page import render_page
from lowrank_bench.reporting.readme import BEGIN, END
from lowrank_bench.reporting.report import write_report
from lowrank_bench.trial import Budget


def board_of(records, max_loss=1.0):
    (board,) = make_boards(to_frame(records), max_loss)
    return board


def named(board, **values):
    rows = board.rows
    for name, value in values.items():
        rows = rows[rows[name] == value]
    (row,) = rows.to_dict("records")
    return row


def cells(line):
    """The cells of a line of a markdown table, as a reader of markdown splits them."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def order(board, setting):
    return [f"{row.method} {row.target}".strip() for row in board.in_setting(setting).itertuples()]


def test_rows_within_the_allowed_loss_rank_by_the_lower_bound_and_the_rest_follow():
    board = board_of(sweep())
    assert order(board, ("onnxruntime", 1, 64)) == [
        "jaderberg macs/8",
        "jaderberg macs/4",
        "tucker macs/4",
        "tucker macs/8",
        "channel_svd macs/8",
        "channel_svd macs/4",
        "identity",
    ]
    ranks = board.in_setting(("onnxruntime", 1, 64))["rank"]
    assert list(ranks[:3]) == [1, 2, 3]
    assert ranks[3:].isna().all()


def test_a_wide_interval_does_not_win():
    sure, lucky = trial("tucker", 4), trial("jaderberg", 4)
    control = trial_record(trial("identity"))
    timed = [measurement_record(sure, 2.0, 0.01), measurement_record(lucky, 2.2, 0.3)]
    board = board_of([control, trial_record(sure), trial_record(lucky), *timed])
    assert [row.method for row in board.rows.itertuples()] == ["tucker", "jaderberg"]


@pytest.mark.parametrize(
    ("max_loss", "winner"),
    [(0.0, None), (0.2, "jaderberg macs/4"), (0.9, "jaderberg macs/8"), (7, "jaderberg macs/8")],
)
def test_the_fastest_depends_on_the_loss_that_is_allowed(max_loss, winner):
    row = board_of(sweep()).fastest(("onnxruntime", 1, 64), max_loss)
    assert winner == (row and f"{row.method} {row.target}")


def test_nothing_is_called_fastest_that_is_not_faster_than_the_dense_model():
    slow = trial("tucker", 4)
    board = board_of([trial_record(trial("identity")), trial_record(slow), measurement_record(slow, 0.8)])
    assert board.fastest(("onnxruntime", 1, 64), 2.0) is None


def test_an_allowed_loss_that_is_no_number_is_refused():
    with pytest.raises(InvalidInput, match="max_loss"):
        make_boards(to_frame(sweep()), math.nan)


def test_the_headline_is_the_setting_with_the_fastest_dense_model_on_the_fewest_threads():
    records = sweep(runtimes=("eager", "openvino", "onnxruntime"))
    records.append(measurement_record(trial("tucker", 4), 2.0, threads=2))
    assert board_of(records).settings == [
        ("onnxruntime", 1, 64),
        ("openvino", 1, 64),
        ("eager", 1, 64),
        ("onnxruntime", 2, 64),
    ]


def test_seeds_are_taken_together_speed_as_repetitions_and_accuracy_as_a_mean():
    board = board_of(sweep(seeds=(0, 1, 2)))
    row = named(board, method="tucker", target="macs/4", runtime="onnxruntime")
    times = [2.4, 2.4 * 1.01, 2.4 * 1.02]
    assert row["speedup"] == pytest.approx(math.prod(times) ** (1 / 3))
    assert row["speedup_low"] < min(times) < max(times) < row["speedup_high"]
    assert row["top1_drop"] == pytest.approx(0.5)
    assert (row["top1_drop_least"], row["top1_drop_most"]) == pytest.approx((0.4, 0.6))
    assert row["top1_drop_low"] < 0.4 < 0.6 < row["top1_drop_high"]
    assert row["seeds"] == "0, 1, 2"
    alone = named(board_of(sweep()), method="tucker", target="macs/4", runtime="onnxruntime")
    assert (alone["speedup_low"], alone["speedup_high"]) == pytest.approx((2.376, 2.424))


def test_of_two_timings_of_one_model_in_one_setting_the_one_from_more_processes_counts():
    of = trial("tucker", 4)
    thorough, hasty = measurement_record(of, 2.0, processes=5), measurement_record(of, 3.0, precision=0.05)
    board = board_of([trial_record(trial("identity")), trial_record(of), thorough, hasty])
    assert named(board, method="tucker")["speedup"] == 2.0


def test_the_leaderboard_begins_with_links_to_its_boards_and_those_without_a_time_are_last():
    untimed = trial_record(trial("tucker", 4, model="alexnet"))
    slow = trial("tucker", 4, model="vgg", task="speed", recipe="none")
    boards = make_boards(to_frame([untimed, *sweep(), trial_record(slow, quality=None), measurement_record(slow)]))
    assert [board.model for board in boards] == ["charnet", "vgg", "alexnet"]
    text = leaderboard_markdown(boards)
    links = re.findall(r"- (.*): \[(.*)\]\(#(.*)\)", text.split("## How to read the boards")[0])
    assert [name for name, _, _ in links] == ["charnet on chars36", "vgg on speed", "alexnet on chars36"]
    for (network, conditions, address), board in zip(links, boards, strict=True):
        assert f"{network}, {conditions}" == board.name
        assert f'<a id="{address}"></a>\n\n## {board.name}\n' in text
    assert text.count("Ranked within each setting by the lower bound") == 1


def test_machines_models_and_recipes_are_never_mixed():
    records = sweep()
    records += [measurement_record(trial("tucker", 4), 9.0, machine="bench-2")]
    other = [trial("tucker", 4, model="resnet"), trial("tucker", 4, recipe="short")]
    for of in other:
        records += [trial_record(of), measurement_record(of, 7.0)]
    boards = make_boards(to_frame(records))
    assert [(board.model, board.recipe, board.machine) for board in boards] == [
        ("charnet", "standard", "bench-1"),
        ("charnet", "short", "bench-1"),
        ("charnet", "standard", "bench-2"),
        ("resnet", "standard", "bench-1"),
    ]  # the largest first
    assert [set(board.rows["speedup"]) for board in boards[1:]] == [{7.0}, {9.0}, {7.0}]
    assert 9.0 not in set(boards[0].rows["speedup"])
    # A model that was never timed belongs to all machines; one that was timed elsewhere is no failure here.
    assert list(boards[2].unranked["method"]) == ["cp_nls"]


def test_a_board_has_the_accuracy_of_all_seeds_wherever_they_were_timed_but_for_budgets_met_by_timing():
    one, two = (trial("tucker", 4, seed=seed) for seed in (0, 1))
    records = [trial_record(trial("identity", seed=seed)) for seed in (0, 1)]
    records += [trial_record(one, 0.2), trial_record(two, 0.4)]
    records += [measurement_record(one, 2.0), measurement_record(two, 3.0, machine="bench-2")]
    here, there = make_boards(to_frame(records))
    assert [(board.rows["speedup"][0], board.rows["seeds"][0]) for board in (here, there)] == [
        (2.0, "0, 1"), (3.0, "0, 1")
    ]  # fmt: skip
    assert here.rows["top1_drop"][0] == pytest.approx(0.3)
    timed = Budget(latency=2, runtime="onnxruntime", threads=1, batch=64)
    records = []
    for seed, machine in enumerate(("bench-1", "bench-2")):
        of = trial("tucker", budget=timed, seed=seed, versions={"machine": seed})
        records += [trial_record(of), measurement_record(of, 2.0, machine=machine)]
    assert [board.rows["seeds"][0] for board in make_boards(to_frame(records))] == ["0", "1"]


def test_failures_are_listed_with_their_reason_and_seeds_that_ended_alike_share_a_row():
    records = sweep(seeds=(0, 1))
    lost = trial("tucker", 4, seed=1)
    records.append(
        measurement_record(lost, runtime="openvino", status=Status.NOT_EXPORTABLE, reason="no operator", timing=None)
    )
    records.append(trial_record(trial("denton", 2)))
    unranked = board_of(records).unranked.astype({"runtime": object}).fillna({"runtime": ""})
    listed = set(unranked[["method", "runtime", "seeds", "status"]].itertuples(index=False, name=None))
    assert listed == {
        ("cp_nls", "", "0, 1", "skipped"),
        ("tucker", "openvino", "1", "not_exportable"),
        ("denton", "", "0", "not timed"),
    }


def test_a_board_of_failures_only_is_still_shown():
    board = board_of([failed_trial(trial("tucker", 4), Status.CRASHED, "signal 11")])
    assert "signal 11" in board_markdown(board)
    assert "signal 11" in to_csv([board])


def test_of_what_was_made_and_not_timed_loss_and_sizes_are_known_and_failures_stand_apart():
    made = [trial_record(trial("denton", 2, seed=seed), loss) for seed, loss in ((0, 0.5), (1, 1.5))]
    controls = [trial_record(trial("identity", seed=1))]
    board = board_of([*sweep(), *made, *controls])
    models, lost = board_markdown(board).split("### Made, not timed")[1].split("### Refused or failed")
    (line,) = [cells(line) for line in models.splitlines() if line.startswith("| denton")]
    assert line[1] == "macs/2" and line[2].startswith("+1.00 [") and line[4:] == ["2 (+0.50 to +1.50)", "2.00", "2.00"]
    assert "denton" not in lost and "largest reachable" in lost and "largest reachable" not in models
    (row,) = [row for row in csv.DictReader(io.StringIO(to_csv([board]))) if row["method"] == "denton"]
    assert (row["top1_drop"], row["macs_ratio"], row["seeds"], row["status"]) == ("1", "2", "0, 1", "not timed")


def test_markdown_and_csv_say_the_same():
    board = board_of(sweep(seeds=(0, 1)))
    table = [row for row in csv.DictReader(io.StringIO(to_csv([board]))) if row["status"] == "ok"]
    lines = [cells(line) for line in board_markdown(board).splitlines() if re.match(r"\| (\d|–|A/A)", line)]
    assert len(lines) == len(table) == 14
    for line, row in zip(lines, table, strict=True):
        assert (line[1], line[2]) == (row["method"], row["target"])
        assert line[3] == f"{row['runtime']} {row['threads']}t b{row['batch']}"
        assert line[4].startswith(f"{float(row['speedup']):.2f} [")
        assert line[5] == row["verdict"]
        assert ("◆" in line[0]) == (row["pareto"] == "True")


def test_calls_have_their_p50_p90_throughput_memory_and_size_on_the_board_and_on_the_page(tmp_path):
    board = board_of(sweep())
    rows, text = board_markdown(board).split("### Latency, throughput and memory")
    assert " ms |" not in rows.split("| # |")[1]  # once is enough
    told = leaderboard_markdown([board, board])
    (line,) = [line for line in text.splitlines() if line.startswith("| onnxruntime 1t b64 | jaderberg | macs/4 |")]
    # 40 ms over 3.1, p90 a tenth above p50 on both sides, 64 images in 12.9 ms, 2.4 million bytes
    assert cells(line)[3:] == ["40.0 / 44.0", "12.9 / 14.2", "4960", "200", "2.40"]
    for said in ("less than 1 ms, p90 is of the means of loops", "not what the compressed model alone needs"):
        assert told.count(said) == 1  # of both boards
    page = render_page([(board, [])], [], [], tmp_path).decode()
    assert "<td>12.9 / 14.2" in page.replace(' data-order="12.9"', "") and "p90 is of the means of loops" in page


def test_what_rounds_to_zero_has_no_sign():
    assert interval_text(-0.004, -0.65, 0.001, "+.2f") == "0.00 [-0.65, 0.00]"
    assert interval_text(0.4, -0.05, 1.0, "+.2f") == "+0.40 [-0.05, +1.00]"


def test_names_and_reasons_cannot_break_a_table():
    nasty = "a | b\n| <b>x</b> ![i](http://x) `c` *d* _e_ __init__ $m$ ~s~ back\\"
    options = {"note": "p|q"}
    board = board_of([failed_trial(trial("tucker", 4, options=options), Status.FAILED, nasty)])
    (line,) = [line for line in board_markdown(board).splitlines() if "tucker" in line]
    assert len(cells(line)) == 6
    assert cells(line)[0] == r"tucker note=p\|q"
    assert "<" not in line
    assert "](" not in line
    assert escape("channel_svd cp_nls") == "channel_svd cp_nls"


def test_the_facts_above_a_table_name_environment_images_and_dates():
    text = board_markdown(board_of(sweep()))
    above = text[: text.index("| # |")]
    for fact in ("Testor 9000", "torch: 2.15.0", "2,000", "2026-05-04", "1.001 [0.998, 1.004]", "0.4%", "91.00 %"):
        assert fact in above


@pytest.mark.parametrize("limit", [2000, 2001])
def test_below_a_board_stands_that_its_test_images_are_few(monkeypatch, limit):
    monkeypatch.setattr(tables, "FEW", limit)
    told = dict(facts(board_of(sweep())))["Test images"]
    assert told.startswith("2,000") and ("too narrow" in told) == (limit > 2000)


def test_below_a_board_stand_its_pairs_what_stopped_them_and_the_load():
    few = processes(measurement_record(trial("tucker", 4)), (6, "max_seconds", 0.2), (8, "max_seconds", 1.4))
    many = processes(measurement_record(trial("tucker", 4, seed=1)), (40, "precision", None), (60, "max_seconds", None))
    many = many.model_copy(update={"environment": {"load": 2.64}})
    records = [trial_record(trial("tucker", 4, seed=seed)) for seed in (0, 1)] + [few, many]
    board = board_of(records)
    told = dict(facts(board))
    assert told["Pairs in a process"] == "6 to 60, median 28.5; stopped by time: 75 % of processes"
    assert told["Load at the start"].startswith("0.2 to 2.6, running processes")
    row = named(board, method="tucker")
    assert (row["pairs_least"], row["pairs"], row["pairs_most"]) == (6, 28.5, 60)
    assert (row["stop_reason"], row["stopped_by_time"]) == ("max_seconds precision", 0.75)
    assert (row["load_least"], row["load_most"]) == (0.2, 2.64)
    (line,) = csv.DictReader(io.StringIO(to_csv([board])))
    assert (line["pairs_least"], line["pairs_most"], line["load_most"]) == ("6", "60", "2.64")


def test_a_load_that_no_system_told_is_not_named():
    assert "Load at the start" not in dict(facts(board_of(sweep())))


def test_the_dense_controls_top1_is_the_mean_of_its_seeds_in_however_many_runtimes_each_was_timed():
    losses = (0.0, 1.0, 2.0)
    controls = [trial("identity", seed=seed) for seed in range(3)]
    records = [trial_record(of, loss) for of, loss in zip(controls, losses, strict=True)]
    runtimes = ("eager", "eager-nhwc", "onnxruntime", "openvino")
    records += [measurement_record(controls[0], runtime=runtime) for runtime in runtimes]
    told = dict(facts(board_of(records)))["Dense control, top-1"]
    assert told == "90.50 % as it came, 90.00 % after the same tuning, means of 3 seeds"  # 91, 90 and 89 %, not 90.5 %


def test_a_dense_control_that_was_timed_on_another_machine_is_told_of_and_that_it_was_not_timed_here():
    of, control = trial("tucker", 4), trial("identity")
    records = [trial_record(of, 0.5), trial_record(control), measurement_record(of, 2.0)]
    here, there = make_boards(to_frame([*records, measurement_record(control, machine="bench-2")]))
    assert here.machine == "bench-1"
    for board in (here, there):
        assert dict(facts(board))["Dense control, top-1"] == "90.50 % as it came, 91.00 % after the same tuning"
    assert dict(facts(here))["A/A control"] == "not timed here" and "A/A control" not in dict(facts(there))


def test_the_facts_tell_of_the_timings_that_count_and_of_the_dense_time_behind_every_choice():
    of = trial("tucker", 4)
    short = processes(measurement_record(of, 3.0), (2, "max_seconds", 7.0))
    long = processes(measurement_record(of, 2.0), (40, "precision", 1.0), (60, "precision", 1.0))
    board = board_of([trial_record(of), short, long])
    assert dict(facts(board))["Pairs in a process"].startswith("40 to 60, ")
    assert dict(facts(board))["Load at the start"].startswith("1.0 to 1.0,")
    assert dict(facts(board))["Note"].startswith("1 records: no dense control")
    row = named(board, method="tucker")
    assert settings_grid(board).cells[0][1] == f"{row['runtime_dense_ms']:.3g}"


def unscored(model, **target):
    of = trial("tucker", task="speed", model=model, recipe="none", **target)
    records = [trial_record(of, quality=None), measurement_record(of, 2.0)]
    return dict(facts(board_of(records)))["Top-1"]


def test_why_accuracy_was_not_measured_is_told_as_it_is():
    ranks = "budgets met by one fraction for all layers"
    assert unscored("torchvision:resnet18", ratio=4) == f"not measured: random weights, {ranks}"
    assert unscored("torchvision:resnet18@mine.safetensors", ratio=4) == f"not measured: {ranks}"
    assert unscored("mine:Net", ranks={"conv1": (4, 4)}) == "not measured"


def test_a_missing_control_is_said_above_the_table():
    of = trial("tucker", 4)
    board = board_of([trial_record(of), measurement_record(of, 2.0)])
    assert "no dense control" in board_markdown(board)
    assert pd.isna(named(board, method="tucker")["rank"])


def test_the_terminal_shows_text_as_it_stands():
    records = [*sweep(), failed_trial(trial("tucker", 16), Status.FAILED, "[bold]kept[/bold] [/oops]")]
    console = Console(file=io.StringIO(), width=200)
    console.print(to_terminal(make_boards(to_frame(records))))
    shown = console.file.getvalue()
    assert "[bold]kept[/bold] [/oops]" in shown
    assert "jaderberg" in shown


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_narrow_terminal_shows_fewer_columns_and_cuts_nothing_off(width):
    console = Console(file=io.StringIO(), width=width)
    console.print(to_terminal(make_boards(to_frame(sweep()))))
    shown = console.file.getvalue()
    assert "…" not in shown and "jaderberg" in shown
    assert ("more columns in leaderboard.md" in shown) == (width < 200)


def test_rows_whose_processes_disagree_are_marked_in_every_setting():
    shaky = measurement_record(trial("denton", 4), 2.0)
    shaky = shaky.model_copy(update={"timing": shaky.timing.model_copy(update={"unstable": True})})
    grid = runtimes_grid(board_of([*sweep(), trial_record(trial("denton", 4)), shaky]))
    marked = {cells[0] for cells in grid.cells if any(cell.endswith(", unstable") for cell in cells)}
    assert marked == {"denton"}


def test_the_readme_gets_its_board_between_the_markers_and_nothing_else_changes(tmp_path):
    write(tmp_path / "results", sweep())
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_report(tmp_path / "results", readme=readme)
    once = readme.read_text()
    write_report(tmp_path / "results", readme=readme)
    assert readme.read_text() == once
    assert once.startswith(f"before\n{BEGIN}\n")
    assert once.endswith(f"\n{END}\nafter\n")
    assert "jaderberg" in once
    assert "old" not in once


def test_the_readme_links_to_the_whole_board_from_where_it_lies(tmp_path):
    of, control = trial("tucker", 4), trial("identity")
    records = [trial_record(of), trial_record(control), measurement_record(of, 2.0), measurement_record(control)]
    write(tmp_path / "results" / "mine", records)
    readme = tmp_path / "docs" / "README.md"
    readme.parent.mkdir()
    readme.write_text(f"{BEGIN}\n{END}\n")
    write_report(tmp_path / "results" / "mine", readme=readme)
    assert "([the whole board](../results/mine/leaderboard.md))" in readme.read_text()


def test_a_readme_without_markers_is_left_alone(tmp_path):
    write(tmp_path / "results", sweep())
    readme = tmp_path / "README.md"
    readme.write_text(f"{END} {BEGIN}")
    with pytest.raises(InvalidInput, match="board:begin"):
        write_report(tmp_path / "results", readme=readme)
    with pytest.raises(InvalidInput, match="cannot be read"):
        write_report(tmp_path / "results", readme=tmp_path / "missing.md")
    assert readme.read_text() == f"{END} {BEGIN}"
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["records.jsonl"]  # before any work was done
