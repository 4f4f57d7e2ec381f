"""Which training images are kept for validation: the same ones for everyone, on every machine."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from lowrank_bench.tasks.variation import shuffled

SPLIT_SEED = 0
VALIDATION = 5000


def held_out(count: int) -> tuple[Tensor, Tensor]:
    """Rows of validation and of training, each in ascending order: of ``count`` images 5,000 are held out, of a small
    set a tenth, and at least one.
    """
    order = shuffled(np.random.PCG64(SPLIT_SEED), count)
    held = max(1, min(VALIDATION, count // 10))
    return order[:held].sort().values, order[held:].sort().values
