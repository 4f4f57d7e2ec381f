import hashlib
import json
import random
import warnings
from itertools import combinations

import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from synthetic_records import failed_trial, measurement_record, sweep, trial, trial_record, write

from lowrank_bench.errors import InvalidRecord
from lowrank_bench.reading import latest
from lowrank_bench.record import Epoch, Status
from lowrank_bench.reporting.board import make_boards, rows_of
from lowrank_bench.reporting.figures import DPI, encode
from lowrank_bench.reporting.files import WRITTEN
from lowrank_bench.reporting.gallery import pictures_of
from lowrank_bench.reporting.heat_map import draw_heat
from lowrank_bench.reporting.labels import Label, place_labels
from lowrank_bench.reporting.records_frame import to_frame
from lowrank_bench.reporting.report import write_report
from lowrank_bench.reporting.styles import STYLES, method_style, short
from lowrank_bench.reporting.trial_figures import draw_plans, draw_tuning


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
    paths = write_report(first)
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
    assert tmp_path / "leaderboard.md" in write_report(tmp_path)


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
    encode(figure, "png")
    label = figure.axes[1].yaxis.label.get_window_extent()
    width, height = figure.get_size_inches() * DPI
    assert 0 <= label.x0 < label.x1 <= width and 0 <= label.y0 < label.y1 <= height


def test_a_plan_shows_the_ranks_of_every_layer():
    record = trial_record(trial("tucker", 4))
    layer = record.size.layers["conv2"].model_copy(update={"ranks": (19, 7)})
    size = record.size.model_copy(update={"layers": {"conv2": layer, "conv3": record.size.layers["conv2"]}})
    records = [record.model_copy(update={"size": size}), trial_record(trial("identity"))]
    (board,) = make_boards(to_frame(records))
    figure = draw_plans(board, latest(records))
    assert [text for text in texts(figure) if text] == ["16", "19×7", "16"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["conv2", "conv3"]


def test_tuning_shows_the_mean_over_seeds_and_the_control_in_every_panel():
    seeds = [tuned(trial("tucker", 4, seed=seed), [80 + seed, 90 + seed]) for seed in (0, 1)]
    records = [*seeds, tuned(trial("jaderberg", 8), [70, 75, 78]), tuned(trial("identity"), [91, 91])]
    (board,) = make_boards(to_frame(records))
    figure = draw_tuning(board, latest(records))
    drawn = {axes.get_title(): sorted([*line.get_ydata()] for line in axes.lines) for axes in figure.axes}
    assert drawn == {"macs/4": [[80.5, 90.5], [91, 91]], "macs/8": [[70, 75, 78], [91, 91]]}


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
