"""A run over many hosts by dask.distributed: one worker process on each, which starts the same children as a run here.

A host is a resource of 100 percent: a preparation takes its share, a timing all of it. Tasks of lost workers are done
again by dask, at most three times; a task that ends, however badly, is never repeated. The client appends the records.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import dask
from distributed import Client, KilledWorker, LocalCluster, as_completed, get_worker

from lowrank_bench.errors import InvalidInput, MeasurementFailed
from lowrank_bench.measurement.cores import usable_cores
from lowrank_bench.measurement.environment import Environment, fingerprint
from lowrank_bench.record import MeasurementRecord, Status, TrialRecord
from lowrank_bench.running.child import Family
from lowrank_bench.running.code import code_fingerprint
from lowrank_bench.running.crew import Timed, Told
from lowrank_bench.running.host import RUN_LOCK, Host
from lowrank_bench.running.slurm import slurm_cluster
from lowrank_bench.trial import MACHINE, Measurement, Trial, machine_version

PERCENT = "lowrank-host"
RESOURCES = {PERCENT: 100}
# Seconds: until a scheduler answers and has a worker; between two looks whether a task is still wanted.
PATIENCE, LOOK = 30, 1.0

Record = TrialRecord | MeasurementRecord


@contextmanager
def connect(where: str, jobs: int) -> Iterator[ClusterCrew]:
    """The hosts of a scheduler's address, of this machine ("local") or of a Slurm file (``*.toml``), with ``jobs``
    preparations at a time on each. Raises InvalidInput where there are none, or none that fit.
    """
    if where == "local":
        with local_cluster(jobs) as cluster, Client(cluster) as client:
            yield ClusterCrew(client, jobs)
    elif where.endswith(".toml"):
        with slurm_cluster(Path(where), RESOURCES) as cluster, Client(cluster) as client:
            client.wait_for_workers(1)  # however long the queue is
            yield ClusterCrew(client, jobs)
    else:
        try:
            client = Client(where, timeout=PATIENCE)
        except (OSError, ValueError) as error:
            raise InvalidInput(
                f"--cluster {where}: no scheduler answers there ({error}): give the address that `dask scheduler` "
                "printed, such as tcp://10.0.0.1:8786, or 'local', or a Slurm file that ends in .toml"
            ) from None
        with client:
            try:
                client.wait_for_workers(1, timeout=PATIENCE)
            except TimeoutError:
                raise InvalidInput(f"--cluster {where}: the scheduler has no worker; {_how_to_start(where)}") from None
            yield ClusterCrew(client, jobs)


def local_cluster(threads: int, workers: int = 1) -> Any:
    """Worker processes on this machine, each of which stands for a host."""
    return LocalCluster(
        n_workers=workers,
        threads_per_worker=threads,
        host="127.0.0.1",
        dashboard_address=None,
        memory_limit=0,  # dask would count the worker alone; the children are limited by --memory
        resources=RESOURCES,
    )


@dataclass(frozen=True)
class ClusterCrew:
    """All hosts of a cluster, with ``jobs`` preparations at a time on each."""

    client: Any
    jobs: int

    def machines(self) -> dict[str, int]:
        """The machine that every host is, and its cores. Raises InvalidInput where hosts differ, or do not fit."""
        found = self.client.run(_describe)
        kinds = {(machine, cores) for machine, cores, _, _ in found.values()}
        if len(kinds) != 1:
            listed = "; ".join(f"{address}: {machine}" for address, (machine, *_) in sorted(found.items()))
            raise InvalidInput(
                f"the hosts are of {len(kinds)} kinds, and a board never mixes machines: run each kind on its own "
                f"({listed})"
            )
        for address, (_, _, percent, code) in found.items():
            if percent != RESOURCES[PERCENT]:
                raise InvalidInput(f"worker {address} does not offer its host; {_how_to_start('ADDRESS')}")
            if code != code_fingerprint():
                raise InvalidInput(f"worker {address} has other sources of lowrank_bench: install the same everywhere")
        return dict(kinds)

    def work(
        self, host: Host, trials: Sequence[Trial], to_time: Sequence[Timed], told: Told
    ) -> Generator[Record, None, None]:
        """As Crew says; what a lost worker did is done again elsewhere. Raises MeasurementFailed where the scheduler is
        lost, and InvalidInput where a host does not fit.
        """
        tried, follow = {trial.key for trial in trials}, defaultdict[str, list[Timed]](list)
        run, futures, done = uuid4().hex[:8], dict[str, Any](), as_completed(loop=self.client.loop)

        def submit(work: Callable[..., Record], percent: int, what: Trial | Measurement, *arguments: Any) -> None:
            future = self.client.submit(
                work, host, *arguments, key=f"{what.key}-{run}", resources={PERCENT: percent}, pure=False, retries=0
            )
            futures[future.key] = future, what
            done.add(future)

        def prepare(trial: Trial) -> None:
            submit(_prepare, RESOURCES[PERCENT] // self.jobs, trial, trial, self.jobs)

        def time(timed: Timed) -> None:
            submit(_time, RESOURCES[PERCENT], timed[1], *timed)

        try:
            for timed in to_time:
                if timed[0].key in tried:
                    follow[timed[0].key].append(timed)
                else:
                    time(timed)
            for trial in trials:
                prepare(trial)
            while futures:
                future = next(done)
                if future.status == "lost":  # with its worker, before the record was fetched: dask does it again
                    done.add(future)
                    continue
                _, what = futures.pop(future.key)
                record = _record_of(future, what, host)
                future.release()
                yield record
                if record.status is Status.OK:
                    for timed in follow.pop(record.key, []):
                        time(timed)
        finally:
            self.client.cancel([future for future, _ in futures.values()])


def _record_of(future: Any, what: Trial | Measurement, host: Host) -> Record:
    try:
        record: Record = future.result()
        return record
    except CancelledError:
        raise MeasurementFailed(
            "the scheduler was lost: what was recorded is kept; the same command goes on from here"
        ) from None
    except KilledWorker:
        pass
    reason = "every worker that had it was lost: its memory may not suffice, or its hosts went away"
    if isinstance(what, Trial):
        return TrialRecord(key=what.key, trial=what, status=Status.CRASHED, reason=reason, code=host.code)
    return MeasurementRecord(key=what.key, measurement=what, status=Status.CRASHED, reason=reason, code=host.code)


def _prepare(host: Host, trial: Trial, jobs: int) -> TrialRecord:
    here = _here(host)
    machine = here.environment.machine
    if trial.versions.get(MACHINE, machine_version(machine)) != machine_version(machine):
        raise _another_machine(machine, "this run meets budgets in latency on another machine")
    with _wanted() as family:
        return here.prepare(trial, max(1, usable_cores() // jobs), _untold, family)


def _time(host: Host, trial: Trial, measurement: Measurement) -> MeasurementRecord:
    here = _here(host)
    if here.environment.machine != measurement.machine:
        raise _another_machine(here.environment.machine, f"this run times {measurement.machine}")
    with _wanted() as family:
        (record,) = here.measure([(trial, measurement, _untold)], family)
        return record


def _another_machine(machine: str, wanted: str) -> InvalidInput:
    return InvalidInput(f"{socket.gethostname()} is {machine}, and {wanted}: run each kind of machine on its own")


def _here(host: Host) -> Host:
    """The same on this worker. Raises InvalidInput where it does not see the results folder or the one in which the run
    was started, or has other sources.
    """
    if not (host.folder / RUN_LOCK).exists():
        raise InvalidInput(
            f"{socket.gethostname()} does not see {host.folder}: put --out on a file system that all hosts share"
        )
    if host.working is not None and not os.path.isdir(host.working):
        raise InvalidInput(
            f"{socket.gethostname()} does not see {host.working}, where this run was started and from where relative "
            "paths and modules of your own count: start it in a folder that all hosts share, such as that of --out"
        )
    if code_fingerprint() != host.code:
        raise InvalidInput(f"{socket.gethostname()} has other sources of lowrank_bench: install the same everywhere")
    return replace(host, environment=_environment())


@cache
def _environment() -> Environment:
    for name in dask.config.get("distributed.nanny.pre-spawn-environ"):
        os.environ.pop(name, None)  # dask's settings for its own threads and allocator would change the times
    return fingerprint()


@contextmanager
def _wanted() -> Iterator[Family]:
    """The children of a task, ended as soon as nobody wants it any more, as its client left or its run was stopped."""
    family, over, worker = Family(), threading.Event(), get_worker()
    key = worker.get_current_task()

    def look() -> None:
        while not over.wait(LOOK):
            task = worker.state.tasks.get(key)
            if task is None or task.state == "cancelled":
                return family.end()

    threading.Thread(target=look, daemon=True).start()
    try:
        yield family
    finally:
        over.set()


def _describe(dask_worker: Any) -> tuple[str, int, float, str]:
    percent = dask_worker.state.total_resources.get(PERCENT, 0)
    return _environment().machine, usable_cores(), percent, code_fingerprint()


def _untold(stage: str, share: float) -> None:
    """What a far child does is not shown."""


def _how_to_start(address: str) -> str:
    return f"start one on each host: dask worker {address} --nworkers 1 --nthreads JOBS --resources {PERCENT}=100"
