"""Train a task's own networks from scratch: what ``lowrank-bench train MODEL`` runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from lowrank_bench.errors import InvalidInput, InvalidWeights, UnknownName
from lowrank_bench.seeds import check_seed
from lowrank_bench.tasks.catalog import TASKS, get_task
from lowrank_bench.tasks.checkpoint import checkpoint_facts, round_to_half, save_checkpoint
from lowrank_bench.tasks.task import Split
from lowrank_bench.training.evaluate import top1
from lowrank_bench.training.loop import Progress, train
from lowrank_bench.training.prefetch import prefetched

SPLITS: tuple[Split, ...] = ("validation", "test")


@dataclass(frozen=True)
class Trained:
    """A trained network's file, its top-1 in percent on each split, and the least that was to be expected on the test
    images. ``seconds``: of training; None where the file was there already.
    """

    path: Path
    top1: dict[str, float]
    expected: float
    seconds: float | None

    @property
    def as_expected(self) -> bool:
        """Whether the test images say so."""
        return self.top1["test"] >= self.expected


def task_of_baseline(model: str) -> str:
    """The task that trains the network of that name. Raises UnknownName with the nearest."""
    for name, task in TASKS.items():
        if model in task.baselines:
            return name
    raise UnknownName(
        "network that a task trains (see `lowrank-bench list models`)",
        model,
        [model for task in TASKS.values() for model in task.baselines],
    )


def train_model(
    task_name: str, model_name: str, out: Path | None = None, *, seed: int = 0, progress: Progress | None = None
) -> Trained:
    """Train a network by its task's recipe; write it in float16, with the recipe and its accuracy in the metadata.

    Without ``out`` it goes to the cache, under a name that holds the hash of all that decides it, and is not trained
    again where it is there; tasks load it from there (that of seed 0). A training that was cut short goes on from its
    last whole epoch. ``progress`` is told (steps done, steps in all, loss). Raises UnknownName for what does not exist,
    InvalidInput where ``out`` is there already or for a seed below 0, DataMissing, and InvalidWeights for a file in the
    cache that is damaged and for weights that float16 cannot hold.
    """
    check_seed(seed, "--seed")
    task = get_task(task_name)
    if model_name not in task.baselines:
        raise UnknownName(f"network that task {task_name!r} trains", model_name, task.baselines)
    baseline = task.baselines[model_name]
    recipe, expected = baseline.recipe, baseline.expected
    kept = baseline.path(task.name, task.version, model_name, seed)
    path = out or kept
    if path.exists():
        if out is not None:
            raise InvalidInput(f"{path} exists: name another --out, or remove it")
        return Trained(path, _told_top1(path), expected, None)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = task.build(model_name).to(memory_format=torch.channels_last)  # a tenth to a fifth faster
    resume = path.with_name(f"{kept.name}.resume")  # its hash tells of another training, wherever that goes
    history = train(
        model,
        lambda index: prefetched(task.batches("train", recipe.batch_size, seed=seed, epoch=index)),
        recipe,
        seed=seed,
        validate=lambda trained: top1(trained, task.batches("validation")),
        progress=progress,
        resume=resume,
    )
    round_to_half(model)  # what is written is what is measured
    found: dict[str, float] = {split: round(top1(model, task.batches(split)), 2) for split in SPLITS}
    save_checkpoint(
        model,
        path,
        task=task.name,
        task_version=task.version,
        model=model_name,
        recipe=recipe.model_dump(),
        seed=seed,
        top1=found,
        epochs=[[round(epoch.loss, 4), epoch.top1, round(epoch.seconds, 1)] for epoch in history.epochs],
    )
    resume.unlink(missing_ok=True)
    return Trained(path, found, expected, history.seconds)


def _told_top1(path: Path) -> dict[str, float]:
    told = checkpoint_facts(path).get("top1")
    if not isinstance(told, dict) or not all(isinstance(told.get(split), int | float) for split in SPLITS):
        raise InvalidWeights(f"{path} does not tell its top-1: remove it, then train again")
    return told
