import random
from itertools import combinations

import pytest
from matplotlib.figure import Figure
from synthetic_records import measurement_record, sweep, trial, trial_record, write

from lowrank_bench.errors import InvalidRecord
from lowrank_bench.reporting.labels import Label, place_labels
from lowrank_bench.reporting.report import write_report
from lowrank_bench.reporting.styles import STYLES, method_style


def test_a_report_has_its_files_and_the_same_records_give_the_same_bytes(tmp_path):
    records = sweep()
    unjudged = trial(
        "denton", 4, seed=7, options={"init": "$\\frac{ & <b>"}
    )  # no control with this seed: no loss is known
    records += [trial_record(unjudged), measurement_record(unjudged, 0.5)]
    first, again = tmp_path / "first", tmp_path / "again"
    write(first, records)
    write(again, records)
    paths = write_report(first)
    assert sorted(path.suffix for path in paths) == [".csv", ".md", ".png", ".png", ".svg", ".svg"]
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
