"""All models of a machine together: refusals count as no gain, and what was not tried has no rank."""

import pytest
from synthetic_records import failed_trial, measurement_record, sweep, trial, trial_record

from lowrank_bench.record import Status
from lowrank_bench.reporting.boards.board import make_boards
from lowrank_bench.reporting.boards.overall import make_overall
from lowrank_bench.reporting.frame.records_frame import to_frame
from lowrank_bench.reporting.latex import escape_latex, to_latex
from lowrank_bench.reporting.leaderboard import overall_markdown
from lowrank_bench.reporting.page import render_page


def two_models(*outcomes):
    """On charnet tucker is 2 times as fast and loses nothing; ``outcomes`` are the records of resnet, on which
    channel_svd is as little faster as on charnet.
    """
    controls = [trial("identity"), trial("identity", model="resnet")]
    records = [record for control in controls for record in (trial_record(control), measurement_record(control))]
    slower = [record for model in ("charnet", "resnet") for record in on(model, "channel_svd", 1.2)]
    return [*records, *slower, *on("charnet", speedup=2.0), *outcomes]


def on(model, method="tucker", speedup=4.5, loss=0.0, **setting):
    of = trial(method, 4, model=model)
    return [
        trial_record(trial("identity", model=model)),
        trial_record(of, loss),
        measurement_record(of, speedup, **setting),
    ]


def on_resnet(*args, **fields):
    return on("resnet", *args, **fields)


def overall_of(records):
    (overall,) = make_overall(make_boards(to_frame(records)))
    return {row.method: row for row in overall.rows}


def test_the_allowed_loss_of_one_point_is_named_in_the_singular():
    text = overall_markdown(make_overall(make_boards(to_frame(two_models(*on_resnet()))))[0])
    assert "or lost more than 1 point of top-1" in text


def test_the_mean_is_geometric():
    row = overall_of(two_models(*on_resnet()))["tucker"]
    assert (row.speedup, row.low, row.high) == pytest.approx((3.0, 3.0 * 0.99, 3.0 * 1.01))
    assert (row.rank, row.tried, row.kept, row.front) == (1, 2, 2, 2)


REFUSED = trial("tucker", 4, model="resnet")


@pytest.mark.parametrize(
    "outcomes",
    [
        [failed_trial(REFUSED, Status.SKIPPED, "no rank fits")],
        [failed_trial(REFUSED, Status.CRASHED, "signal 11")],
        [trial_record(REFUSED), measurement_record(REFUSED, status=Status.TIMEOUT, reason="60 s", timing=None)],
        on_resnet(loss=5.0),
    ],
    ids=["refused", "crashed", "not timed in time", "lost too much"],
)
def test_a_refusal_a_failure_or_too_large_a_loss_counts_as_no_gain(outcomes):
    row = overall_of(two_models(*outcomes))["tucker"]
    assert row.speedup == pytest.approx(2**0.5)
    assert (row.rank, row.tried, row.kept) == (1, 2, 1)


def test_a_seed_that_fails_of_a_model_that_was_timed_is_no_refusal_in_settings_in_which_nobody_tried_it():
    lost = failed_trial(trial("tucker", 4, model="resnet", seed=1), Status.CRASHED, "signal 11")
    elsewhere = [record for model in ("charnet", "resnet") for record in on(model, "channel_svd", 1.2, batch=1)]
    elsewhere += [*on("charnet", batch=1), *on_resnet(), lost]
    (overall,) = make_overall(make_boards(to_frame(two_models(*elsewhere))))
    rows = {row.setting[2]: row for row in overall.rows if row.method == "tucker"}
    assert rows.keys() == {64} and (rows[64].tried, rows[64].kept) == (2, 2)


def test_a_model_of_unknown_loss_is_not_tried():
    lone = trial_record(trial("tucker", 4, model="resnet"))
    other = lone.model_copy(update={"quality": lone.quality.model_copy(update={"group_sizes": None})})
    timed = measurement_record(trial("tucker", 4, model="resnet"), 4.5)
    denton = [record for model in ("charnet", "resnet") for record in on(model, "denton", 2.0)]
    (overall,) = make_overall(make_boards(to_frame(two_models(*denton, other, timed))))
    assert {row.method for row in overall.rows} == {"channel_svd", "denton"}  # and of tucker only one loss is known
    assert "where its loss is not known it counts as not tried" in overall_markdown(overall)


def test_where_nothing_has_a_rank_stands_last_however_many_networks_it_was_tried_on():
    def of(method, model, loss):
        made = trial(method, 8, model=model)
        return [trial_record(made, loss), measurement_record(made, 9.0)]

    useless = [record for model in ("charnet", "resnet", "vgg") for record in of("tucker", model, 9.0)]
    (overall,) = make_overall(make_boards(to_frame([*two_models(*on_resnet()), *useless])))
    assert [row.target for row in overall.rows] == ["macs/4", "macs/4", "macs/8"]


def test_what_was_not_tried_on_every_model_has_no_rank_however_fast_and_on_one_alone_no_row():
    both = [*on_resnet("jaderberg", 9.0), *on("vgg", "jaderberg", 9.0)]
    rows = overall_of(two_models(*on_resnet(), *on("vgg"), *both, *on("vgg", "denton", 9.0)))
    assert (rows["jaderberg"].rank, rows["jaderberg"].tried, rows["jaderberg"].networks) == (None, 2, 3)
    assert rows["tucker"].rank == 1
    assert "denton" not in rows


def test_ranks_are_among_what_was_tried_on_the_same_models_at_one_target_in_one_setting():
    elsewhere = [record for model in ("resnet", "vgg") for record in on(model, runtime="openvino")]
    (overall,) = make_overall(make_boards(to_frame(two_models(*elsewhere))))
    (row,) = [row for row in overall.rows if row.method == "tucker"]
    assert (row.setting[0], row.rank, row.tried, row.networks) == ("openvino", 1, 2, 2)
    assert "2 of 2 networks" in overall_markdown(overall)
    alone = trial("tucker", ranks={"fc": 9}, model="lenet")
    third = trial("channel_svd", 8, model="vgg")
    records = [*two_models(*on_resnet()), trial_record(third), measurement_record(third, 3.0)]
    records += [trial_record(alone), measurement_record(alone, 9.0)]
    (overall,) = make_overall(make_boards(to_frame(records)))
    assert overall.networks == ["charnet on chars36", "resnet on chars36"]  # the others share no target with any
    assert {(row.target, row.rank) for row in overall.rows} == {("macs/4", 1), ("macs/4", 2)}


@pytest.mark.parametrize("useful", [True, False])
def test_what_keeps_within_the_loss_on_no_model_has_no_rank_and_stands_below_what_does(useful):
    both = [record for model in ("charnet", "resnet") for record in on(model, "denton", 9.0, loss=5.0)]
    of = trial("jaderberg", 4, model="resnet")
    slow = [*on("charnet", "jaderberg", 0.5), trial_record(of, 5.0), measurement_record(of, 9.0)] if useful else []
    rows = overall_of(two_models(*on_resnet(), *both, *slow))
    assert (rows["denton"].rank, rows["denton"].tried, rows["denton"].kept) == (None, 2, 0)
    ranks = {"tucker": 1, "channel_svd": 2} | ({"jaderberg": 3} if useful else {})
    assert {method: row.rank for method, row in rows.items()} == ranks | {"denton": None}
    assert [*rows] == [*ranks, "denton"]  # though jaderberg is slower than the 1.00 that denton counts for


def test_there_is_no_table_unless_two_methods_were_tried_on_half_of_the_models():
    def tables(*others):
        return make_overall(make_boards(to_frame(two_models(*others))))

    assert tables(*on_resnet("jaderberg")) == []  # tucker and jaderberg on one model each, channel_svd on both
    few = [*on_resnet(), *on("vgg", "denton"), *on("alexnet", "denton")]
    assert len(tables(*few)) == 1  # three methods on two of four models
    assert tables(*few, *on("mobilenet", "denton")) == []  # denton on three of five, the others on two


def test_one_model_has_no_overall_board_and_machines_and_recipes_are_never_mixed():
    assert make_overall(make_boards(to_frame(sweep()))) == []
    short = trial("tucker", 4, recipe="short", model="resnet")
    records = [*sweep(), trial_record(short), measurement_record(short, 2.0)]
    records.append(measurement_record(trial("tucker", 4), 9.0, machine="bench-2"))
    assert make_overall(make_boards(to_frame(records))) == []


def test_the_table_for_papers_has_the_headline_setting_and_takes_text_for_text():
    odd = trial("denton", 4, options={"init": "50%_#1 & {x} \\y $z$ ~ ^ 漢"})
    boards = make_boards(to_frame([*sweep(), trial_record(odd), measurement_record(odd, 1.5)]))
    text = to_latex(boards)
    assert r"\toprule" in text and "onnxruntime 1t b64" in text and "eager-nhwc" not in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 1 + 8
    assert {line.replace(r"\&", "").count("&") for line in rows} == {7}
    assert r"init=50\%\_\#1 \& \{x\} \textbackslash{}y \$z\$ \textasciitilde{} \textasciicircum{} ?" in text
    assert escape_latex("channel_svd") == r"channel\_svd"
    assert text.count("{table}") == 2 and text.isascii()


def test_markdown_page_and_latex_show_all_models(tmp_path):
    boards = make_boards(to_frame(two_models(*on_resnet())))
    overall = make_overall(boards)
    page = render_page([(board, ()) for board in boards], overall, (), tmp_path).decode()
    for text in (overall_markdown(overall[0]), page, to_latex(boards, overall)):
        assert "All 2 networks, recipe standard, bench-1" in text
        assert "2 of 2 networks" in text
    assert page.index('id="rows-0"') < page.index('id="overall-table-0"')
    assert 'data-order="3.00"' in page
