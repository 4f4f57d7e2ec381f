"""The command ``lowrank-bench run``, and showing how a long work goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lowrank_bench.cli_inspect import DEFAULT_OUT
from lowrank_bench.cli_list import MethodsDir, add_folders, escape
from lowrank_bench.errors import InvalidInput
from lowrank_bench.shipped import sweep_names

if TYPE_CHECKING:
    from lowrank_bench.record import Status
    from lowrank_bench.running.crew import Crew
    from lowrank_bench.running.engine import Event, Summary
    from lowrank_bench.trial import Measurement, Trial

FAILED, INTERRUPTED = 1, 130
DEFAULT_TIMEOUT = 3600.0
ANY_CORES = 10**6
"""As hosts may have more than whoever asks for them."""

console = Console(stderr=True)

Out = Annotated[Path, typer.Option(help="Results folder.")]
Jobs = Annotated[int, typer.Option("-j", "--jobs", help="Trials prepared side by side; timing is alone.")]
Timeout = Annotated[float, typer.Option(help="Seconds for each trial or timing.")]
Retry = Annotated[str | None, typer.Option(help="'failed': try again what did not end well.")]
Only = Annotated[
    list[str] | None,
    typer.Option(help="Only trials that match, such as '*tucker*', and their control; may be given more than once."),
]
SweepArgument = Annotated[str, typer.Argument(help=f"A TOML file, or a shipped sweep: {', '.join(sweep_names())}.")]


def run(
    sweep: SweepArgument = "quick",
    out: Out = DEFAULT_OUT,
    jobs: Jobs = 1,
    cluster: Annotated[
        str | None, typer.Option(help="Run on many hosts: a dask scheduler's address, 'local', or a slurm.toml.")
    ] = None,
    only: Only = None,
    timeout: Timeout = DEFAULT_TIMEOUT,
    memory: Annotated[float | None, typer.Option(help="GB for each trial or timing (Linux).")] = None,
    retry: Retry = None,
    methods_dir: MethodsDir = None,
    weights: Annotated[Path | None, typer.Option(help="Weights of the sweep's only model, in safetensors.")] = None,
) -> None:
    """Run a sweep: only what is missing in the results folder is done."""
    from lowrank_bench.measurement.environment import fingerprint
    from lowrank_bench.running.engine import Engine
    from lowrank_bench.running.memory import check_memory
    from lowrank_bench.running.ready import lacking

    again = tried_again(jobs, timeout, retry)
    if memory is not None:
        check_memory(memory)
    add_folders(methods_dir)
    if cluster is not None:  # what is wrong with the sweep asks no queue for hosts
        _planned(sweep, {fingerprint().machine: ANY_CORES}, only, weights)
    try:
        with _crew(cluster, jobs) as (crew, machines):
            trials, measurements = _planned(sweep, machines, only, weights)
            if not measurements:
                console.print(escape("nothing is timed here: in which settings to time, a sweep says in [measure]"))
            with progress_bar() as progress:
                engine = Engine(
                    out,
                    fingerprint(),
                    timeout=timeout,
                    memory=memory,
                    retry=again,
                    methods_folders=methods_dir or [],
                    crew=crew,
                    lacking=lacking,
                    report=shower(progress),
                )
                summary = engine.run(trials, measurements)
    except KeyboardInterrupt:
        stop_interrupted()
    tell(summary, out)
    if not summary.well:
        raise typer.Exit(FAILED)


def tried_again(jobs: int, timeout: float, retry: str | None) -> list[Status]:
    """What is tried again, once all that says how to work has been looked at. Raises InvalidInput."""
    from lowrank_bench.record import Status

    if not 0 < timeout < float("inf"):
        raise InvalidInput(f"--timeout {timeout}: a positive number of seconds is wanted")
    if jobs < 1:
        raise InvalidInput(f"-j {jobs}: a positive number of trials at a time is wanted")
    if retry not in (None, "failed"):
        raise InvalidInput(f"--retry {retry!r}: only 'failed' is known")
    return [status for status in Status if retry and not status.well]


def stop_interrupted() -> NoReturn:
    """End the command after Ctrl-C."""
    console.print("interrupted: what was recorded is kept; the same command goes on from here")
    raise typer.Exit(INTERRUPTED) from None


def progress_bar() -> Progress:
    """Redrawn on events only: a bar that animates would disturb the timing."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, auto_refresh=False)


@contextmanager
def _crew(cluster: str | None, jobs: int) -> Iterator[tuple[Crew, dict[str, int | None]]]:
    """Who does the work, and on which machines, with how many cores."""
    if cluster is None:
        from lowrank_bench.measurement.environment import fingerprint
        from lowrank_bench.running.crew import LocalCrew

        yield LocalCrew(jobs), {fingerprint().machine: None}
        return
    try:
        from lowrank_bench.running.cluster import connect  # an extra, and a second to import
    except ModuleNotFoundError as error:
        raise InvalidInput(f"--cluster needs {error.name}: pip install 'lowrank-bench[cluster]'") from None
    with connect(cluster, jobs) as crew:
        yield crew, {**crew.machines()}


def _planned(
    sweep: str, machines: dict[str, int | None], only: list[str] | None, weights: Path | None
) -> tuple[list[Trial], list[Measurement]]:
    from lowrank_bench.running.engine import select
    from lowrank_bench.running.sweep import plan

    trials: list[Trial] = []
    measurements: list[Measurement] = []
    for machine, cores in machines.items():
        trials, more = plan(sweep, machine, cores, weights)
        measurements += more
    return select(trials, measurements, only) if only else (trials, measurements)


def shower(progress: Progress) -> Callable[[Event], None]:
    """A bar on a terminal; a line for each item elsewhere, such as in a log."""
    overall = progress.add_task("starting", total=None)
    titles: set[str] = set()

    def show(event: Event) -> None:
        if not console.is_terminal and event.title not in titles:
            titles.add(event.title)
            console.print(f"{event.done}/{event.total} {escape(event.title)}", soft_wrap=True)
        stage = f": {event.stage}" + (f" {event.share:.0%}" if event.share else "") if event.stage else ""
        progress.update(
            overall, total=event.total, completed=event.done, description=escape(event.title + stage), refresh=True
        )

    return show


def tell(summary: Summary, out: Path) -> None:
    """Say on standard error how a run ended."""
    console.print(f"{summary.ran} done now, {summary.kept} were there already; records in {escape(out)}")
    before = "failed before, and tried again with --retry failed:"
    for title, lines in (("skipped", summary.skipped), ("failed", summary.failed), (before, summary.failed_before)):
        for line in lines:
            console.print(f"[yellow]{title}[/] {escape(line)}", soft_wrap=True)
