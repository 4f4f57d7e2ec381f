import hashlib
import json
import random
import warnings
from itertools import combinations, pairwise

import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from synthetic_records import failed_trial, measurement_record, sweep, trial, trial_record, write

from lowrank_bench.errors import InvalidRecord
from lowrank_bench.reading import latest
from lowrank_bench.record import Epoch, Status
from lowrank_bench.reporting.boards.board import make_boards, rows_of
from lowrank_bench.reporting.figures.gallery import pictures_of
from lowrank_bench.reporting.figures.heat_map import draw_heat
from lowrank_bench.reporting.figures.labels import Label, place_labels
from lowrank_bench.reporting.figures.plan_figure import draw_plans
from lowrank_bench.reporting.figures.scatter import DPI, draw_loss, draw_macs, encode
from lowrank_bench.reporting.figures.styles import STYLES, method_style, short
from lowrank_bench.reporting.figures.trial_figures import draw_tuning
from lowrank_bench.reporting.files import WRITTEN
from lowrank_bench.reporting.frame.records_frame import to_frame
from lowrank_bench.reporting.report import write_report
from lowrank_bench.trial import Budget


def test_a_report_has_its_files_and_the_same_records_give_the_same_bytes(tmp_path):
    records = sweep()
    unjudged = trial(
        "denton", 4, seed=7, options={"init": "$\\frac{ & <b>"}
    )  # no control with this seed: no loss is known
    records += [trial_record(unjudged), measurement_record(unjudged, 0.5)]
    records.append(measurement_record(trial("jaderberg", 4), 3.1, processes=5))  # enough for a paper's claim
    first, again = tmp_path / "first", tmp_path / "again"
    write(first, records)
    write(again, records)
    report = write_report(first)
    paths = [*report.pages, *report.figures]
    assert sorted(path.suffix for path in paths) == [".csv", ".html", *[".md"] * 3, *[".png"] * 4, *[".svg"] * 4]
    write_report(again)
    for path in paths:
        assert path.read_bytes() == (again / path.relative_to(first)).read_bytes(), path.name
    names = {path.relative_to(first).as_posix() for path in paths if path.suffix == ".svg"}
    assert all(f"]({name})" in (first / "leaderboard.md").read_text(encoding="utf-8") for name in names)
    assert not [path for path in first.rglob("*.draft")]


def test_a_folder_that_cannot_take_the_report_is_named(tmp_path):
    write(tmp_path, sweep())
    (tmp_path / "figures").write_text("a file where the folder should be")
    with pytest.raises(InvalidRecord, match="figures"):
        write_report(tmp_path)


def test_ranks_of_many_layers_leave_a_picture_room(tmp_path):
    of = trial("tucker", None, ranks={f"features.{number}": 100 + number for number in range(30)})
    write(tmp_path, [trial_record(trial("identity")), trial_record(of), measurement_record(of, 2.0)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_report(tmp_path)
    assert short("tucker macs/4") == "tucker macs/4"


def test_however_long_the_names_the_report_is_written(tmp_path):
    of = trial("tucker", 4, task="image_folder:/" + "a" * 150, model="torchvision:resnet18@/" + "b" * 150)
    write(tmp_path, [trial_record(of), measurement_record(of, 2.0)])
    assert tmp_path / "leaderboard.md" in write_report(tmp_path).pages


def test_what_cannot_be_joined_is_counted_not_dropped_silently(tmp_path):
    write(tmp_path, [measurement_record(trial("tucker", 4), 2.0)])
    write_report(tmp_path)
    assert "not among the records: 1." in (tmp_path / "leaderboard.md").read_text(encoding="utf-8")


def test_a_method_looks_the_same_whatever_others_there_are_and_built_ins_are_told_apart():
    assert method_style("somebody_elses") == method_style("somebody_elses")
    assert method_style("somebody_elses") not in STYLES.values()
    assert len(set(STYLES.values())) == len(STYLES)


def test_labels_cover_neither_points_nor_each_other():
    figure = Figure(dpi=100)
    axes = figure.subplots()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    rng = random.Random(0)
    points = [(rng.random(), rng.random()) for _ in range(60)]
    place_labels(axes, [Label(x, y, "macs/8") for x, y in points])
    boxes = [text.get_window_extent() for text in axes.texts]
    assert 10 < len(boxes) < 60
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    dots = axes.transData.transform(points)
    assert not any(box.contains(*dot) for box in boxes for dot in dots)


@pytest.mark.parametrize(
    "folded", ["lowrank_training\nmacs/4", "cp_nls ranks\nconv2=64\nconv3=64"], ids=["two lines", "three lines"]
)
def test_a_label_that_finds_no_room_in_one_line_takes_more_without_cutting_a_word(folded):
    figure = Figure(figsize=(1.5, 1.5), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 1), ylim=(0, 1))
    place_labels(axes, [Label(0.3, 0.5, " ".join(folded.split()))])
    assert [text.get_text() for text in axes.texts] == [folded]


def tuned(of, curve, loss=0.0):
    """The record of a trial whose validation top-1 went along a curve."""
    record = trial_record(of, loss)
    epochs = [Epoch(loss=1.0, validation_top1=value, seconds=1.0) for value in curve]
    return record.model_copy(update={"quality": record.quality.model_copy(update={"epochs": epochs})})


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_the_heat_map_shows_every_speedup_and_marks_what_is_noise():
    slow = trial("tucker", 4)
    records = [*sweep(), measurement_record(slow, 1.001, runtime="openvino")]
    (board,) = make_boards(to_frame(records))
    figure = draw_heat(board)
    compressed = board.rows[board.rows["method"] != "identity"]
    expected = {f"{row.speedup:.2f}" + ("≈" if row.verdict == "same" else "") for row in rows_of(compressed)}
    assert {text for text in texts(figure) if text} == expected
    assert "1.00≈" in expected
    labels = {label.get_text(): label for label in figure.axes[0].get_yticklabels()}
    framed = labels["jaderberg macs/4"].get_bbox_patch().get_edgecolor()
    assert to_hex(framed).upper() == method_style("jaderberg")[0]


@pytest.mark.parametrize("runtimes", [("openvino",), ("eager-nhwc", "onnxruntime")])
def test_the_heat_maps_colour_bar_and_its_label_are_inside_the_picture(runtimes):
    (board,) = make_boards(to_frame(sweep(runtimes=runtimes)))
    figure = draw_heat(board)
    encode(figure)
    label = figure.axes[1].yaxis.label.get_window_extent()
    width, height = figure.get_size_inches() * DPI
    assert 0 <= label.x0 < label.x1 <= width and 0 <= label.y0 < label.y1 <= height


def test_the_heat_map_marks_what_is_unstable():
    shaky = measurement_record(trial("tucker", 4), 2.0, runtime="openvino")
    shaky = shaky.model_copy(update={"timing": shaky.timing.model_copy(update={"unstable": True})})
    (board,) = make_boards(to_frame([*sweep(), shaky]))
    figure = draw_heat(board)
    assert [text for text in texts(figure) if "†" in text] == ["2.00†"]
    assert "† unstable" in figure.axes[0].get_xlabel()


def test_the_heat_maps_colour_bar_spans_the_values_and_its_ticks_are_the_round_ratios_that_they_read():
    slowest = measurement_record(trial("tucker", 4), 0.8, runtime="openvino")
    (board,) = make_boards(to_frame([*sweep(), slowest]))
    bar = draw_heat(board).axes[1]
    low, high = (2**end for end in bar.get_ylim())
    assert low == pytest.approx(0.8) and high == pytest.approx(board.rows["speedup"].max())
    ticks = {label.get_text(): 2**place for place, label in zip(bar.get_yticks(), bar.get_yticklabels(), strict=True)}
    assert "1×" in ticks and len(ticks) >= 4
    assert all(float(text.rstrip("×")) == pytest.approx(ratio) for text, ratio in ticks.items())


def planned(of, layers, skipped=None):
    """The record of a trial that gave these layers these ranks and left the others for these reasons."""
    record = trial_record(of)
    made = {
        name: record.size.layers["conv2"].model_copy(update={"ranks": ranks, "error": error})
        for name, (ranks, error) in layers.items()
    }
    size = record.size.model_copy(update={"layers": made, "skipped": skipped or {}})
    return record.model_copy(update={"size": size})


def plans_of(*records):
    control = trial_record(trial("identity"))
    control = control.model_copy(update={"size": control.size.model_copy(update={"layers": {}})})
    (board,) = make_boards(to_frame([*records, control]))
    return draw_plans(board, latest([*records, control]))


def told(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_a_plan_shows_the_ranks_of_every_layer_the_first_on_top():
    layers = {"conv2": ((19, 7), 0.1), "conv3": ((16,), None)}
    skipped = {"fc": "tucker leaves linear layers dense", "conv1": "the budget macs/4 is met with it dense, or no"}
    figure = plans_of(planned(trial("tucker", 4), layers, skipped))
    assert {text for text in texts(figure) if text} == {"19×7", "16"}
    axes, bar = figure.axes
    shown = sorted(axes.get_yticklabels(), key=lambda label: axes.transData.transform(label.get_position())[1])
    assert [label.get_text() for label in shown[::-1]] == ["conv1", "conv2", "conv3", "fc"]
    assert told(figure) == ["compressed, error not known", "stayed dense", "out of scope"]
    assert bar.get_ylabel() == "relative error"


def test_a_plan_without_errors_has_no_colour_bar():
    figure = plans_of(planned(trial("tucker", 4), {"conv2": ((16,), None)}))
    assert len(figure.axes) == 1 and told(figure) == ["compressed, error not known"]


def test_a_linear_layer_beyond_a_budget_of_convolutions_is_out_of_scope():
    of = trial("tucker", budget=Budget(macs=4, scope="convs"))
    skipped = {"fc": "the budget macs/4 (convs) is met with it dense, or no factorisation of it is cheaper"}
    other = planned(trial("jaderberg", 4), {"conv2": ((16,), 0.1)}, {"fc": "jaderberg leaves linear layers dense"})
    figure = plans_of(planned(of, {"conv2": ((16,), 0.1)}, skipped), other)
    assert told(figure) == ["out of scope"]


@pytest.mark.parametrize(("models", "layers"), [(70, 4), (3, 90), (25, 25)])
def test_however_many_models_or_layers_a_plan_is_a_picture_of_bounded_size(models, layers):
    named = {f"features.{number}": ((100, 100), 0.5) for number in range(layers)}
    figure = plans_of(*(planned(trial("tucker", 2 + number), named) for number in range(models)))
    width, height = figure.get_size_inches()
    assert width < 25 and height < 20
    axes = figure.axes[0]
    assert max(models, layers) == len(axes.get_yticks()) and min(models, layers) == len(axes.get_xticks())


def test_tuning_shows_the_mean_over_seeds_and_the_control_in_every_panel():
    seeds = [tuned(trial("tucker", 4, seed=seed), [80 + seed, 90 + seed]) for seed in (0, 1)]
    records = [*seeds, tuned(trial("jaderberg", 8), [70, 75, 78]), tuned(trial("identity"), [91, 91])]
    (board,) = make_boards(to_frame(records))
    figure = draw_tuning(board, latest(records))
    drawn = {axes.get_title(): sorted([*line.get_ydata()] for line in axes.lines) for axes in figure.axes}
    assert drawn == {"macs/4": [[80.5, 90.5], [91, 91]], "macs/8": [[70, 75, 78], [91, 91]]}


def test_curves_far_below_the_others_leave_the_scale_and_their_points_are_counted():
    usual = [tuned(trial("tucker", ratio), [89 - ratio / 10, 90 - ratio / 10]) for ratio in (2, 3, 4, 5, 6)]
    lost = tuned(trial("channel_svd", 4), [5.0, 7.0])
    records = [*usual, lost, tuned(trial("identity"), [90, 91])]
    (board,) = make_boards(to_frame(records))
    figure = draw_tuning(board, latest(records))
    low, high = figure.axes[0].get_ylim()
    assert 80 < low < 88.4 and 91 < high < 92
    assert {axes.get_title(): [text.get_text() for text in axes.texts] for axes in figure.axes if axes.texts} == {
        "macs/4": ["↓ 2 points below, down to 5.0"]
    }


def test_labels_on_the_front_name_method_and_target_and_the_options_where_only_they_differ():
    records = [trial_record(trial("identity")), measurement_record(trial("identity"), 1.0)]
    for options, loss, speedup in (({}, 0.1, 2.0), ({"align": 16}, 1.0, 4.0)):
        of = trial("tucker", 4, options=options)
        records += [trial_record(of, loss), measurement_record(of, speedup)]
    other = trial("jaderberg", 4)
    records += [trial_record(other, 3.0), measurement_record(other, 8.0)]
    (board,) = make_boards(to_frame(records), max_loss=5.0)
    labels = {" ".join(text.split()) for text in texts(draw_loss(board))}
    assert labels == {"tucker macs/4", "tucker align=16 macs/4", "jaderberg macs/4"}


def test_models_of_about_the_same_macs_stand_side_by_side_within_the_scale():
    (board,) = make_boards(to_frame(sweep(runtimes=("onnxruntime",))))
    axes = draw_macs(board).axes[0]
    drawn = [line.get_xdata()[0] for line in axes.lines if str(line.get_gid()).startswith("row-")]
    at_four = sorted(x for x in drawn if 3.5 < x < 4.5)
    assert len(at_four) == 3 and all(b / a > 1.05 for a, b in pairwise(at_four))
    assert all(4 / 1.06 < x < 4 * 1.06 for x in at_four), "or a place beside the line would mislead"
    assert at_four[1] == pytest.approx(4, rel=0.01)
    low, high = axes.get_xlim()
    assert all(low < x < high for x in drawn)


def test_what_was_neither_compressed_nor_tuned_has_no_such_picture():
    (board,) = make_boards(to_frame([failed_trial(trial("tucker", 4), Status.CRASHED, "signal 11")]))
    assert [*pictures_of(board, {})] == []


def test_figures_of_boards_that_are_gone_are_removed_and_nothing_else(tmp_path):
    write(tmp_path, sweep())
    write_report(tmp_path)
    ours = sorted(path for path in (tmp_path / "figures").iterdir() if path.suffix == ".svg")
    (tmp_path / "figures" / "profile-charnet.svg").write_text("of another command")
    ours[0].write_text("changed by hand")
    (tmp_path / "precious.svg").write_text("outside")
    listed = json.loads((tmp_path / WRITTEN).read_text()) | {
        name: hashlib.sha256(b"outside").hexdigest() for name in ("figures/../precious.svg", "precious.svg")
    }
    (tmp_path / WRITTEN).write_text(json.dumps(listed))
    write(tmp_path, [record for record in sweep() if record.kind == "trial"])  # nothing timed any more
    write_report(tmp_path)
    left = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"profile-charnet.svg", ours[0].name} <= left
    assert not {path.name for path in ours[1:]} & left
    assert (tmp_path / "precious.svg").exists()


def test_a_damaged_list_of_what_was_written_harms_nothing(tmp_path):
    write(tmp_path, sweep())
    write_report(tmp_path)
    (tmp_path / WRITTEN).write_text('["figures/x"')
    write_report(tmp_path)
    assert len(json.loads((tmp_path / WRITTEN).read_text())) == 8
