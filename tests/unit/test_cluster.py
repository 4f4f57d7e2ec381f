"""A run over dask: every host has one worker; a worker that dies costs nothing, and timing has its host alone."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from itertools import combinations
from pathlib import Path

import pytest
from invariants import check_finished
from noop import ENVIRONMENT, NoopCrew, measurements, overlap, spans, threads_at_work, trials

import lowrank_bench as lrb
from lowrank_bench.measurement.environment import fingerprint
from lowrank_bench.record import Status, TrialRecord
from lowrank_bench.running.code import code_fingerprint
from lowrank_bench.running.engine import Engine
from lowrank_bench.running.host import Host
from lowrank_bench.trial import Trial, machine_version

distributed = pytest.importorskip("distributed", reason="the extra 'cluster' is not installed")
cluster = pytest.importorskip("lowrank_bench.running.cluster")

JOBS = 2


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[distributed.Client]:
    """Of two workers on this machine, each of which stands for a host."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "LOWRANK_BENCH_LOCKS", str(tmp_path_factory.mktemp("machine"))
        )  # its locks are not those of real runs
        with cluster.local_cluster(JOBS, workers=2) as local, distributed.Client(local) as client:
            client.wait_for_workers(2, timeout=100)
            yield client


def run(folder: Path, crew: NoopCrew, count: int, machine: str) -> None:
    made = trials(count)
    Engine(folder, ENVIRONMENT, crew=crew).run(made, measurements(made, machine))


def test_a_record_that_is_lost_with_its_worker_before_it_was_fetched_is_waited_for_again(
    client: distributed.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[str] = []

    class Late(distributed.as_completed):
        """Tells of the first task when the client has just heard that its record was lost, and is being made again."""

        def __next__(self):
            future = super().__next__()
            if not lost:
                lost.append(future.key)
                loop, state = client.loop, future._state
                loop.add_callback(state.lose)
                while future.status != "lost":
                    time.sleep(0.01)
                loop.add_callback(loop.call_later, 0.3, state.finish)
            return future

    monkeypatch.setattr(cluster, "as_completed", Late)
    crew = cluster.ClusterCrew(client, JOBS)
    (machine,) = crew.machines()
    run(tmp_path, NoopCrew(crew), 2, machine)
    made = trials(2)
    check_finished(tmp_path, [each.key for each in (*made, *measurements(made, machine))])
    assert lost


def test_a_run_that_is_stopped_ends_what_its_hosts_are_doing(client: distributed.Client, tmp_path: Path) -> None:
    (tmp_path / ".run.lock").touch()
    host = Host(tmp_path, ENVIRONMENT, code_fingerprint(), 100)
    crew = NoopCrew(cluster.ClusterCrew(client, JOBS), seconds=0.01, hang_from=1)
    records = crew.work(host, trials(3), [], lambda *_: None)
    assert next(records).key == trials(1)[0].key
    while len(list(tmp_path.glob("spans/*.begun"))) < 3:
        time.sleep(0.05)
    assert sum(client.run(threads_at_work).values()) == 2
    records.close()
    stopped = time.monotonic()
    while any(client.run(threads_at_work).values()):
        assert time.monotonic() - stopped < 60
        time.sleep(0.1)


def test_a_host_without_the_folder_or_with_other_sources_is_named(client: distributed.Client, tmp_path: Path) -> None:
    crew = NoopCrew(cluster.ClusterCrew(client, JOBS))
    with pytest.raises(lrb.InvalidInput, match="file system that all hosts share"):
        list(crew.work(Host(tmp_path, ENVIRONMENT, code_fingerprint(), 100), trials(1), [], lambda *_: None))
    (tmp_path / ".run.lock").touch()
    with pytest.raises(lrb.InvalidInput, match="other sources"):
        list(crew.work(Host(tmp_path, ENVIRONMENT, "0" * 12, 100), trials(1), [], lambda *_: None))


def test_a_machine_of_another_kind_times_nothing(client: distributed.Client, tmp_path: Path) -> None:
    made = trials(1)
    with pytest.raises(lrb.InvalidInput, match="each kind of machine on its own"):
        Engine(tmp_path, ENVIRONMENT, crew=NoopCrew(cluster.ClusterCrew(client, JOBS))).run(
            made, measurements(made, "another-machine")
        )


def test_a_budget_in_latency_is_met_on_the_machine_that_it_was_planned_for(
    client: distributed.Client, tmp_path: Path
) -> None:
    elsewhere = trials(1)[0].model_copy(update={"versions": {"machine": machine_version("another-machine")}})
    with pytest.raises(lrb.InvalidInput, match="each kind of machine on its own"):
        Engine(tmp_path, ENVIRONMENT, crew=NoopCrew(cluster.ClusterCrew(client, JOBS))).run([elsewhere], [])


class FakeFuture:
    """A future that ended with an error."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def result(self) -> None:
        raise self.error


def test_a_trial_whose_workers_all_die_is_a_row_and_a_lost_scheduler_is_none(tmp_path: Path) -> None:
    (trial,) = trials(1)
    host = Host(tmp_path, ENVIRONMENT, "c0de", 100)
    killed = distributed.KilledWorker("task", None, 3)
    for what in (trial, *measurements([trial])):
        record = cluster._record_of(FakeFuture(killed), what, host)
        assert (record.key, record.status) == (what.key, Status.CRASHED) and "was lost" in record.reason
    assert isinstance(cluster._record_of(FakeFuture(killed), trial, host), TrialRecord)
    with pytest.raises(lrb.MeasurementFailed, match="goes on from here"):
        cluster._record_of(FakeFuture(CancelledError()), trial, host)


def test_a_scheduler_that_does_not_answer_or_has_no_fit_worker_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "PATIENCE", 1)
    monkeypatch.setattr(cluster, "_environment", lambda: ENVIRONMENT)  # the worker below is in this process
    with pytest.raises(lrb.InvalidInput, match="no scheduler answers"), cluster.connect("tcp://127.0.0.1:9", 1):
        pass
    with distributed.LocalCluster(
        n_workers=0, processes=False, dashboard_address=None, protocol="tcp", host="127.0.0.1"
    ) as local:
        with pytest.raises(lrb.InvalidInput, match="--resources"), cluster.connect(local.scheduler_address, 1):
            pass
        local.scale(1)
        monkeypatch.setattr(cluster, "PATIENCE", 30)
        no_offer = pytest.raises(lrb.InvalidInput, match="does not offer its host")
        with cluster.connect(local.scheduler_address, 1) as crew, no_offer:
            crew.machines()


def test_a_worker_killed_in_the_middle_costs_nothing_and_timing_is_alone(
    client: distributed.Client, tmp_path: Path
) -> None:
    crew = cluster.ClusterCrew(client, JOBS)
    ((machine, cores),) = crew.machines().items()
    assert (machine, cores) == (fingerprint().machine, cluster.usable_cores())
    made = trials(16)
    keys = [each.key for each in (*made, *measurements(made, machine))]
    running = threading.Thread(target=run, args=(tmp_path, NoopCrew(crew, seconds=0.15), len(made), machine))
    running.start()
    while len(list(tmp_path.glob("spans/*.begun"))) < 6:
        time.sleep(0.02)
    victim = sorted(client.run(os.getpid).values())[0]
    os.kill(victim, signal.SIGKILL)
    running.join(timeout=100)
    assert not running.is_alive()
    check_finished(tmp_path, keys)
    prepared, timed = spans(tmp_path, "prepare"), spans(tmp_path, "time")
    assert not any(overlap(one, other) for one in timed for other in prepared)
    assert not any(overlap(one, other) for one, other in combinations(timed, 2))
    assert any(overlap(one, other) for one, other in combinations(prepared, 2))


def test_children_work_where_the_run_was_started_and_a_host_that_does_not_see_that_folder_is_named(
    client: distributed.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, results = tmp_path / "started", tmp_path / "results"
    started.mkdir()
    net = "from torch import nn\ndef net():\n    return nn.Sequential(nn.Conv2d(3, 8, 3))\n"
    (started / "net_of_cluster.py").write_text(net)
    monkeypatch.chdir(started)
    crew = cluster.ClusterCrew(client, JOBS)
    trial = Trial(task="speed:3x8x8", model="net_of_cluster:net", method="channel_svd", ranks=2, recipe="none")
    Engine(results, ENVIRONMENT, crew=crew).run([trial], [])
    (record,) = Engine(results, ENVIRONMENT).store.records()
    assert (record.status, record.reason) == (Status.OK, "")
    (results / ".run.lock").touch()
    host = Host(results, ENVIRONMENT, code_fingerprint(), 100, working=tmp_path / "nowhere")
    with pytest.raises(lrb.InvalidInput, match=r"does not see .*nowhere, where this run was started"):
        cluster._here(host)
