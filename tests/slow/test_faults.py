"""The whole campaign of faults beside kills, on real sweeps with real children: nothing is lost, nothing is doubled."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from bad_ends import EXPECTED, PLUGINS
from campaign import Part
from invariants import check_cut_off, check_finished, lines
from noop import ENVIRONMENT, NoopCrew, measurements, trials
from real_runs import check_gone, children_of, keys, left, start
from small_disk import small_disk

from lowrank_bench.reading import latest, read_records
from lowrank_bench.record import Status, TrialRecord
from lowrank_bench.running.engine import Engine
from lowrank_bench.store import FILE_NAME

pytestmark = [
    pytest.mark.timeout(7200),
    pytest.mark.skipif(os.name == "nt", reason="signals of POSIX"),
]

DAMAGES = 300
PART = Part("Faults", "test_faults.py", ["Fault", "Tried", "Survived", "Records lost or doubled"])


@contextmanager
def fault(row: dict[str, Any]) -> Iterator[None]:
    """One fault of a row: tried, and survived where the block ends well."""
    row["Tried"] += 1
    yield
    row["Survived"] += 1


def test_a_disk_that_fills(tmp_path: Path) -> None:
    with PART.faults("the disk fills") as row, small_disk(tmp_path / "results", 4_000) as disk:
        while row["Tried"] < 20:
            run = start(tmp_path, 2)
            _, said = run.communicate()
            if run.returncode == 0:
                break
            with fault(row):
                assert run.returncode == 2 and "No space left" in said and "Traceback" not in said, said
                assert not list(disk.rglob(".*.draft"))
            more = f"remount,size={4_000 * (row['Tried'] + 1)}k"
            subprocess.run(["mount", "-o", more, str(disk)], check=True)
        assert row["Tried"]
        check_finished(disk, keys(tmp_path), real=True)


def test_two_runs_over_one_folder(tmp_path: Path) -> None:
    with PART.faults("two runs over one folder") as row, fault(row):
        first, second = start(tmp_path, 1), start(tmp_path, 1)
        said = [run.communicate()[1] for run in (first, second)]
        assert sorted((first.returncode, second.returncode)) in ([0, 0], [0, 2]), said
        check_finished(tmp_path / "results", keys(tmp_path), real=True)


def test_runs_side_by_side_over_two_folders_time_one_after_the_other(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    with PART.faults("two runs on one machine") as row, fault(row):
        runs = [start(folder, 1, locks=tmp_path) for folder in folders]
        said = [run.communicate()[1] for run in runs]
        assert [run.returncode for run in runs] == [0, 0], said
        for folder in folders:
            check_finished(folder / "results", keys(folder), real=True)


def test_ctrl_c(tmp_path: Path) -> None:
    before, chance = list[bytes](), random.Random(0)
    with PART.faults("Ctrl-C at a random moment") as row:
        for _ in range(5):
            run = start(tmp_path, 1, "-j", "2")
            children_of(run)
            time.sleep(chance.uniform(0, 10))
            run.send_signal(signal.SIGINT)
            _, said = run.communicate(timeout=60)
            if run.returncode == 0:
                break  # it had ended before
            with fault(row):
                assert run.returncode == 130 and "goes on from here" in said and "Traceback" not in said, said
                check_gone(tmp_path)
                before = check_cut_off(tmp_path / "results", before)
        assert row["Tried"]
        assert start(tmp_path, 1).wait() == 0
        check_finished(tmp_path / "results", keys(tmp_path), real=True)


def test_every_bad_end_of_a_method(tmp_path: Path) -> None:
    methods = str(["channel_svd", *EXPECTED])
    mark = tmp_path / "mark"
    run = start(
        tmp_path, 1, "--methods-dir", str(PLUGINS), "--memory", "4", "--timeout", "120", "-j", "2",
        methods=methods, variables={"LOWRANK_BENCH_TEST_MARK": str(mark)},
    )  # fmt: skip
    _, said = run.communicate()
    with ExitStack() as page:
        rows = {
            method: page.enter_context(PART.faults(f"a method {method.replace('_', ' ')}: {status}"))
            for method, (status, _) in EXPECTED.items()
        }
        for row in rows.values():
            row["Tried"] = 1
        assert run.returncode == 1 and "Traceback" not in said, said
        check_gone(tmp_path)
        ended = {r.trial.method: r for r in read_records(tmp_path / "results") if isinstance(r, TrialRecord)}
        assert ended["channel_svd"].status is Status.OK
        for method, (status, words) in EXPECTED.items():
            assert (ended[method].status, words in ended[method].reason) == (status, True), ended[method]
            rows[method]["Survived"] = 1


def test_a_worker_of_a_cluster_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    from lowrank_bench.running.cluster import local_cluster

    monkeypatch.setenv("LOWRANK_BENCH_LOCKS", str(tmp_path))
    killed = "one of two workers of a cluster killed -9 in the middle"
    with PART.faults(killed) as row, fault(row), local_cluster(2, workers=2) as cluster:
        run = start(tmp_path, 3, "-j", "2", "--cluster", cluster.scheduler_address)
        workers = [psutil.Process(nanny.pid) for nanny in cluster.workers.values()]
        begun = time.monotonic()
        while not (family := workers[0].children(recursive=True)):
            assert time.monotonic() - begun < 300 and run.poll() is None
            time.sleep(0.05)
        workers[0].kill()
        _, alive = psutil.wait_procs(family, timeout=10)
        assert not alive, "a child outlived its worker"
        _, said = run.communicate()
        assert run.returncode == 0, said
        assert not left(tmp_path)
        check_finished(tmp_path / "results", keys(tmp_path), real=True)


def noise(chance: random.Random, count: int) -> bytes:
    return chance.randbytes(count).replace(b"\n", b"?")


def damaged(chance: random.Random, text: list[bytes]) -> list[bytes]:
    """Lines of records after a random damage."""
    place = chance.randrange(len(text))
    line = text[place]
    match chance.choice(["half", "truncate", "duplicate", "reorder", "foreign", "flip", "clock"]):
        case "half":
            return [*text[:place], line[: chance.randrange(len(line))], *text[place + 1 :]]
        case "truncate":
            return [*text[:place], line[: chance.randrange(len(line))]]
        case "duplicate":
            return [*text[:place], line, *text[place:]]
        case "reorder":
            return chance.sample(text, len(text))
        case "foreign":
            return [*text[:place], chance.choice([b"{}", b"null", b"[1]", noise(chance, 30)]), *text[place:]]
        case "flip":
            at = chance.randrange(len(line))
            return [*text[:place], line[:at] + noise(chance, 1) + line[at + 1 :], *text[place + 1 :]]
        case _:
            year = b'"finished":"%d' % chance.randint(1000, 9999)
            return [*text[:place], re.sub(rb'"finished":"\d{4}', year, line), *text[place + 1 :]]


def test_damaged_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOWRANK_BENCH_LOCKS", str(tmp_path))
    made = trials(10)
    wanted = {each.key for each in (*made, *measurements(made))}
    chance, results = random.Random(0), tmp_path / "results"
    what = "records.jsonl cut, truncated, doubled, reordered, with foreign lines, flipped bytes, clock jumps"
    with PART.faults(what) as row:
        for _ in range(DAMAGES):
            before = damaged(chance, [line for line in lines(results) if line]) if results.exists() else []
            results.mkdir(exist_ok=True)
            (results / FILE_NAME).write_bytes(b"\n".join(before) + (b"\n" if chance.random() < 0.5 else b""))
            with fault(row):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of what was damaged
                    Engine(results, ENVIRONMENT, crew=NoopCrew()).run(made, measurements(made))
                    kept = latest(read_records(results))
                assert wanted <= set(kept) and all(kept[key].status.well for key in wanted)
                after = lines(results)
                whole = [line for line in before if line in after]
                assert whole == before or whole == before[:-1], (
                    "what was there stays as it was, but for a half-written last line"
                )
