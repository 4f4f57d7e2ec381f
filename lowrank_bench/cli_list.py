"""The command ``lowrank-bench list``: methods with their options, models, tasks, runtimes, trials."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args, get_origin

import typer
from rich import markup
from rich.console import Console

from lowrank_bench.cli_inspect import DEFAULT_OUT
from lowrank_bench.terminal import TerminalTable

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

MethodsDir = Annotated[list[Path] | None, typer.Option(help="Also offer the methods in this folder's *.py files.")]

out_console = Console()


class Listed(StrEnum):
    """What ``list`` can list."""

    METHODS = "methods"
    MODELS = "models"
    TASKS = "tasks"
    RUNTIMES = "runtimes"
    TRIALS = "trials"


def list_(
    what: Annotated[Listed, typer.Argument(help="What to list.")],
    sweep: Annotated[str, typer.Option(help="Whose trials.")] = "quick",
    out: Annotated[Path, typer.Option(help="Results folder.")] = DEFAULT_OUT,
    methods_dir: MethodsDir = None,
    weights: Annotated[Path | None, typer.Option(help="Weights of the sweep's only model, as given to run.")] = None,
) -> None:
    """List methods with their options, models, tasks, runtimes, or a sweep's trials and how they stand."""
    add_folders(methods_dir)
    tables = {
        Listed.METHODS: _methods_table,
        Listed.MODELS: _models_table,
        Listed.TASKS: _tasks_table,
        Listed.RUNTIMES: _runtimes_table,
    }
    out_console.print(_trials_table(sweep, out, weights) if what is Listed.TRIALS else tables[what]())


def add_folders(folders: list[Path] | None) -> None:
    """Also offer the methods in these folders, as the registry does. Raises InvalidInput for what is no folder."""
    from lowrank_bench.compression import registry

    for folder in folders or []:
        registry.add_methods_folder(folder)


def escape(text: object) -> str:
    """Square brackets are markup to rich, and data to us."""
    return markup.escape(str(text))


def _methods_table() -> TerminalTable:
    from lowrank_bench.compression import registry
    from lowrank_bench.compression.method import LayerMethod
    from lowrank_bench.compression.options import LayerOptions

    table = TerminalTable("method", "version", "linear layers", "what it is", "options")
    for name, cls in registry.methods().items():
        shared = LayerOptions.model_fields if issubclass(cls, LayerMethod) else {}
        own = {field: info for field, info in cls.Options.model_fields.items() if field not in shared}
        linear = "yes" if getattr(cls, "linear", False) else "dense"
        what = " ".join((cls.__doc__ or "").strip().split("\n\n")[0].split())
        table.add_row(name, str(cls.version), linear, escape(what), escape(_options_text(own)))
    table.add_row("all of layers", "", "", "", escape(_options_text(LayerOptions.model_fields)))
    for where, why in registry.broken().items():
        table.add_row(f"[red]broken[/] {escape(where)}", "", "", escape(why), "")
    return table


def _options_text(fields: Mapping[str, FieldInfo]) -> str:
    """Each option with its default, and what else it can be where that is a choice of names."""
    texts = []
    for name, info in fields.items():
        choices = get_args(info.annotation) if get_origin(info.annotation) is Literal else ()
        others = [repr(choice) for choice in choices if choice != info.default]
        texts.append(f"{name} = {info.default!r}" + (f" (or {', '.join(others)})" if others else ""))
    return "\n".join(texts)


def _models_table() -> TerminalTable:
    from lowrank_bench.tasks.catalog import TASKS

    table = TerminalTable("model", "task")
    for name, task in TASKS.items():
        for model in task.models:
            table.add_row(model, name)
    return table


def _tasks_table() -> TerminalTable:
    from lowrank_bench.tasks.catalog import TASKS

    table = TerminalTable("task", "classes", "input", "what it is")
    for name, task in TASKS.items():
        table.add_row(
            name,
            str(task.classes or "any"),
            "x".join(map(str, task.input_size)),
            escape((task.__doc__ or "").splitlines()[0]),
        )
    return table


def _runtimes_table() -> TerminalTable:
    from lowrank_bench.measurement.runtimes import available_runtimes

    table = TerminalTable("runtime", "state")
    for name, problem in available_runtimes().items():
        table.add_row(name, "ready" if problem is None else escape(problem))
    return table


def _trials_table(sweep: str, out: Path, weights: Path | None) -> TerminalTable:
    from lowrank_bench.measurement.environment import fingerprint
    from lowrank_bench.reading import latest, read_records
    from lowrank_bench.record import Status
    from lowrank_bench.running.sweep import plan

    trials, measurements = plan(sweep, fingerprint().machine, weights=weights)
    known = latest(read_records(out, allow_empty=True)) if out.exists() else {}
    table = TerminalTable("key", "trial", "status", "timed")
    for trial in trials:
        keys = [m.key for m in measurements if m.trial == trial.key]
        timed = sum(key in known and known[key].status is Status.OK for key in keys)
        status = str(known[trial.key].status) if trial.key in known else "missing"
        table.add_row(trial.key, escape(str(trial)), status, f"{timed}/{len(keys)}")
    return table
