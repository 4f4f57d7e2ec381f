"""The engine does what is missing and no more; every end of a child is a record, never a gap."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from noop import ENVIRONMENT, NoopCrew, measurements, overlap, spans, trials
from processes import alive
from synthetic_records import measurement_record

import lowrank_bench as lrb
from lowrank_bench.measurement.environment import fingerprint
from lowrank_bench.reading import latest
from lowrank_bench.record import MeasurementRecord, RuntimeQuality, Status
from lowrank_bench.running import child, crew, engine, host
from lowrank_bench.running.child import Ended, run_child
from lowrank_bench.running.crew import LocalCrew
from lowrank_bench.running.engine import Engine, Event
from lowrank_bench.running.locks import timing_lock
from lowrank_bench.running.worker import Outcome, TimingJob, TrialJob
from lowrank_bench.trial import Measurement, Trial


def trial(seed: int = 0, method: str = "tucker") -> Trial:
    return Trial(task="chars36", model="charnet", method=method, budget=lrb.Budget(macs=4), recipe="none", seed=seed)


def measurement(of: Trial) -> Measurement:
    return Measurement(trial=of.key, machine="m", runtime="eager", threads=1, batch=1, precision=0.1, max_seconds=1)


class FakeChildren:
    """Stands for the child processes: counts the jobs, and ends each as told."""

    def __init__(self) -> None:
        self.jobs: list[str] = []
        self.processes: list[list[str]] = []
        self.timeouts: list[float] = []
        self.judged: list[str] = []
        self.threads: list[int] = []
        self.judge = False
        self.ends: Callable[[str], Outcome] = lambda key: Outcome(status=Status.OK)

    def __call__(
        self, job: TrialJob | TimingJob, threads: int, timeout: float, progress: object, family: object, *_: object
    ) -> Ended:
        if isinstance(job, TimingJob):
            self.processes.append([row.measurement.key for row in job.rows])
            self.timeouts.append(timeout)
            outcome = Outcome(status=Status.OK, rows=[self._end(row.measurement.key, row.judge) for row in job.rows])
        else:
            outcome = self._end(job.trial.key)
            if outcome.status is Status.OK:
                (job.models / job.trial.key).mkdir(parents=True, exist_ok=True)
                (job.models / job.trial.key / "plan.json").write_text("{}")
        self.threads.append(threads)
        well = all(end.status is Status.OK for end in (outcome, *outcome.rows))
        return Ended(outcome, "" if well else "its last words")

    def _end(self, key: str, judge: bool = False) -> Outcome:
        self.jobs.append(key)
        self.judge = judge
        if judge:
            self.judged.append(key)
        return self.ends(key)


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeChildren]:
    fake = FakeChildren()
    monkeypatch.setattr(host, "run_child", fake)
    for lock in ("preparation_lock", "timing_lock"):  # nothing is timed, so a real timing need not be waited for
        monkeypatch.setattr(host, lock, nullcontext)
    yield fake


def test_running_again_does_nothing_and_a_new_setting_only_itself(tmp_path: Path, children: FakeChildren) -> None:
    trials = [trial(0), trial(1)]
    children.ends = lambda key: (
        Outcome(status=Status.OK) if key in {t.key for t in trials} else Outcome(status=Status.SKIPPED)
    )
    first = Engine(tmp_path, fingerprint()).run(trials, [measurement(t) for t in trials])
    assert (first.ran, first.kept, len(children.jobs)) == (4, 0, 4)
    again = Engine(tmp_path, fingerprint()).run(trials, [measurement(t) for t in trials])
    assert (again.ran, again.kept, len(children.jobs)) == (0, 4, 4)
    more = [m.model_copy(update={"batch": 64}) for m in map(measurement, trials)]
    Engine(tmp_path, fingerprint()).run(trials, more)
    assert children.jobs[4:] == [m.key for m in more]


@pytest.mark.parametrize("status", [s for s in Status if not s.well])
def test_a_failure_is_a_row_with_its_reason_and_is_retried_only_when_asked(
    tmp_path: Path, children: FakeChildren, status: Status
) -> None:
    children.ends = lambda key: Outcome(status=status, reason="why")
    summary = Engine(tmp_path, fingerprint()).run([trial()], [measurement(trial())])
    assert len(summary.failed) == 1 and "why" in summary.failed[0]
    records = Engine(tmp_path, fingerprint()).store.records()
    assert [(r.status, r.reason, r.stderr) for r in records] == [(status, "why", "its last words")]
    children.ends = lambda key: Outcome(status=Status.OK)
    again = Engine(tmp_path, fingerprint()).run([trial()], [])
    assert (again.ran, again.failed, again.well) == (0, [], False)
    (before,) = again.failed_before
    assert before == f"{trial()}: {status} (why)"
    assert Engine(tmp_path, fingerprint(), retry=[status]).run([trial()], []).ran == 1
    assert latest(Engine(tmp_path, fingerprint()).store.records())[trial().key].status is Status.OK


def test_a_record_names_the_threads_of_the_children_and_not_the_parents(tmp_path: Path, children: FakeChildren) -> None:
    of = trial()
    Engine(tmp_path, fingerprint()).run([of], [measurement(of)])
    _, timed = Engine(tmp_path, fingerprint()).store.records()
    assert timed.environment["torch_threads"] == measurement(of).threads == 1
    assert timed.environment["variables"]["OMP_NUM_THREADS"] == "1"


def test_a_run_cut_off_loses_nothing_that_was_recorded(tmp_path: Path, children: FakeChildren) -> None:
    def interrupt_third(key: str) -> Outcome:
        if len(children.jobs) == 3:
            raise KeyboardInterrupt
        return Outcome(status=Status.OK)

    children.ends = interrupt_third
    trials = [trial(seed) for seed in range(4)]
    with pytest.raises(KeyboardInterrupt):
        Engine(tmp_path, fingerprint()).run(trials, [])
    children.ends = lambda key: Outcome(status=Status.OK)
    summary = Engine(tmp_path, fingerprint()).run(trials, [])
    assert (summary.kept, summary.ran) == (2, 2)


@pytest.mark.parametrize("lacked", ["RuntimeMissing: pip install it", "DataMissing: no such folder"])
def test_what_was_skipped_for_want_of_something_is_tried_again_once_that_is_there(
    tmp_path: Path, children: FakeChildren, monkeypatch: pytest.MonkeyPatch, lacked: str
) -> None:
    of_data = lacked.startswith("DataMissing")
    skipped = Outcome(status=Status.SKIPPED, reason=lacked)
    children.ends = lambda key: skipped if of_data or key != trial().key else Outcome(status=Status.OK)
    installed: dict[str, str | None] = {"eager": "pip install it"}
    monkeypatch.setattr(engine, "available_runtimes", lambda: installed)

    def run() -> int:
        return Engine(tmp_path, fingerprint()).run([trial()], [measurement(trial())]).ran

    assert run() == (1 if of_data else 2)
    children.ends = lambda key: Outcome(status=Status.OK)
    if not of_data:
        assert run() == 0
        installed["eager"] = None
    assert run() == (2 if of_data else 1)
    assert run() == 0
    ends = Engine(tmp_path, fingerprint()).store.ends()
    assert {end.status for end in ends.values()} == {Status.OK}


@pytest.mark.parametrize(
    ("task", "reason"),
    [("chars36", "InvalidBudget: out of reach"), ("speed", "DataMissing: task 'speed' has no images")],
)
def test_a_refusal_is_not_tried_again(tmp_path: Path, children: FakeChildren, task: str, reason: str) -> None:
    refused = trial().model_copy(update={"task": task})
    children.ends = lambda key: Outcome(status=Status.SKIPPED, reason=reason)
    assert [Engine(tmp_path, fingerprint()).run([refused], []).ran for _ in range(2)] == [1, 0]


def test_a_model_that_cannot_be_made_again_leaves_its_good_record_and_is_tried_again(
    tmp_path: Path, children: FakeChildren
) -> None:
    Engine(tmp_path, fingerprint()).run([trial()], [])
    (tmp_path / "models" / trial().key / "plan.json").unlink()
    children.ends = lambda key: Outcome(status=Status.OUT_OF_MEMORY, reason="killed")
    assert Engine(tmp_path, fingerprint()).run([trial()], [measurement(trial())]).failed
    store = Engine(tmp_path, fingerprint()).store
    assert len(store.records()) == 2
    assert latest(store.records())[trial().key].status is store.ends()[trial().key].status is Status.OK
    children.ends = lambda key: Outcome(status=Status.OK)
    assert Engine(tmp_path, fingerprint()).run([trial()], [measurement(trial())]).ran == 2


def test_a_model_that_is_gone_is_made_again_when_it_is_to_be_timed(tmp_path: Path, children: FakeChildren) -> None:
    Engine(tmp_path, fingerprint()).run([trial()], [])
    (tmp_path / "models" / trial().key / "plan.json").unlink()
    children.ends = lambda key: Outcome(status=Status.OK if key == trial().key else Status.SKIPPED)
    Engine(tmp_path, fingerprint()).run([trial()], [measurement(trial())])
    assert children.jobs == [trial().key, trial().key, measurement(trial()).key]


def test_a_model_that_is_damaged_is_made_again_with_the_timing_that_found_it_so(
    tmp_path: Path, children: FakeChildren
) -> None:
    damaged = Outcome(status=Status.FAILED, reason="InvalidPlan: plan.json holds no plan")
    children.ends = lambda key: Outcome(status=Status.OK) if key == trial().key else damaged
    Engine(tmp_path, fingerprint()).run([trial()], [measurement(trial())])
    Engine(tmp_path, fingerprint()).run([trial()], [measurement(trial())])
    assert children.jobs == [trial().key, measurement(trial()).key]
    Engine(tmp_path, fingerprint(), retry=[Status.FAILED]).run([trial()], [measurement(trial())])
    assert children.jobs[2:] == [trial().key, measurement(trial()).key]


def test_a_row_has_as_many_processes_as_asked_and_fewer_bits_are_judged_in_the_first_of_them(
    tmp_path: Path, children: FakeChildren
) -> None:
    timed = measurement_record(trial()).timing
    assert timed is not None
    judged = RuntimeQuality(images=10, top1=90.0, hits="", calibration_images=0)

    def end(key: str) -> Outcome:
        if key == trial().key:
            return Outcome(status=Status.OK)
        return Outcome(status=Status.OK, timing=timed.processes[0], runtime_quality=judged if children.judge else None)

    children.ends = end
    plain = measurement(trial()).model_copy(update={"processes": 5})
    fewer_bits = plain.model_copy(update={"runtime": "openvino-bf16"})
    Engine(tmp_path, fingerprint()).run([trial()], [plain, fewer_bits])
    assert children.judged == [fewer_bits.key]
    kept = latest(Engine(tmp_path, fingerprint()).store.records())
    for key, quality in ((plain.key, None), (fewer_bits.key, judged)):
        record = kept[key]
        assert isinstance(record, MeasurementRecord) and record.timing is not None
        assert (len(record.timing.processes), record.quality) == (5, quality)


def test_rows_take_turns_so_that_the_processes_of_one_lie_apart(
    tmp_path: Path, children: FakeChildren, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = measurement_record(trial()).timing
    assert timed is not None
    names = ("eager", "eager-nhwc", "compile", "onnxruntime")
    rows = {name: measurement(trial()).model_copy(update={"processes": 3, "runtime": name}) for name in names}
    missing = rows["compile"].key
    children.ends = lambda key: Outcome(
        status=Status.SKIPPED if key == missing else Status.OK, timing=None if key == missing else timed.processes[0]
    )
    monkeypatch.setattr(crew, "ROUND", 3)
    Engine(tmp_path, fingerprint()).run([trial()], [*rows.values()])
    first, second, third, last = (row.key for row in rows.values())
    assert children.jobs[1:] == [first, second, third, first, second, first, second, last, last, last]
    ends = [record.key for record in Engine(tmp_path, fingerprint()).store.records()]
    assert ends == [trial().key, third, first, second, last]


def test_models_with_one_dense_model_and_one_setting_share_processes_and_begin_them_in_turn(
    tmp_path: Path, children: FakeChildren
) -> None:
    timed = measurement_record(trial()).timing
    assert timed is not None
    made = [trial(seed) for seed in range(3)]
    other = trial().model_copy(update={"model": "another"})
    rows = [measurement(each).model_copy(update={"processes": 2}) for each in (*made, other)]
    rows += [measurement(made[0]).model_copy(update={"threads": 2})]
    rows += [measurement(each).model_copy(update={"runtime": "onnxruntime-int8"}) for each in made[:2]]
    children.ends = lambda key: Outcome(status=Status.OK, timing=timed.processes[0])
    Engine(tmp_path, fingerprint(), timeout=60.0).run([*made, other], rows)
    first, second, third, fourth, fifth, *by_their_own_images = (row.key for row in rows)
    assert children.processes == [
        [first, second, third],
        [fourth],
        [fifth],
        *([key] for key in by_their_own_images),
        [second, third, first],
        [fourth],
    ]
    assert children.timeouts == [60.0 * len(keys) for keys in children.processes]  # each has its own


@pytest.mark.parametrize("dies", [False, True])
def test_what_fails_in_company_is_tried_alone(
    tmp_path: Path, children: FakeChildren, monkeypatch: pytest.MonkeyPatch, dies: bool
) -> None:
    timed = measurement_record(trial()).timing
    assert timed is not None
    made = [trial(seed) for seed in range(3)]
    rows = [measurement(each).model_copy(update={"processes": 2}) for each in made]
    bad = rows[1].key

    def run(job: TrialJob | TimingJob, *arguments: Any) -> Ended:
        ended = children(job, *arguments)
        killed = dies and isinstance(job, TimingJob) and bad in children.processes[-1]
        return Ended(Outcome(status=Status.CRASHED, reason="killed"), "its last words") if killed else ended

    monkeypatch.setattr(host, "run_child", run)
    children.ends = lambda key: (
        Outcome(status=Status.NOT_EXPORTABLE, reason="why")
        if key == bad
        else Outcome(status=Status.OK, timing=timed.processes[0])
    )
    Engine(tmp_path, fingerprint()).run(made, rows)
    first, _, third = (row.key for row in rows)
    together = [first, bad, third]
    alone = [[first], [bad], [third], [first], [third]]
    assert children.processes == ([together, *alone] if dies else [together, [bad], [third, first]])
    kept = latest(Engine(tmp_path, fingerprint()).store.records())
    assert [(kept[key].status, kept[key].stderr) for key in (first, third)] == [(Status.OK, "")] * 2
    assert (kept[bad].status, kept[bad].reason, kept[bad].stderr) == (
        (Status.CRASHED, "killed", "its last words") if dies else (Status.NOT_EXPORTABLE, "why", "its last words")
    )


def test_where_a_peak_of_memory_cannot_be_forgotten_each_model_is_timed_in_processes_of_its_own(
    tmp_path: Path, children: FakeChildren, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "forget_peak", lambda: False)
    made = [trial(0), trial(1)]
    Engine(tmp_path, fingerprint()).run(made, [measurement(each) for each in made])
    assert children.processes == [[measurement(each).key] for each in made]


def test_two_runs_over_one_folder_do_not_mix(tmp_path: Path, children: FakeChildren) -> None:
    inner = Engine(tmp_path, fingerprint())

    def run_inside(key: str) -> Outcome:
        with pytest.raises(lrb.InvalidRecord, match="in use"):
            inner.run([trial(1)], [])
        return Outcome(status=Status.OK)

    children.ends = run_inside
    Engine(tmp_path, fingerprint()).run([trial()], [])


def test_preparation_goes_side_by_side_and_timing_is_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOWRANK_BENCH_LOCKS", str(tmp_path))
    made = trials(6)
    several = NoopCrew(LocalCrew(jobs=3), seconds=0.1)
    Engine(tmp_path, ENVIRONMENT, crew=several).run(made, measurements(made[:3]))
    prepared, timed = spans(tmp_path, "prepare"), spans(tmp_path, "time")
    assert (len(prepared), len(timed)) == (6, 3)
    assert any(overlap(first, second) for first, second in pairwise(prepared))
    assert not any(overlap(one, other) for one in timed for other in (*prepared, *timed) if one != other)


def test_a_run_that_waits_for_another_one_s_timing_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOWRANK_BENCH_LOCKS", str(tmp_path))
    monkeypatch.setattr(host, "run_child", FakeChildren())
    told, waiting = list[str](), threading.Event()

    def hear(event: Event) -> None:
        told.append(event.stage)
        if event.stage == host.WAITS:
            waiting.set()

    with timing_lock():
        run = threading.Thread(target=Engine(tmp_path, ENVIRONMENT, report=hear).run, args=([trial()], []))
        run.start()
        assert waiting.wait(timeout=60) and set(told) == {host.WAITS}
    run.join()
    assert told[-1] != host.WAITS


@pytest.mark.parametrize(("jobs", "threads"), [(1, 8), (2, 4), (3, 2), (16, 1)])
def test_the_cores_are_divided_among_what_is_prepared_at_once(
    tmp_path: Path, children: FakeChildren, monkeypatch: pytest.MonkeyPatch, jobs: int, threads: int
) -> None:
    monkeypatch.setattr(crew, "usable_cores", lambda: 8)
    Engine(tmp_path, fingerprint(), crew=LocalCrew(jobs)).run([trial()], [])
    assert children.threads == [threads]


def test_a_disk_that_is_full_stops_the_run_and_is_no_failure_of_the_trial(
    tmp_path: Path, children: FakeChildren
) -> None:
    def full(key: str) -> Outcome:
        raise lrb.NotWritten("weights.safetensors cannot be written (No space left on device)")

    children.ends = full
    with pytest.raises(lrb.NotWritten, match="No space left"):
        Engine(tmp_path, fingerprint()).run([trial()], [])
    assert Engine(tmp_path, fingerprint()).store.records() == []


def test_a_disk_without_room_for_what_a_measurement_shares_stops_the_run(
    tmp_path: Path, children: FakeChildren
) -> None:
    Engine(tmp_path, fingerprint()).run([trial()], [])
    shutil.move(tmp_path / "models", tmp_path / "moved")
    here = Engine(tmp_path, fingerprint()).host
    (tmp_path / "models").write_text("no folder can be made here")
    with pytest.raises(lrb.NotWritten, match=r"models cannot be written .*make room"):
        next(here.measure([(trial(), measurement(trial()), lambda stage, share: None)], child.Family()))


def test_a_disk_without_room_for_a_childs_log_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(child.tempfile, "TemporaryFile", full)
    with pytest.raises(lrb.NotWritten, match=r"TMPDIR.*No space left"):
        run_child(TrialJob(trial=trial(), models=tmp_path), 1, 1, lambda *_: None)


@pytest.mark.parametrize(("status", "kept"), [(Status.OK, False), (Status.SKIPPED, False), (Status.TIMEOUT, True)])
def test_finished_stages_are_kept_as_long_as_they_may_be_needed(
    tmp_path: Path, children: FakeChildren, status: Status, kept: bool
) -> None:
    finished = tmp_path / "models" / f"{trial().key}.stages" / "compressed"
    finished.mkdir(parents=True)
    children.ends = lambda key: Outcome(status=status)
    Engine(tmp_path, fingerprint()).run([trial()], [])
    assert finished.exists() is kept


def test_drafts_and_exports_that_a_kill_left_are_removed(tmp_path: Path, children: FakeChildren) -> None:
    draft = tmp_path / "models" / "0123" / ".plan.json.7-7.draft"
    draft.parent.mkdir(parents=True)
    draft.write_text("{")
    export = tmp_path / "models" / ".exports-1a2b" / "0123.onnx"
    export.parent.mkdir()
    export.write_text("onnx")
    Engine(tmp_path, fingerprint()).run([], [])
    assert not draft.exists()
    assert not export.parent.exists()


def test_a_child_dies_with_its_parent_however_the_parent_dies(tmp_path: Path) -> None:
    folder = tmp_path / "methods"
    folder.mkdir()
    mark = tmp_path / "pid"
    (folder / "slow.py").write_text(
        "import os, pathlib, time\nfrom lowrank_bench.compression.method import Method\n"
        "class Slow(Method):\n    'Slow.'\n    name, version = 'slow', 1\n"
        f"    def compress(self, model, job):\n        pathlib.Path({str(mark)!r}).write_text(str(os.getpid()))\n      "
        "  time.sleep(600)\n"
    )
    job = TrialJob(trial=trial(method="slow"), models=tmp_path / "models", methods_folders=[folder])
    script = (
        "import sys; from lowrank_bench.running.child import run_child; from lowrank_bench.running.worker import JOB\n"
        "run_child(JOB.validate_json(sys.argv[1]), 1, 600, lambda *_: None)"
    )
    parent = subprocess.Popen([sys.executable, "-P", "-c", script, job.model_dump_json()])
    while not (mark.exists() and mark.read_text()):
        assert parent.poll() is None
        time.sleep(0.2)
    parent.kill()
    parent.wait()
    for _ in range(100):
        if not alive(int(mark.read_text())):
            return
        time.sleep(0.1)
    pytest.fail("the child outlived its parent")


def test_a_child_whose_parent_is_gone_ends_before_it_has_imported_torch() -> None:
    command = [sys.executable, "-P", "-X", "importtime", "-m", child.START]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, start_new_session=True)
    assert ended.returncode < 0 or os.name == "nt"
    assert "lowrank_bench.errors" in ended.stderr and "| torch\n" not in ended.stderr


def test_threads_are_set_before_the_child_imports_anything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: dict[str, str] = {}

    class Stop(Exception):
        pass

    def popen(command: list[str], **arguments: object) -> None:
        seen.update(arguments["env"])  # type: ignore[call-overload]
        raise Stop

    monkeypatch.setattr(child.subprocess, "Popen", popen)
    with pytest.raises(Stop):
        run_child(TrialJob(trial=trial(), models=tmp_path), 3, 1, lambda *_: None)
    assert seen["OMP_NUM_THREADS"] == seen["MKL_NUM_THREADS"] == "3"
