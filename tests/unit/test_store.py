"""Records survive: appended one by one, read back equal, and a damaged line costs nothing but itself."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tracemalloc
from codecs import BOM_UTF8
from pathlib import Path
from typing import Any

import pytest

import lowrank_bench as lrb
from lowrank_bench.reading import latest, read_records
from lowrank_bench.record import MeasurementRecord, Status, TrialRecord
from lowrank_bench.store import FILE_NAME, Store, merge
from lowrank_bench.trial import Measurement, Trial


def record(seed: int, status: Status = Status.OK) -> TrialRecord:
    trial = Trial(task="chars36", model="charnet", method="tucker", budget=lrb.Budget(macs=4), recipe="none", seed=seed)
    return TrialRecord(key=trial.key, trial=trial, status=status, reason="" if status is Status.OK else "why")


def test_what_is_appended_is_read_back(tmp_path: Path) -> None:
    store = Store(tmp_path / "below")
    measurement = Measurement(
        trial="0" * 16, machine="m", runtime="eager", threads=1, batch=1, precision=0.1, max_seconds=1
    )
    written = [
        record(0),
        record(1, Status.TIMEOUT),
        MeasurementRecord(key=measurement.key, measurement=measurement, status="failed"),
    ]
    for item in written:
        store.append(item)
    assert store.records() == written
    assert read_records(tmp_path) == written


def test_the_last_record_of_a_key_counts() -> None:
    first, second = record(0, Status.FAILED), record(0)
    assert latest([first, record(1), second])[first.key] is second


def test_what_was_tried_again_stands_where_it_ended() -> None:
    failed, between, again = record(0, Status.FAILED), record(1), record(0)
    assert [*latest([failed, between, again]).values()] == [between, again]


def test_a_record_that_did_not_end_well_hides_none_that_did(tmp_path: Path) -> None:
    good, again, failed = record(0), record(0), record(0, Status.CRASHED)
    assert latest([good, failed])[good.key] is good
    assert latest([good, failed, again])[good.key] is again
    store = Store(put(tmp_path, good, failed))
    assert store.ends() == {good.key: (Status.OK, "")}


def test_a_half_written_line_is_set_aside_and_kept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append(record(0))
    with store.path.open("ab") as file:
        file.write(b'{"kind": "trial", "key": "half')
    with pytest.warns(UserWarning, match="line 2 .half-written"):
        assert store.records() == [record(0).model_copy(update={"finished": store_time(store)})]
    store.append(record(1))
    assert [item.key for item in store.records()] == [record(0).key, record(1).key]
    assert b'"key": "half' in store.path.with_name(FILE_NAME + ".unreadable").read_bytes()


def test_the_mark_with_which_some_editors_begin_a_file_costs_no_record(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for seed in (0, 1):
        store.append(record(seed))
    store.path.write_bytes(BOM_UTF8 + store.path.read_bytes())
    assert read_records(tmp_path) == [record(0), record(1)]


def store_time(store: Store) -> str:
    return store.path.read_text().split('"finished":"')[1].split('"')[0]


@pytest.mark.parametrize("line", [b"{}", b"[1]", b"\xff\xfe", b'{"kind": "trial"}', b"null", b"not json"])
def test_a_foreign_line_is_named_and_costs_nothing_else(tmp_path: Path, line: bytes) -> None:
    store = Store(tmp_path)
    store.append(record(0))
    with store.path.open("ab") as file:
        file.write(line + b"\n")
    store.append(record(1))
    with pytest.warns(UserWarning, match="line 2"):
        assert len(store.records()) == 2


def test_a_budget_of_another_version_is_named_and_costs_nothing_else(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append(record(0))
    foreign = record(1).model_dump_json().replace('"threads":null', '"energy":2')
    with store.path.open("a") as file:
        file.write(foreign + "\n" + foreign)
    store.append(record(2))
    with pytest.warns(UserWarning, match="line 2 is not a record .* budget: energy = 2"):
        assert [item.key for item in store.records()] == [record(0).key, record(2).key]


def test_a_record_under_the_key_of_another_is_named(tmp_path: Path) -> None:
    other = record(1).model_copy(update={"key": record(2).key})
    measured = Measurement(trial="t", machine="m", runtime="eager", threads=1, batch=1, precision=0.1, max_seconds=1)
    wrong = MeasurementRecord(key=record(0).key, measurement=measured, status="ok")
    (tmp_path / FILE_NAME).write_text("".join(f"{r.model_dump_json()}\n" for r in (record(0), other, wrong)))
    with pytest.warns(UserWarning, match=r"line 2 .* key: .* is not that of its trial.* 1 more"):
        assert [item.key for item in read_records(tmp_path)] == [record(0).key]


APPEND_TWENTY = """
import sys
from lowrank_bench.record import TrialRecord
from lowrank_bench.store import Store
from lowrank_bench.trial import Trial

for seed in range(int(sys.argv[2]), int(sys.argv[2]) + 20):
    trial = Trial(task="t", model="m", method="x", recipe="none", seed=seed)
    Store(sys.argv[1]).append(TrialRecord(key=trial.key, trial=trial, status="ok"))
"""


def test_how_each_key_ended_is_read_without_holding_the_records(tmp_path: Path) -> None:
    store, count = Store(tmp_path), 200
    line = record(0, Status.TIMEOUT).model_copy(update={"stderr": "x" * 20_000}).model_dump_json().encode() + b"\n"
    store.path.write_bytes(line * count)
    tracemalloc.start()
    try:
        assert store.ends() == {record(0).key: (Status.TIMEOUT, "why")}
        assert tracemalloc.get_traced_memory()[1] < len(line) * count / 4
    finally:
        tracemalloc.stop()


def test_processes_that_append_at_once_lose_and_double_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-c", APPEND_TWENTY, str(tmp_path)]
    writers = [subprocess.Popen([*command, str(start)]) for start in (0, 20)]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert sorted(item.trial.seed for item in read_records(tmp_path)) == list(range(40))


def test_folders_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(lrb.InvalidRecord, match="does not exist"):
        read_records(tmp_path / "nowhere")
    with pytest.raises(lrb.InvalidRecord, match="no readable record"):
        read_records(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(lrb.InvalidRecord, match="cannot be written"):
        Store(tmp_path / "file" / "below")
    with pytest.raises(lrb.InvalidRecord, match=r"its name is no text: choose another --out"):
        Store(tmp_path / "\udcff")


def test_a_key_names_what_is_done_and_survives_the_process() -> None:
    trial = record(0).trial
    assert trial.key == Trial.model_validate_json(trial.model_dump_json()).key
    assert len({trial.key, record(1).trial.key, trial.model_copy(update={"versions": {"method": 2}}).key}) == 3
    fixed = Trial(task="t", model="m", method="x", recipe="none")
    assert fixed.key == "63b66b413823b32f", "a key that changes orphans every published record"


def put(folder: Path, *items: TrialRecord, tail: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(item.model_dump_json() + "\n" for item in items)
    (folder / FILE_NAME).write_text(text + tail)
    return folder


def at(hour: int, item: TrialRecord) -> TrialRecord:
    return item.model_copy(update={"finished": f"2026-05-04T{hour:02}:00:00+00:00"})


def test_merging_neither_loses_nor_doubles_and_does_nothing_the_second_time(tmp_path: Path) -> None:
    shared = at(1, record(0))
    folders = [put(tmp_path / "a", shared, at(3, record(1))), put(tmp_path / "b", shared, at(2, record(2)))]
    done = merge(folders, tmp_path / "out")
    assert (done.records, done.new, done.repeated, done.conflicting, done.unreadable) == (3, 3, 1, 0, 0)
    assert read_records(tmp_path / "out") == [shared, at(2, record(2)), at(3, record(1))]
    once = done.path.read_bytes()
    assert merge(folders, tmp_path / "out").new == 0
    assert done.path.read_bytes() == once


def test_of_records_that_differ_all_are_kept_and_the_last_counts_wherever_it_came_from(tmp_path: Path) -> None:
    failed, retried = at(1, record(0, Status.FAILED)), at(2, record(0))
    put(tmp_path / "out", retried)
    done = merge([put(tmp_path / "a", failed)], tmp_path / "out")
    assert (done.records, done.conflicting) == (2, 1)
    merged = read_records(tmp_path / "out")
    assert merged == [failed, retried]
    assert latest(merged)[failed.key] == retried


def test_within_a_file_the_order_of_writing_outlives_a_clock_that_went_back(tmp_path: Path) -> None:
    first, retried = at(5, record(0, Status.FAILED)), at(4, record(0))
    folders = [put(tmp_path / "a", first, retried), put(tmp_path / "b", first)]
    merge(folders, tmp_path / "out")
    assert read_records(tmp_path / "out") == [first, retried]


def test_what_cannot_be_read_is_set_aside_once_and_the_sources_stay_as_they_were(tmp_path: Path) -> None:
    source = put(tmp_path / "a", record(0), tail='{"kind": "future"}\n{"kind": "trial", "key": "half')
    before = (source / FILE_NAME).read_bytes()
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"line 2 .*1 more lines"):
            assert merge([source], tmp_path / "out").unreadable == 2
    aside = (tmp_path / "out" / (FILE_NAME + ".unreadable")).read_text()
    assert aside == '{"kind": "future"}\n{"kind": "trial", "key": "half\n'
    assert (source / FILE_NAME).read_bytes() == before
    assert len(read_records(tmp_path / "out")) == 1


def test_folders_that_cannot_be_merged_are_named_and_nothing_is_written(tmp_path: Path) -> None:
    good = put(tmp_path / "good", record(0))
    with pytest.raises(lrb.InvalidInput, match="in one another"):
        merge([good], good / "below")
    with pytest.raises(lrb.InvalidInput, match="in one another"):
        merge([good], tmp_path)
    with pytest.raises(lrb.InvalidRecord, match="does not exist"):
        merge([good, tmp_path / "nowhere"], tmp_path / "out")
    with pytest.raises(lrb.InvalidRecord, match="no readable record"):
        merge([put(tmp_path / "empty")], tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (good / "below").exists()


def test_a_folder_of_another_version_is_told_from_an_empty_one(tmp_path: Path) -> None:
    put(tmp_path, tail='{"kind": "future"}\n' * 3)
    with pytest.warns(UserWarning, match="2 more lines"), pytest.raises(lrb.InvalidRecord, match="none of its 3 lines"):
        read_records(tmp_path)


def test_records_are_read_while_a_run_removes_folders_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store(tmp_path).append(record(0))
    passing, look = tmp_path / "models", os.scandir
    passing.mkdir()

    def look_too_late(folder: Path) -> Any:
        if Path(folder) == passing:
            passing.rmdir()
        return look(folder)

    monkeypatch.setattr(os, "scandir", look_too_late)
    assert len(read_records(tmp_path)) == 1
    assert not passing.exists()


def test_a_folder_that_cannot_be_read_is_named_and_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store(tmp_path / "ours").append(record(0))
    closed, look = tmp_path / "ours" / "theirs", os.scandir
    closed.mkdir()

    def refuse(folder: Path) -> Any:
        if Path(folder) == closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(closed))
        return look(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(lrb.InvalidRecord, match=r"theirs cannot be read \(Permission denied\)"):
        merge([tmp_path / "ours"], tmp_path / "all")
    assert not (tmp_path / "all").exists()


def test_a_link_to_a_folder_is_told_of(tmp_path: Path) -> None:
    Store(tmp_path / "elsewhere").append(record(0))
    Store(tmp_path / "here").append(record(1))
    (tmp_path / "here" / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.warns(UserWarning, match="link is a link to a folder, which is not followed"):
        assert len(read_records(tmp_path / "here")) == 1
