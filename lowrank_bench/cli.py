"""The command line: ``lowrank-bench run``, ``list``, ``report``, ``train``, ``doctor``, ``profile``, ``new``."""

from __future__ import annotations

import sys
import warnings
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from lowrank_bench.cli_inspect import DEFAULT_OUT, doctor, plain_table, profile
from lowrank_bench.cli_run import FAILED, MethodsDir, Out, add_folders, console, escape, progress_bar, run
from lowrank_bench.compression import registry
from lowrank_bench.errors import InvalidInput, LowRankBenchError, MeasurementFailed
from lowrank_bench.measurement.environment import fingerprint
from lowrank_bench.measurement.runtimes import available_runtimes
from lowrank_bench.reporting.board import make_boards
from lowrank_bench.reporting.leaderboard import to_terminal
from lowrank_bench.reporting.records_frame import load_records
from lowrank_bench.reporting.report import update_readme, write_report
from lowrank_bench.running.sweep import plan
from lowrank_bench.scaffold import new_method
from lowrank_bench.store import latest, read_records
from lowrank_bench.tasks.catalog import TASKS
from lowrank_bench.training.baselines import train_model

BAD_INPUT = 2

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
out_console = Console()

app.command()(run)
app.command()(doctor)
app.command()(profile)


class Listed(StrEnum):
    """What ``list`` can list."""

    METHODS = "methods"
    MODELS = "models"
    TASKS = "tasks"
    RUNTIMES = "runtimes"
    TRIALS = "trials"


@app.command("list")
def list_(
    what: Annotated[Listed, typer.Argument(help="What to list.")],
    sweep: Annotated[str, typer.Option(help="Whose trials.")] = "quick",
    out: Out = DEFAULT_OUT,
    methods_dir: MethodsDir = None,
) -> None:
    """List methods with their options, models, tasks, runtimes, or a sweep's trials and how they stand."""
    add_folders(methods_dir)
    tables = {
        Listed.METHODS: _methods_table,
        Listed.MODELS: _models_table,
        Listed.TASKS: _tasks_table,
        Listed.RUNTIMES: _runtimes_table,
    }
    out_console.print(_trials_table(sweep, out) if what is Listed.TRIALS else tables[what]())


@app.command()
def report(
    out: Out = DEFAULT_OUT,
    readme: Annotated[Path | None, typer.Option(help="Also renew the board between this file's board markers.")] = None,
) -> None:
    """Rebuild leaderboard.md, leaderboard.csv and figures/ from the records in a results folder."""
    paths = write_report(out)
    if readme is not None:
        update_readme(readme, out)
        paths.append(readme)
    out_console.print(to_terminal(make_boards(load_records(out))))
    out_console.print("written: " + ", ".join(str(path) for path in paths), soft_wrap=True)


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
    with progress_bar() as progress:
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


def _methods_table() -> Table:
    table = plain_table("method", "version", "linear layers", "what it is", "options")
    for name, cls in registry.methods().items():
        options = ", ".join(f"{field} = {info.default!r}" for field, info in cls.Options.model_fields.items())
        linear = "yes" if getattr(cls, "linear", False) else "dense"
        table.add_row(
            name, str(cls.version), linear, escape((cls.__doc__ or "").strip().splitlines()[0]), escape(options)
        )
    for where, why in registry.broken().items():
        table.add_row(f"[red]broken[/] {escape(where)}", "", "", escape(why), "")
    return table


def _models_table() -> Table:
    table = plain_table("model", "task")
    for name, task in TASKS.items():
        for model in task.models:
            table.add_row(model, name)
    return table


def _tasks_table() -> Table:
    table = plain_table("task", "classes", "input", "what it is")
    for name, task in TASKS.items():
        table.add_row(
            name, str(task.classes), "x".join(map(str, task.input_size)), escape((task.__doc__ or "").splitlines()[0])
        )
    return table


def _runtimes_table() -> Table:
    table = plain_table("runtime", "state")
    for name, problem in available_runtimes().items():
        table.add_row(name, "ready" if problem is None else escape(problem))
    return table


def _trials_table(sweep: str, out: Path) -> Table:
    trials, measurements = plan(sweep, fingerprint().machine)
    known = latest(read_records(out, allow_empty=True)) if out.exists() else {}
    table = plain_table("key", "trial", "status", "timed")
    for trial in trials:
        keys = [m.key for m in measurements if m.trial == trial.key]
        status = str(known[trial.key].status) if trial.key in known else "missing"
        table.add_row(trial.key, escape(str(trial)), status, f"{sum(key in known for key in keys)}/{len(keys)}")
    return table


def _show_warning(message: Warning | str, *_: Any) -> None:
    console.print(f"[yellow]warning:[/] {escape(message)}", soft_wrap=True)
