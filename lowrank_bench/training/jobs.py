"""A training within a method: on the data of its job, watched and kept by the job's hooks."""

from __future__ import annotations

from torch import nn

from lowrank_bench.compression.history import History
from lowrank_bench.compression.job import Batches, Job
from lowrank_bench.recipe import Recipe
from lowrank_bench.training.batches import rebatched
from lowrank_bench.training.loop import Regularizer, train


def train_for(
    job: Job,
    network: nn.Module,
    recipe: Recipe,
    *,
    seed: int,
    regularizer: Regularizer | None = None,
    teacher: nn.Module | None = None,
) -> History:
    """Train a network in place as ``train`` does, in batches of the recipe's size. Every epoch is run and the last one
    counts, whatever the recipe's patience: with and without validation the same seed gives the same network. To be
    called once in a ``compress``: what a job keeps is the state of one training.
    """
    data: Batches = job.data or (lambda _epoch: ())
    return train(
        network,
        lambda epoch: rebatched(data(epoch), recipe.batch_size),
        recipe.model_copy(update={"patience": 0}),
        seed=seed,
        validate=job.hooks.validate,
        progress=job.hooks.progress,
        regularizer=regularizer,
        teacher=teacher,
        resume=job.hooks.resume,
    )
