"""Methods that end in every way but well, for the tests of isolation: a folder for ``--methods-dir``."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import nn

from lowrank_bench.compression.method import Method
from lowrank_bench.compression.registry import method_class
from lowrank_bench.errors import ExportFailed


def dense(model, job):
    return method_class("identity")().compress(model, job)


class Raises(Method):
    """Raises."""

    name, version = "raises", 1

    def compress(self, model, job):
        raise RuntimeError("no luck")


class Exits(Method):
    """Leaves without a word."""

    name, version = "exits", 1

    def compress(self, model, job):
        os._exit(7)


class Hangs(Method):
    """Starts a process of its own, tells both numbers where LOWRANK_BENCH_TEST_MARK says, and hangs."""

    name, version = "hangs", 1

    def compress(self, model, job):
        helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        mark = Path(os.environ["LOWRANK_BENCH_TEST_MARK"])
        draft = mark.with_name(f"{mark.name}.{os.getpid()}")
        draft.write_text(f"{os.getpid()} {helper.pid}")
        draft.replace(mark)
        time.sleep(600)


class EatsTensors(Method):
    """Asks torch for more memory than there is."""

    name, version = "eats_tensors", 1

    def compress(self, model, job):
        return torch.ones(1 << 40)


class EatsObjects(Method):
    """Asks Python for more memory than it may have."""

    name, version = "eats_objects", 1

    def compress(self, model, job):
        return [bytearray(100_000_000) for _ in range(1000)]


class NotANumber(Method):
    """Returns weights that are not numbers."""

    name, version = "returns_nan", 1

    def compress(self, model, job):
        made = dense(model, job)
        with torch.no_grad():
            next(made.model.parameters()).view(-1)[0] = float("nan")
        return made


class WrongShape(Method):
    """Returns a model with one class too few."""

    name, version = "returns_a_wrong_shape", 1

    def compress(self, model, job):
        made = dense(model, job)
        last = [module for module in made.model.modules() if isinstance(module, nn.Conv2d | nn.Linear)][-1]
        last.weight = nn.Parameter(last.weight[:-1])
        last.bias = None
        return made


class CannotExport(Method):
    """Meets a runtime that cannot take its model."""

    name, version = "cannot_export", 1

    def compress(self, model, job):
        raise ExportFailed("runtime 'compile' cannot take this model")
