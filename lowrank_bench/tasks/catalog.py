"""The tasks by name."""

from __future__ import annotations

from lowrank_bench.errors import UnknownName
from lowrank_bench.tasks.chars36 import Chars36
from lowrank_bench.tasks.speed import Speed
from lowrank_bench.tasks.task import Task

TASKS: dict[str, type[Task]] = {task.name: task for task in (Chars36, Speed)}


def get_task(name: str) -> Task:
    """Make the task of that name. Raises UnknownName with the nearest."""
    if name not in TASKS:
        raise UnknownName("task", name, TASKS)
    return TASKS[name]()
