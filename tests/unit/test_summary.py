"""The README's board: what a user gets, which model to take, and a short table of each network."""

from __future__ import annotations

import re
from typing import Any

from synthetic_records import failed_trial, measurement_record, sweep, trial, trial_record

from lowrank_bench.record import Status
from lowrank_bench.reporting.boards.board import make_boards
from lowrank_bench.reporting.frame.records_frame import to_frame
from lowrank_bench.reporting.summary import summary_board
from lowrank_bench.trial import Budget


def summary(records: list[Any]) -> str:
    return summary_board(make_boards(to_frame(records)), "whole.md")


def lines_of(text: str, heading: str) -> list[list[str]]:
    """The rows of the first table whose headings begin so, the headings first, as a reader of markdown splits them."""
    table = text[text.index(f"| {heading} |") :].split("\n\n")[0].splitlines()
    lines = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table]
    return [lines[0], *lines[2:]]


def timed(method: str, speedup: float, loss: float = 0.0, ratio: float = 4, **fields: Any) -> list[Any]:
    """A model and its timing; ``fields`` are the trial's."""
    of = trial(method, ratio, **fields)
    return [trial_record(of, loss), measurement_record(of, speedup)]


def alone(model: str, method: str, speedup: float, runtimes: tuple[str, ...] = ("onnxruntime",), **fields: Any) -> Any:
    """A model of which the time alone is known."""
    of = trial(method, **{"ratio": 4, "task": "speed", "model": model, "recipe": "none"} | fields)
    times = [measurement_record(of, speedup, runtime=runtime, batch=1) for runtime in runtimes]
    return [trial_record(of, quality=None), *times]


def unstable(record: Any) -> Any:
    return record.model_copy(update={"timing": record.timing.model_copy(update={"unstable": True})})


def test_it_begins_with_both_ends_of_what_fewer_macs_become_budgets_of_convolutions_apart() -> None:
    records = [*sweep(), *timed("denton", 9.0, ratio=40), *timed("narrow", 0.1, ratio=4.5)]  # other promises
    records += alone("vgg16", "tucker", 3.9, ("openvino",), ratio=None, budget=Budget(macs=4, scope="convs"))
    records.append(failed_trial(trial("cp_nls", 4), Status.SKIPPED, "out of reach"))
    text = summary([*records, *alone("lenet", "tucker", 1.9, ratio=2)])
    assert text.startswith("**What fewer MACs become**, times as fast as the dense network [95 %], each model in the ")
    halved = "1.90 [1.88, 1.92], tucker on lenet in onnxruntime 1t b1"
    convolutions = "3.90 [3.86, 3.94], tucker on vgg16 in openvino 1t b1"
    assert lines_of(text, "Machine") == [
        ["Machine", "Fewer MACs", "Networks", "Models", "Methods refused or failed", "Least", "Most"],
        ["bench-1", "2x in the whole network (macs/2)", "1", "1", "0", halved, halved],
        [
            "",
            "4x in the whole network (macs/4)",
            "1",
            "3",
            "1",
            "2.10 [2.08, 2.12], channel_svd on charnet in onnxruntime 1t b64",
            "3.10 [3.07, 3.13], jaderberg on charnet in onnxruntime 1t b64",
        ],
        ["", "4x in its convolutions, the rest as it was (macs/4 (convs))", "1", "1", "0", convolutions, convolutions],
    ]
    assert text.split("\n\n")[2] == (
        "- bench-1, at any budget and recipe, at the threads and batch of the headlines: of 10 models with at least 5% "
        "fewer MACs 1 slower than the dense one (down to 0.10 [0.10, 0.10]: narrow (fewer channels) macs/4.5 on "
        "charnet)."
    )


def test_it_counts_first_what_gains_nothing_and_takes_the_users_choice_of_runtime() -> None:
    of = trial("tucker", 4)
    slow = measurement_record(of, 3.0, runtime="eager")  # 70 ms dense there, and 44 in OpenVINO
    fast = measurement_record(trial("identity"), 1.0, runtime="openvino")
    records = [trial_record(trial("identity")), fast, trial_record(of), slow, *alone("lenet", "tucker", 1.001)]
    text = summary(records)
    (line,) = lines_of(text, "Machine")[1:]  # where nothing is known of an interval, nothing is an end
    assert line[5] == line[6] == "1.00 [0.99, 1.01], tucker on lenet in onnxruntime 1t b1; same"
    assert line[3] == "2 (1 not known)"
    assert "of 2 models with at least 5% fewer MACs 1 with no gain beyond noise and 1 not known.\n" in text
    assert "of 6 models with at least 5% fewer MACs none without a gain beyond noise.\n" in summary(sweep())


def test_what_has_hardly_fewer_macs_promises_no_gain_and_is_not_counted_as_none() -> None:
    hardly = [*alone("lenet", "tucker", 1.0, ratio=1.02), *alone("lenet", "denton", 0.9)]
    assert "of 1 model with at least 5% fewer MACs 1 slower" in summary(hardly)


def test_what_is_missing_is_said_below_which_model_to_take() -> None:
    text = summary([*sweep(), *alone("vgg16", "tucker", 3.9)])
    decided = lines_of(text, "Network")
    assert decided[1][:2] == ["charnet on chars36", "1 thread, batch 64, bench-1"]
    assert {line[0] for line in decided[2:]} == {""}
    assert text.split("\n\n")[5] == (
        "Not measured: the loss of vgg16, compared by time alone; more than one seed of charnet on chars36; what fewer "
        "bits alone bring charnet on chars36."
    )
    assert "Not measured: what fewer bits" in summary(sweep(seeds=(0, 1)))


def test_of_a_network_on_which_nothing_keeps_within_the_loss_that_is_said() -> None:
    records = [trial_record(trial("identity")), measurement_record(trial("identity"))]
    records += [*timed("tucker", 3.0, loss=9.0), *timed("denton", 2.0, loss=8.0)]
    (line,) = lines_of(summary(records), "Network")[1:]
    assert line[2:4] == ["2 points", "none"]


def test_where_nobody_knows_whether_what_loses_so_little_is_faster_that_is_said() -> None:
    dense, of = trial("identity"), trial("tucker", 4)
    records = [trial_record(dense), measurement_record(dense, finished="2026-05-01T10:00:00+00:00")]
    late = {"runtime": "eager-nhwc", "finished": "2026-05-09T10:00:00+00:00"}
    records += [trial_record(of), measurement_record(of, 9.0, **late)]
    assert "| none |" in summary(records) and "whether it is faster is not known" in summary(records)


def test_a_control_without_low_rank_is_marked_wherever_a_method_is_named() -> None:
    records = [*sweep(), *timed("narrow", 5.2, 0.9, ratio=8, options={"align": 16}), *alone("vgg16", "narrow", 3.0)]
    text = summary(records)
    assert text.count("narrow (fewer channels)") == len(re.findall(r"narrow(?!,)", text)) > 3
    assert "narrow (fewer channels) may be as fast" in text
    assert "narrow (fewer channels) align=16" in [line[0] for line in lines_of(text, "Method")]
    assert "narrow (fewer channels)" in lines_of(text[text.index("<b>Networks by time alone") :], "Network")[0]


def test_a_model_that_was_timed_at_two_batches_is_one_model() -> None:
    of, own = (
        trial("tucker", ratio, task="speed", model="vgg16", recipe="none", ranks=ranks)
        for ratio, ranks in ((4, None), (None, {"conv2": 8}))
    )
    half = trial_record(own, quality=None)
    assert half.size is not None
    half = half.model_copy(update={"size": half.size.model_copy(update={"macs": half.size.macs // 2})})
    records = [half, measurement_record(own, 1.8, batch=64), measurement_record(own, 1.8, batch=1)]
    text = summary([*records, trial_record(of, quality=None), measurement_record(of, 3.0, batch=1)])
    assert "of 2 models with at least 5% fewer MACs" in text


def test_a_loss_that_nobody_knows_is_said_to_be_so_and_is_no_large_one() -> None:
    records = [*timed("tucker", 3.0), *timed("denton", 2.0)]  # and no dense control
    text = summary(records)
    assert "Loss not known (no dense control), practical speedup: tucker macs/4 (3.00), denton macs/4 (2.00)" in text
    assert "nan" not in text and "Losing more" not in text
    (line,) = lines_of(text, "Network")[1:]
    assert line[2:] == ["", "none", "", "", "", "no loss is known: no dense control"]
    assert "; the loss of charnet on chars36, which has no dense control;" in text.replace("measured: the", "; the")
    alone_there = summary([*sweep(), *timed("tucker", 3.0, model="resnet")])
    assert "in onnxruntime only, loss not known (no dense control) ([the whole board]" in alone_there


def test_lines_of_decision_that_say_the_same_are_one() -> None:
    records = [trial_record(trial("identity")), measurement_record(trial("identity")), *timed("tucker", 3.0)]
    assert [line[2] for line in lines_of(summary(records), "Network")[1:]] == ["0.5 to 2 points"]
    records += timed("denton", 4.0, loss=1.9)
    assert [line[2] for line in lines_of(summary(records), "Network")[1:]] == ["0.5 to 1 point", "2 points"]


def test_what_is_no_faster_than_noise_has_no_star_however_wide_its_interval() -> None:
    wide = trial("tucker", 4, task="speed", model="vgg16", recipe="none")
    records = [trial_record(wide, quality=None), measurement_record(wide, 1.2, 0.3, batch=1)]
    records += alone("vgg16", "denton", 1.1)
    (line,) = lines_of(summary(records), "Network")[1:]
    assert line[4].endswith("★") and line[5] == "1.20 [0.88, 1.64] onnxruntime, same"


def test_networks_of_which_the_time_alone_is_known_share_a_table() -> None:
    own = alone("lenet", "tucker", 3.0, ratio=None, ranks={"conv2": 8})  # its own target
    records = [*own, *alone("alexnet", "tucker", 1.0), *alone("vgg16", "jaderberg", 3.1)]
    records += [*alone("vgg16", "tucker", 3.9, options={"align": 16}), *alone("vgg16", "denton", 3.88)]
    text = summary(records)
    lines = lines_of(text, "Network")
    assert lines[0] == ["Network", "Target", "Runtimes timed", "Dense ms, in", "denton", "jaderberg", "tucker"]
    first = ["alexnet", "macs/4", "onnxruntime", "40 onnxruntime", "", "", "1.00 [0.99, 1.01] onnxruntime, same"]
    assert lines[1] == first
    assert [cell[-1] for cell in lines[2][4:]] == ["☆", "e", "★"]  # may be as fast, is slower, is the fastest
    assert lines[2][5:] == ["3.10 [3.07, 3.13] onnxruntime", "3.90 [3.86, 3.94] onnxruntime (1) ★"]
    assert "Options (1): align=16; " in text
    failed = failed_trial(trial("cp_nls", 4, task="speed", model="alexnet", recipe="none"), Status.SKIPPED, "too few")
    headings, first, second, *_ = lines_of(summary([*records, failed]), "Network")
    assert headings[4] == "cp_nls" and (first[4], second[4]) == ("refused", "")


def test_networks_timed_on_several_cores_too_have_a_table_of_those_times() -> None:
    records = alone("vgg16", "tucker", 3.9)
    of = records[0].trial
    records += [measurement_record(of, 2.9, batch=1, threads=2), measurement_record(of, 3.3, batch=64, threads=2)]
    text = summary([*records, *alone("alexnet", "tucker", 2.0)])
    one, two = text.split("<summary><b>Networks by time alone")[1:]
    assert "1 thread, batch 1," in one and "| alexnet |" in one and "3.90 [3.86, 3.94]" in one
    assert "2 threads, batch 1," in two and "| alexnet |" not in two and "2.90 [2.87, 2.93]" in two


def test_what_a_latency_target_came_to_in_the_runtime_that_it_names_is_told_below_the_table() -> None:
    asked = Budget(latency=2, runtime="openvino", threads=1, batch=1)
    records = alone("vgg16", "tucker", 2.2, ("onnxruntime", "openvino"), ratio=None, budget=asked)
    text = summary([*records, *alone("vgg16", "denton", 3.0)])
    line = next(cells for cells in lines_of(text, "Network") if cells[1].startswith("latency/2"))
    assert line[-1].startswith("2.20 [2.18, 2.22] onnxruntime")  # the fastest runtime, which was not asked for
    assert "Latency targets" not in text
    (told,) = re.findall(
        "Latency targets, .*?: (.*?); ", summary(alone("vgg16", "tucker", 2.0, ("openvino",), ratio=None, budget=asked))
    )
    assert told == "tucker on vgg16 2.00 [1.98, 2.02]"


def test_a_network_whose_budgets_were_timed_at_another_batch_than_its_headlines_is_in_the_table() -> None:
    own = trial("tucker", task="speed", model="vgg16", recipe="none", ranks={"conv2": 8})
    records = [trial_record(own, quality=None), measurement_record(own, 3.0, batch=64)]  # least time per image
    text = summary([*records, *alone("vgg16", "tucker", 3.9)])
    (line,) = lines_of(text, "Network")[1:]
    assert line[:2] == ["vgg16", "macs/4"]
    (span,) = lines_of(text, "Machine")[1:]
    assert span[5] == span[6] == "3.90 [3.86, 3.94], tucker on vgg16 in onnxruntime 1t b1"
    assert "of 1 model with at least 5% fewer MACs none" in text  # of given ranks, the records do not say


def test_where_a_model_was_timed_in_fewer_runtimes_than_others_its_choice_is_said_to_be_so_much_smaller() -> None:
    both = ("onnxruntime", "openvino")
    (line,) = lines_of(summary([*alone("vgg16", "tucker", 3.9, both), *alone("vgg16", "denton", 3.0)]), "Network")[1:]
    assert line[2] == "onnxruntime, openvino" and "onnxruntime only" in line[4] and "only" not in line[5]
    text = summary([*sweep(), *timed("denton", 2.0)])
    assert "1 thread, batch 64, fastest of: eager-nhwc, onnxruntime</summary>" in text
    assert {line[0]: line[3] for line in lines_of(text, "Method")}["denton"] == "onnxruntime only"
    assert "1 thread, batch 64, onnxruntime only</summary>" in summary(sweep(runtimes=("onnxruntime",)))


def test_of_several_variants_the_best_is_the_best_that_keeps_within_the_loss() -> None:
    records = [*sweep(), *timed("denton", 3.6, loss=4.0, ratio=8)]
    records += timed("denton", 4.0, loss=5.0, ratio=8, options={"variant": "outer"})
    records += timed("denton", 3.7, loss=0.4, ratio=8, options={"in_clusters": 4})
    text = summary(records)
    assert [line[0] for line in lines_of(text, "Method")].count("denton in_clusters=4") == 1
    assert "Losing more than 2 points (practical speedup, points): denton macs/8 (3.60, +4.0)" in text
    assert "variant=outer" not in text


def test_a_winner_of_another_recipe_was_timed_at_the_same_batch_and_is_less_sure_where_it_is_alone_there() -> None:
    of, control = (trial(method, ratio, recipe="long") for method, ratio in (("cp_nls", 8), ("identity", None)))
    trials = [trial_record(of), trial_record(control)]
    elsewhere = summary([*sweep(), *trials, measurement_record(of, 9.0, batch=1)])
    assert not any("long" in cell for line in lines_of(elsewhere, "Network") for cell in line)
    there = summary([*sweep(), *trials, measurement_record(of, 9.0)])
    for line in lines_of(there, "Network")[1:]:
        assert line[3] == "cp_nls macs/8, recipe long" and "no other method there tuned by long" in line[7]


def test_it_has_the_best_variant_of_each_method_and_budget_and_the_default_beside_it() -> None:
    records = sweep()
    for init, speedup in (("random", 2.9), ("svd", 2.1)):
        records += timed("tucker", speedup, loss=1.8, options={"init": init})
    text = summary(records)
    lines = lines_of(text, "Method")
    assert len(lines) == 1 + 5 + 1 + 1  # headings, models, a variant, the control
    assert [line[0] for line in lines if line[0].startswith("tucker") and line[1] == "macs/4"] == [
        "tucker init=random",
        "tucker",
    ]
    assert lines[-1][0] == "identity (A/A control)"
    assert "Losing more than 2 points (practical speedup, points): channel_svd macs/8 (2.90, +6.5)\n" in text
    assert all(float(line[5].split()[0]) <= 2 for line in lines[1:])


def test_a_winner_stands_in_the_table_whatever_its_recipe_or_options() -> None:
    records = [*sweep(), trial_record(trial("identity", recipe="long"))]
    records += [*timed("cp_nls", 9.0, loss=0.8, recipe="long"), *timed("denton", 9.0, loss=0.8, recipe="lebedev")]
    records += [trial_record(trial("identity", recipe="lebedev")), *timed("tucker", 8.0, loss=3.0, recipe="long")]
    records += timed("jaderberg", 4.0, loss=1.9, options={"align": 16})  # hides the variant that wins at 0.5 points
    records += timed("jaderberg", 3.5, loss=0.1, options={"align": 8})
    text = summary(records)
    decided = {line[2]: line[3] for line in lines_of(text, "Network")}
    assert decided["0.5 points"] == "jaderberg align=8 macs/4, recipe standard"
    assert decided["1 point"] in ("cp_nls macs/4, recipe long", "denton macs/4, recipe lebedev")
    named = [f"{line[0]} {line[1]}" for line in lines_of(text, "Method")]
    assert decided["1 point"] in named and "jaderberg align=8 macs/4" in named
    assert not any(name.startswith("tucker") and "recipe" in name for name in named)  # no winner
    assert "Other recipes, on the whole board: long, lebedev" in text
    assert "Other recipes" not in summary(sweep())


def test_of_a_network_on_two_machines_it_has_the_board_of_most_models_and_names_the_other() -> None:
    text = summary([*sweep(), measurement_record(trial("tucker", 4), 9.0, machine="bench-0")])
    assert text.count("fastest of:") == 1 and "recipe standard, bench-1</b>" in text
    assert "Other machines, on the whole board: bench-0" in text and "Other recipes" not in text
    assert "Other machines" not in summary(sweep())


def test_what_a_user_would_do_instead_stands_below_the_control() -> None:
    dense = measurement_record(trial("identity"), 1.0, 0.003, runtime="onnxruntime-int8")
    of = trial("tucker", 4)
    lines = lines_of(summary([*sweep(), dense, measurement_record(of, 2.0, runtime="onnxruntime-int8")]), "Method")
    assert [line[0] for line in lines[-2:]] == ["identity (A/A control)", "identity (dense, int8)"]
    assert lines[-1][2].startswith("2.50") and lines[-1][3] == "onnxruntime-int8"  # 40 ms in float32, 16 in int8


def test_a_board_of_one_method_is_a_line_with_a_link_to_the_whole_one() -> None:
    records = [*sweep(), *timed("tucker", 3.0, 0.5, model="resnet"), trial_record(trial("identity", model="resnet"))]
    text = summary(records)
    assert text.count("| Method |") == 1
    (line,) = [line for line in text.splitlines() if line.startswith("**resnet on chars36")]
    assert "**, tucker macs/4: practical speedup 3.00 [2.97, 3.03] in onnxruntime only, +0.50 [" in line
    assert line.endswith("points lost ([the whole board](whole.md))")


def test_machines_and_versions_are_told_once_below_all_tables() -> None:
    text = summary([*sweep(), *alone("vgg16", "tucker", 3.9)])
    assert text.count("Testor 9000") == 1
    assert text.splitlines()[-1] == "- bench-1: cpu: Testor 9000; cores: 2; os: Linux 6.1; torch: 2.15.0"


def test_below_the_table_of_networks_their_facts_are_taken_together() -> None:
    records: list[Any] = []
    for model, shaky in (("vgg16", True), ("alexnet", False)):
        of = trial("tucker", 4, task="speed", model=model, recipe="none")
        record = measurement_record(of, 3.0, batch=1, finished=f"2026-01-0{1 + shaky}T00:00:00+00:00")
        assert record.timing is not None
        timing = record.timing.model_copy(update={"unstable": shaky, "processes": record.timing.processes * 5})
        planned = record.measurement.model_copy(update={"processes": 5})
        record = record.model_copy(update={"timing": timing, "measurement": planned, "key": planned.key})
        records += [trial_record(of, quality=None), record]
    told = summary(records).split("\n\n")[-3]
    assert told.count("Top-1: not measured: budgets met by one fraction for all layers;") == 1
    assert "; Recorded: 2026-01-01 to 2026-01-02; Unstable, in every setting: 1 of 2 rows; " in told


def test_it_says_of_how_many_seeds_each_row_is_and_whose_processes_disagree() -> None:
    made, shaky = timed("denton", 2.0)
    lines = lines_of(summary([*sweep(seeds=(0, 1, 2)), made, unstable(shaky)]), "Method")
    column, verdict = lines[0].index("Seeds"), lines[0].index("Verdict")
    assert {line[column] for line in lines[1:] if line[0] != "denton"} == {"3"}
    assert {line[column]: line[verdict] for line in lines if line[0] == "denton"} == {"1": "faster, unstable"}
