"""``lowrank-bench train``: a task's own network by its recipe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from lowrank_bench.cli_list import escape
from lowrank_bench.cli_run import INTERRUPTED, console, progress_bar
from lowrank_bench.errors import MeasurementFailed

_LINES = 20


def train(
    model: Annotated[str, typer.Argument(help="A network that a task trains, such as resnet18.")],
    out: Annotated[Path | None, typer.Option(help="The file to write; without it, one in the cache.")] = None,
    seed: int = 0,
) -> None:
    """Train a task's own network by its recipe, once; of seed 0, tasks load it from the cache. Goes on where it was cut
    short. What comes with the package, such as charnet, is there already.
    """
    from lowrank_bench.allocator import keep_freed_memory
    from lowrank_bench.running.locks import preparation_lock, say_waiting
    from lowrank_bench.training.baselines import task_of_baseline, train_model

    task = task_of_baseline(model)
    keep_freed_memory()
    try:
        with preparation_lock(waiting=say_waiting), progress_bar() as progress:
            trained = train_model(task, model, out, seed=seed, progress=_shower(progress, model))
    except KeyboardInterrupt:
        console.print("interrupted: the same command goes on after the last whole epoch")
        raise typer.Exit(INTERRUPTED) from None
    how = "there already" if trained.seconds is None else f"trained in {trained.seconds:.0f} s"
    found = ", ".join(f"{split} {top1:.2f} %" for split, top1 in trained.top1.items())
    Console().print(Text(f"{model} on {task}, {how}: top-1 on {found}; in {trained.path}"), soft_wrap=True)
    if not trained.as_expected:
        raise MeasurementFailed(f"at least {trained.expected:g} % of the test images were to be expected")


def _shower(progress: Progress, model: str) -> Callable[[int, int, float], None]:
    """A bar on a terminal; elsewhere, such as in a log, a line for each twentieth of the steps."""
    title = f"training {model}"
    bar = progress.add_task(title, total=None)
    told = 0

    def show(step: int, steps: int, loss: float) -> None:
        nonlocal told
        if not console.is_terminal and step * _LINES // steps > told:
            told = step * _LINES // steps
            console.print(f"{escape(title)}: {step}/{steps} steps, loss {loss:.3f}", soft_wrap=True)
        progress.update(bar, completed=step, total=steps, description=f"{title}, loss {loss:.3f}", refresh=True)

    return show
