"""The command line: ``lowrank-bench run``, ``list``, ``report``, ``compare``, ``merge``, ``train``, ``doctor``, ..."""

from __future__ import annotations

import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from lowrank_bench.cli_inspect import doctor, profile
from lowrank_bench.cli_list import escape, list_
from lowrank_bench.cli_records import compare, merge, report
from lowrank_bench.cli_reproduce import reproduce
from lowrank_bench.cli_run import FAILED, console, run
from lowrank_bench.cli_train import train
from lowrank_bench.errors import LowRankBenchError, MeasurementFailed

BAD_INPUT = 2

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
out_console = Console()

app.command()(run)
app.command("list")(list_)
app.command()(doctor)
app.command()(profile)
app.command()(report)
app.command()(compare)
app.command()(merge)
app.command()(reproduce)
app.command()(train)


def _show_version(asked: bool) -> None:
    if asked:
        out_console.print(f"lowrank-bench {version('lowrank-bench')}, torch {version('torch')}")
        raise typer.Exit


@app.callback()
def every_command(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the versions and exit.")
    ] = False,
) -> None:
    """What stands before the command."""


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Of the method, such as my_method.")],
    folder: Annotated[Path, typer.Option("--dir", help="Where to write.")] = Path(),
) -> None:
    """Write a working method to start from, NAME.py, and test_NAME.py, which holds it to what every method promises."""
    from lowrank_bench.scaffold import new_method

    method, test = new_method(name, folder)
    out_console.print(Text(f"written: {method}, {test}; now: pytest {test}"), soft_wrap=True)


def main() -> None:
    """Entry point: named errors are a few clear lines and exit status 2, never a traceback."""
    warnings.showwarning = _show_warning  # type: ignore[assignment]  # of its arguments only the first is of interest
    try:
        app()
    except MeasurementFailed as error:
        console.print(f"[bold red]failed:[/] {escape(error)}", soft_wrap=True)
        sys.exit(FAILED)
    except LowRankBenchError as error:
        _stop(str(error))
    except PermissionError as error:  # of a folder above the one that was named, which pathlib cannot look into
        _stop(f"{error.filename} cannot be reached ({error.strerror}): name another place, or ask its owner")


def _stop(error: str) -> NoReturn:
    console.print(f"[bold red]error:[/] {escape(error)}", soft_wrap=True)
    sys.exit(BAD_INPUT)


def _show_warning(message: Warning | str, *_: Any) -> None:
    console.print(f"[yellow]warning:[/] {escape(message)}", soft_wrap=True)
