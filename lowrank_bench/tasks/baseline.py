"""A network that a task trains itself, and the file in which its weights are kept."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import platformdirs
from torch import nn

from lowrank_bench.recipe import Recipe

CACHE_VARIABLE = "LOWRANK_BENCH_CACHE"


@dataclass(frozen=True)
class Baseline:
    """How a network is built and trained, and the top-1 on the test images, in percent, that this gives at least."""

    build: Callable[[], nn.Module]
    recipe: Recipe
    expected: float

    def hash(self, task: str, version: int, model: str, seed: int = 0) -> str:
        """Sixteen hexadecimal digits over all that decides the weights."""
        said = json.dumps([task, version, model, self.recipe.key, seed])
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    def path(self, task: str, version: int, model: str, seed: int = 0) -> Path:
        """Where its weights are kept; another recipe or version of the task has another file."""
        return cache_folder() / "baselines" / f"{task}-{model}-{self.hash(task, version, model, seed)}.safetensors"


def cache_folder() -> Path:
    """The folder named by LOWRANK_BENCH_CACHE, else the user's cache folder of this system."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else platformdirs.user_cache_path("lowrank-bench")
