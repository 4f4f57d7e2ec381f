"""Whether what a user brought is still what a trial was planned with."""

from __future__ import annotations

from lowrank_bench.errors import InvalidInput
from lowrank_bench.tasks.task import Task
from lowrank_bench.trial import BROUGHT, Trial


def check_unchanged(trial: Trial, task: Task, *, timing: bool = False) -> None:
    """Raise InvalidInput where the weights, the code or the images are others than when the trial's key was made: its
    record would tell of them under the name of the former ones. ``timing``: only what a timing depends on is asked.
    """
    planned = trial.versions.get(BROUGHT)
    if planned is None or (timing and not task.timing_reads_brought):
        return
    if task.brought(trial.model) != planned:
        raise InvalidInput(
            f"model {trial.model!r} of task {trial.task!r}: its weights, its code or the images changed since this run "
            "was planned: run the command again"
        )
