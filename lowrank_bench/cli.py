"""The command line: ``lowrank-bench run``, ``list``, ``report``, ``compare``, ``merge``, ``train``, ``doctor``, ..."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lowrank_bench.cli_inspect import DEFAULT_OUT, doctor, profile
from lowrank_bench.cli_list import MethodsDir, add_folders, escape, list_
from lowrank_bench.cli_records import compare, merge, report
from lowrank_bench.errors import InvalidInput, LowRankBenchError, MeasurementFailed
from lowrank_bench.measurement.environment import fingerprint
from lowrank_bench.record import Status
from lowrank_bench.running.engine import Engine, Event, Summary, select
from lowrank_bench.running.sweep import plan, shipped_sweeps
from lowrank_bench.scaffold import new_method
from lowrank_bench.tasks.catalog import TASKS
from lowrank_bench.training.baselines import train_model

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
RETRIED = tuple(status for status in Status if status not in (Status.OK, Status.SKIPPED))

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
out_console, console = Console(), Console(stderr=True)

Out = Annotated[Path, typer.Option(help="Results folder.")]
SweepArgument = Annotated[str, typer.Argument(help=f"A TOML file, or a shipped sweep: {', '.join(shipped_sweeps())}.")]

app.command("list")(list_)
app.command()(doctor)
app.command()(profile)
app.command()(report)
app.command()(compare)
app.command()(merge)


@app.command()
def run(
    sweep: SweepArgument = "quick",
    out: Out = DEFAULT_OUT,
    only: Annotated[str | None, typer.Option(help="Only trials that match this pattern, such as '*tucker*'.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for each trial or timing.")] = 3600.0,
    retry: Annotated[str | None, typer.Option(help="'failed': try again what did not end well.")] = None,
    methods_dir: MethodsDir = None,
) -> None:
    """Run a sweep: only what is missing in the results folder is done."""
    if not 0 < timeout < float("inf"):
        raise InvalidInput(f"--timeout {timeout}: a positive number of seconds is wanted")
    if retry not in (None, "failed"):
        raise InvalidInput(f"--retry {retry!r}: only 'failed' is known")
    add_folders(methods_dir)
    environment = fingerprint()
    trials, measurements = plan(sweep, environment.machine)
    if only is not None:
        trials, measurements = select(trials, measurements, only)
    with _progress() as progress:
        engine = Engine(
            out,
            environment,
            timeout=timeout,
            retry=RETRIED if retry else (),
            methods_folders=methods_dir or [],
            report=_shower(progress),
        )
        summary = engine.run(trials, measurements)
    _tell(summary, out)
    if summary.failed:
        raise typer.Exit(FAILED)


@app.command()
def train(
    model: Annotated[str, typer.Argument(help="A network of a task, such as charnet.")],
    out: Annotated[Path | None, typer.Option(help="The file to write.")] = None,
    seed: int = 0,
) -> None:
    """Train a task's own network from scratch by its recipe; prints its accuracy."""
    tasks = [name for name, task in TASKS.items() if model in task.models]
    if not tasks:
        raise InvalidInput(f"no task has a model {model!r}: see `lowrank-bench list models`")
    path = out or Path(f"{model}.safetensors")
    if path.exists():
        raise InvalidInput(f"{path} exists: name another --out, or remove it")
    with _progress() as progress:
        bar = progress.add_task(f"training {model}", total=None)
        history = train_model(
            tasks[0],
            model,
            path,
            seed=seed,
            progress=lambda step, steps, loss: progress.update(
                bar, completed=step, total=steps, description=f"training {model}, loss {loss:.3f}", refresh=True
            ),
        )
    out_console.print(f"validation top-1 {history.epochs[-1].top1:.2f} %, {history.seconds:.0f} s; written: {path}")


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Of the method, such as my_method.")],
    folder: Annotated[Path, typer.Option("--dir", help="Where to write.")] = Path(),
) -> None:
    """Write a working method to start from, NAME.py, and test_NAME.py, which holds it to what every method promises."""
    method, test = new_method(name, folder)
    out_console.print(f"written: {method}, {test}; now: pytest {test}", soft_wrap=True)


def main() -> None:
    """Entry point: named errors are a few clear lines and exit status 2, never a traceback."""
    warnings.showwarning = _show_warning  # type: ignore[assignment]  # of its arguments only the first is of interest
    try:
        app()
    except MeasurementFailed as error:
        console.print(f"[bold red]failed:[/] {escape(error)}", soft_wrap=True)
        sys.exit(FAILED)
    except LowRankBenchError as error:
        console.print(f"[bold red]error:[/] {escape(error)}", soft_wrap=True)
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        console.print("interrupted: what was recorded is kept; the same command goes on from here")
        sys.exit(INTERRUPTED)


def _progress() -> Progress:
    """Redrawn on events only: a bar that animates would disturb the timing."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, auto_refresh=False)


def _shower(progress: Progress) -> Callable[[Event], None]:
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


def _tell(summary: Summary, out: Path) -> None:
    console.print(f"{summary.ran} done now, {summary.kept} were there already; records in {out}")
    for title, lines in (("skipped", summary.skipped), ("failed", summary.failed)):
        for line in lines:
            console.print(f"[yellow]{title}[/] {escape(line)}", soft_wrap=True)


def _show_warning(message: Warning | str, *_: Any) -> None:
    console.print(f"[yellow]warning:[/] {escape(message)}", soft_wrap=True)
