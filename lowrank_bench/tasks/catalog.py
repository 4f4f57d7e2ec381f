"""The tasks by name."""

from __future__ import annotations

from lowrank_bench.errors import UnknownName
from lowrank_bench.tasks.chars36 import Chars36
from lowrank_bench.tasks.cifar import Cifar10, Cifar100
from lowrank_bench.tasks.fashion_mnist import FashionMnist
from lowrank_bench.tasks.image_folder import ImageFolder
from lowrank_bench.tasks.speed import Speed
from lowrank_bench.tasks.task import Task

TASKS: dict[str, type[Task]] = {
    task.name: task for task in (Chars36, FashionMnist, Cifar10, Cifar100, ImageFolder, Speed)
}


def get_task(name: str, model: str | None = None) -> Task:
    """Make the task of that name, ``NAME`` or ``NAME:ARGUMENT``, as ``model`` wants it. Raises UnknownName with the
    nearest, and InvalidInput for an argument that the task does not take.
    """
    kind, argument = _parts(name)
    task = kind(argument)
    return task if model is None else task.for_model(model)


def spelled_task(name: str) -> str:
    """The task's name with its argument as every spelling of what that stands for comes out. Raises UnknownName."""
    kind, argument = _parts(name)
    return f"{kind.name}:{kind.spelled(argument)}" if argument else name


def _parts(name: str) -> tuple[type[Task], str]:
    kind, _, argument = name.partition(":")
    if kind not in TASKS:
        raise UnknownName("task", name, TASKS)
    return TASKS[kind], argument
