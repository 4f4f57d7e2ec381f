"""The commands that look at one thing closely: ``lowrank-bench doctor`` and ``profile``.

As in every ``cli_*.py``, rooms are imported by the command that needs them: torch and pandas take seconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from lowrank_bench.terminal import TerminalTable

if TYPE_CHECKING:
    from lowrank_bench.measurement.diagnosis import Diagnosis

DEFAULT_OUT = Path("results/local")


def doctor(
    seconds: Annotated[float, typer.Option(help="How long a network is timed against its own copy.")] = 10.0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Tell what would make timings on this machine untrustworthy, and what to do about it. Takes about a minute."""
    from lowrank_bench.running.inspect import inspect_machine
    from lowrank_bench.running.locks import say_waiting

    diagnosis = inspect_machine(seconds, say_waiting)
    console = Console()
    if json:
        typer.echo(diagnosis.model_dump_json(indent=1))
        return
    console.print(_checks_table(diagnosis))
    console.print(_facts_table(diagnosis))
    console.print(Text(diagnosis.conclusion))


def profile(
    trial: Annotated[str, typer.Argument(help="A recorded trial: the first digits of its key, or '*tucker macs/4*'.")],
    out: Annotated[Path, typer.Option(help="Results folder.")] = DEFAULT_OUT,
    runtime: Annotated[str, typer.Option(help="See `lowrank-bench list runtimes`.")] = "eager-nhwc",
    threads: Annotated[int, typer.Option(help="Threads, each on its own core.")] = 1,
    batch: Annotated[int, typer.Option(help="Images in each call.")] = 1,
    seconds: Annotated[float, typer.Option(help="How long each layer is timed at most.")] = 2.0,
    model: Annotated[
        str | None, typer.Option(help="The trial's PACKAGE.MODULE:FACTORY once more, where that is your code to run.")
    ] = None,
) -> None:
    """Show where the time goes, layer by layer: dense against compressed, each beside what the machine can do."""
    from lowrank_bench.reporting.profile_report import profile_facts, profile_table, write_profile
    from lowrank_bench.running.inspect import find_trial, inspect_trial
    from lowrank_bench.running.locks import say_waiting

    chosen = find_trial(out, trial)
    found = inspect_trial(out, chosen, runtime, threads, batch, seconds, model, say_waiting)
    console = Console()
    console.print(Text(str(chosen), style="bold"))
    console.print(profile_table(found))
    console.print(Text(profile_facts(found)))
    paths = write_profile(found, chosen, out)  # what was measured is shown, wherever it can be written
    console.print(Text("written: " + ", ".join(str(path) for path in paths)), soft_wrap=True)


def _checks_table(diagnosis: Diagnosis) -> TerminalTable:
    table = TerminalTable("", "timings depend on", "here", "what to do")
    for check in diagnosis.checks:
        mark = Text("ok", style="green") if check.ok else Text("mend", style="bold red")
        table.add_row(mark, Text(check.name), Text(check.value), Text("" if check.ok else check.remedy))
    return table


def _facts_table(diagnosis: Diagnosis) -> TerminalTable:
    from lowrank_bench.measurement.rank_steps import best_step

    machine = diagnosis.environment
    table = TerminalTable("machine", machine.machine)
    table.add_row("processor", Text(machine.cpu))
    table.add_row("memory", f"{machine.memory_gb:g} GB")
    table.add_row("threads of torch", f"{machine.torch_threads}")
    variables = ", ".join(f"{name}={value}" for name, value in machine.variables.items())
    table.add_row("variables", Text(variables or "none about threads"))
    for threads, peak in diagnosis.probe.peaks.items():
        table.add_row(
            f"peak, {threads} thread{'s' * (threads > 1)}", f"{peak.gflops:.0f} GFLOP/s, {peak.gbytes:.1f} GB/s"
        )
    for runtime, steps in diagnosis.probe.steps.items():
        gains = ", ".join(f"{step}: {gain:.2f}x" for step, gain in steps.items() if step > 1)
        table.add_row(f"ranks in multiples of, {runtime}", f"{gains}; try options = {{ align = {best_step(steps)} }}")
    return table
