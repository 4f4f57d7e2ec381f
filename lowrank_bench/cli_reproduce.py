"""The command ``lowrank-bench reproduce``: a paper's experiments, run here, and its numbers beside ours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from lowrank_bench.cli_inspect import DEFAULT_OUT
from lowrank_bench.cli_list import escape
from lowrank_bench.cli_run import (
    DEFAULT_TIMEOUT,
    FAILED,
    Jobs,
    Only,
    Out,
    Retry,
    Timeout,
    console,
    progress_bar,
    shower,
    stop_interrupted,
    tell,
    tried_again,
)
from lowrank_bench.errors import DataMissing
from lowrank_bench.shipped import paper_names

if TYPE_CHECKING:
    from lowrank_bench.record import Status
    from lowrank_bench.reporting.claims.paper import Paper
    from lowrank_bench.reporting.claims.reproduction import Reproduced
    from lowrank_bench.running.engine import Summary
    from lowrank_bench.trial import Measurement, Trial

ALL = "all"
PAGE, QUICK_PAGE = "reproduction.md", "reproduction-quick.md"

PaperArgument = Annotated[str, typer.Argument(help=f"One of {', '.join(paper_names())}, or {ALL}.")]


def reproduce(
    paper: PaperArgument,
    quick: Annotated[bool, typer.Option("--quick", help="One seed, short tuning, one process: minutes.")] = False,
    out: Out = DEFAULT_OUT,
    jobs: Jobs = 1,
    only: Only = None,
    timeout: Timeout = DEFAULT_TIMEOUT,
    retry: Retry = None,
) -> None:
    """Run a paper's experiments, as far as records are missing, and show its numbers beside ours (reproduction.md).

    An experiment whose data are not on this machine is left out, and named.
    """
    from lowrank_bench.reading import read_records
    from lowrank_bench.reporting.claims.evidence import Evidence
    from lowrank_bench.reporting.claims.paper import load_paper
    from lowrank_bench.reporting.claims.reproduction import reproduced, reproduction_markdown
    from lowrank_bench.reporting.files import replace_file

    again = tried_again(jobs, timeout, retry)
    papers = [load_paper(name) for name in (paper_names() if paper == ALL else [paper])]
    summary = _run(papers, quick, out, jobs, only, timeout, again)
    evidence = Evidence(read_records(out, allow_empty=True))
    known = {name: reproduced(load_paper(name), evidence, quick=quick) for name in paper_names()}
    page = out / (QUICK_PAGE if quick else PAGE)
    replace_file(page, reproduction_markdown(known.values(), quick=quick).encode())
    for asked in papers:
        _show(known[asked.name])
    Console().print(Text(f"written: {page}"), soft_wrap=True)
    if not summary.well:
        raise typer.Exit(FAILED)


def _run(
    papers: list[Paper], quick: bool, out: Path, jobs: int, only: list[str] | None, timeout: float, again: list[Status]
) -> Summary:
    from lowrank_bench.measurement.cores import usable_cores
    from lowrank_bench.measurement.environment import fingerprint
    from lowrank_bench.running.crew import LocalCrew
    from lowrank_bench.running.engine import Engine, select
    from lowrank_bench.running.ready import check_ready

    environment = fingerprint()
    trials: dict[str, Trial] = {}
    measurements: dict[str, Measurement] = {}
    missing: DataMissing | None = None
    for paper in papers:
        for name, (sweep, of_sweep) in paper.plans(quick).items():
            try:
                check_ready(of_sweep)
            except DataMissing as error:
                missing = error
                console.print(f"[yellow]left out[/] {paper.name}, {name}: {escape(error)}", soft_wrap=True)
                continue
            trials |= {trial.key: trial for trial in of_sweep}
            timed = sweep.measurements(of_sweep, environment.machine, usable_cores())
            measurements |= {measurement.key: measurement for measurement in timed}
    if missing is not None and not trials:
        raise missing
    wanted = [*trials.values()], [*measurements.values()]
    if only:
        wanted = select(*wanted, only)
    try:
        with progress_bar() as progress:
            engine = Engine(
                out, environment, timeout=timeout, retry=again, crew=LocalCrew(jobs), report=shower(progress)
            )
            summary = engine.run(*wanted)
    except KeyboardInterrupt:
        stop_interrupted()
    tell(summary, out)
    return summary


def _show(done: Reproduced) -> None:
    """A block for each claim, which reads well at any width."""
    from lowrank_bench.reporting.claims.verdicts import HEADINGS

    console = Console()
    console.print(Text(done.paper.title, style="bold"))
    for outcome in done.outcomes:
        cells = dict(zip(HEADINGS, outcome.cells, strict=True))
        cells |= {"Timed on": outcome.machine} if outcome.machine else {}
        style = {"confirmed": "green", "not confirmed": "red"}.get(outcome.verdict, "yellow")
        console.print(Text(cells.pop("Verdict"), style=style), Text(cells.pop("Claim"), style="bold"), sep=": ")
        for heading, cell in cells.items():
            console.print(Text(f"    {heading}: {cell}"), soft_wrap=True)
