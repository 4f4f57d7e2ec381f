"""Train a task's own networks from scratch: what ``lowrank-bench train MODEL`` runs."""

from __future__ import annotations

from pathlib import Path

import torch

from lowrank_bench.tasks.catalog import get_task
from lowrank_bench.tasks.checkpoint import save_checkpoint
from lowrank_bench.tasks.task import Split
from lowrank_bench.training.evaluate import top1
from lowrank_bench.training.loop import History, Progress, train
from lowrank_bench.training.recipes import get_recipe

SPLITS: tuple[Split, ...] = ("validation", "test")


def train_model(
    task_name: str, model_name: str, out_path: Path, *, seed: int = 0, progress: Progress | None = None
) -> History:
    """Train a network by the recipe of its name; write it in float16, with the recipe and its accuracy in the metadata.

    ``progress`` is told (steps done, steps in all, loss). Raises UnknownName for what does not exist.
    """
    task = get_task(task_name)
    recipe = get_recipe(model_name)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = task.build(model_name)
    history = train(
        model,
        lambda index: task.batches("train", recipe.batch_size, seed=seed, epoch=index),
        recipe,
        seed=seed,
        validate=lambda trained: top1(trained, task.batches("validation")),
        progress=progress,
    )
    save_checkpoint(
        model,
        out_path,
        task=task_name,
        task_version=task.version,
        model=model_name,
        recipe=recipe.model_dump(),
        seed=seed,
        top1={split: round(top1(model, task.batches(split)), 2) for split in SPLITS},
    )
    return history
