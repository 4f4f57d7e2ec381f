"""Hosts from Slurm, by dask-jobqueue: a validated TOML file in, a job script for one whole host out."""

from __future__ import annotations

import shlex
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from dask_jobqueue import SLURMCluster
from pydantic import Field, PositiveInt, StringConstraints, ValidationError

from lowrank_bench.errors import InvalidInput, explain
from lowrank_bench.running.sweep_tables import Table

# The values stand in a job script, which a shell reads: nothing that means anything to it gets through.
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.@+-]*$")]
Directive = Annotated[str, StringConstraints(pattern=r"^--[a-z-]+(=[A-Za-z0-9_.,:@%+\[\]/-]+)?$")]


class SlurmTable(Table):
    """``[slurm]``: how many hosts, and how to ask for one."""

    hosts: PositiveInt
    cores: PositiveInt
    memory: Annotated[str, StringConstraints(pattern=r"^[0-9]+ ?[KMGT]i?B$")]
    walltime: Annotated[str, StringConstraints(pattern=r"^([0-9]+-)?[0-9]+(:[0-9]{2}){0,2}$")]
    queue: Word | None = None
    account: Word | None = None
    interface: Word | None = None
    directives: list[Directive] = Field(default=[], description="further lines for sbatch, such as '--constraint=zen4'")


class SlurmFile(Table):
    """A validated Slurm file."""

    slurm: SlurmTable


def slurm_cluster(path: Path, resources: Mapping[str, int], submit: bool = True) -> Any:
    """A scheduler in this process and, with ``submit``, a job for each host. Raises InvalidInput naming file, field,
    value and remedy.
    """
    table = load_slurm(path)
    cluster = SLURMCluster(
        queue=table.queue,
        account=table.account,
        interface=table.interface,
        cores=table.cores,
        memory=table.memory,
        walltime=table.walltime,
        processes=1,
        python=shlex.quote(sys.executable),
        job_name="lowrank-bench",
        job_extra_directives=["--exclusive", *table.directives],
        worker_extra_args=["--resources", ",".join(f"{name}={count}" for name, count in resources.items())],
        scheduler_options={"dashboard": False},
    )
    if submit:
        cluster.scale(jobs=table.hosts)
    return cluster


def load_slurm(path: Path) -> SlurmTable:
    """Read a Slurm file. Raises InvalidInput naming file, field, value and remedy."""
    try:
        return SlurmFile.model_validate(tomllib.loads(path.read_text(encoding="utf-8-sig"))).slurm
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"--cluster {path} cannot be read: {error}") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidInput(f"{path} is not valid TOML: {error}") from None
    except ValidationError as error:
        raise InvalidInput(explain(error, str(path), SlurmFile)) from None
