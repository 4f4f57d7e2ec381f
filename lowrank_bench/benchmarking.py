"""One method on one model under pytest-benchmark: what the ``lowrank`` fixture does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from lowrank_bench.api import compress
from lowrank_bench.compression.method import Method
from lowrank_bench.compression.model import Compressed
from lowrank_bench.errors import InvalidInput, UnknownName
from lowrank_bench.measurement.cores import pinned
from lowrank_bench.measurement.quality import paired_drop
from lowrank_bench.measurement.rounds import Rounds, check_rounds
from lowrank_bench.measurement.runtimes import inference_state, prepare
from lowrank_bench.measurement.speedup import check_setting, random_input
from lowrank_bench.measurement.statistics import RatioInterval, Verdict, noise_floor, verdict
from lowrank_bench.measurement.timing import no_garbage_collection
from lowrank_bench.tasks.catalog import TASKS, get_task
from lowrank_bench.tasks.task import Split, Task
from lowrank_bench.training.evaluate import predicted_and_true
from lowrank_bench.trial import Budget, Ranks, target_text

SPLIT: Split = "validation"
"""The images on which accuracy is told: tests are run to tune, and the test images decide nothing."""


@dataclass(frozen=True)
class Outcome:
    """What a benchmark found: the compressed model, and the measured speedup with its verdict (both None where
    pytest-benchmark is disabled).

    ``top1``: percent of the task's validation images that the compressed model, not tuned, gets right; None for a model
    that is not a task's. All else is in ``benchmark.extra_info``, and so in pytest-benchmark's JSON.
    """

    compressed: Compressed
    speedup: RatioInterval | None
    verdict: Verdict | None
    top1: float | None


class LowRank:
    """The value of the ``lowrank`` fixture: call it once in a test. See ``__call__``."""

    def __init__(self, benchmark: Any) -> None:
        self.benchmark = benchmark

    def __call__(
        self,
        model: str | nn.Module,
        method: str | type[Method],
        budget: Budget | None = None,
        *,
        ranks: Ranks | dict[str, Ranks] | None = None,
        options: Mapping[str, Any] | None = None,
        input_size: tuple[int, int, int] | None = None,
        runtime: str = "eager-nhwc",
        threads: int = 1,
        batch: int = 1,
        rounds: int = 30,
    ) -> Outcome:
        """Compress a model without tuning it, and time it in rounds on pinned cores, with the dense model around each.

        ``model``: the name of a task's model, such as "charnet", or a module with its ``input_size`` (C, H, W). The
        other arguments are those of ``lowrank_bench.compress`` and ``measure_speedup``. pytest-benchmark's table shows
        the compressed model's time per call; ``extra_info`` holds the rest, under the names that ``load_records`` uses.
        Raises InvalidInput, UnknownName and what ``compress`` and ``prepare`` raise.
        """
        task = _task_of(model) if isinstance(model, str) else None
        name = model if isinstance(model, str) else type(model).__name__
        dense = task.load(name) if task is not None else model
        size = input_size if task is None else task.input_size
        if size is None or not isinstance(dense, nn.Module):
            raise InvalidInput("a model that is not a task's needs input_size = (channels, height, width)")
        check_setting(size, batch, threads)
        check_rounds(rounds)
        compressed = compress(dense, method, budget, ranks, options, size, _data(task), recipe="none")
        plan, cost, dense_cost = compressed.plan, compressed.cost, compressed.dense_cost
        self.benchmark.extra_info |= {
            "model": name,
            "method": plan.method,
            "options": plan.options,
            "target": target_text(budget, ranks),
            "runtime": runtime,
            "threads": threads,
            "batch": batch,
            "macs": cost.macs,
            "macs_dense": dense_cost.macs,
            "macs_ratio": dense_cost.macs / cost.macs,
            "params": cost.params,
            "params_dense": dense_cost.params,
            "params_ratio": dense_cost.params / cost.params,
        }
        top1 = None if task is None else self._judge(task, name, compressed.model)
        self.benchmark.group = self.benchmark.group or name
        images = random_input(dense, (batch, *size))
        ours, theirs = (prepare(runtime, each, images, threads).run for each in (dense, compressed.model))
        with pinned(threads), inference_state(threads), no_garbage_collection():
            if not self.benchmark.enabled:
                self.benchmark(theirs)
                return Outcome(compressed, None, None, top1)
            timed = self._time(Rounds(ours, theirs), rounds)
        return Outcome(compressed, timed.speedup, self._tell(timed), top1)

    def _judge(self, task: Task, name: str, model: nn.Module) -> float:
        hits, dense_hits = _hits(task, model), _dense_hits(task.name, name)
        drop, low, high = paired_drop(dense_hits, hits, task.group_sizes(SPLIT))
        top1 = 100 * float(hits.mean())
        self.benchmark.extra_info |= {
            "task": task.name,
            "top1_split": SPLIT,
            "top1_images": len(hits),
            "top1_dense": 100 * float(dense_hits.mean()),
            "top1_untuned": top1,
            "top1_untuned_drop": drop,
            "top1_untuned_drop_low": low,
            "top1_untuned_drop_high": high,
        }
        return top1

    def _time(self, timed: Rounds, rounds: int) -> Rounds:
        def setup() -> None:
            # pedantic takes no iterations beside a setup: the round loops by itself, and the times are told per call
            self.benchmark.stats.iterations = timed.compressed_calls
            timed.before()

        self.benchmark.pedantic(timed.compressed, setup=setup, teardown=timed.after, rounds=rounds)
        del timed.rounds[rounds:]  # --benchmark-cprofile runs another, slowed down
        return timed

    def _tell(self, timed: Rounds) -> Verdict:
        speedup, floor, info = timed.speedup, noise_floor(timed.control), self.benchmark.extra_info
        called = verdict(speedup, floor)
        info |= {
            "speedup": speedup.ratio,
            "speedup_low": speedup.low,
            "speedup_high": speedup.high,
            "verdict": called,
            "noise_floor": floor,
            "realised": speedup.ratio / info["macs_ratio"],
            "dense_ms": timed.dense_ms,
            "rounds_ms": [[nanoseconds / 1e6 for nanoseconds in each] for each in timed.rounds],
        }
        return called


def _task_of(model: str) -> Task:
    for task in TASKS.values():
        if model in task.models:
            return task()
    raise UnknownName("model", model, [name for task in TASKS.values() for name in task.models])


def _data(task: Task | None) -> Any:
    return None if task is None else lambda epoch: task.batches("train", epoch=epoch)


def _hits(task: Task, model: nn.Module) -> NDArray[np.bool_]:
    predicted, labels = predicted_and_true(model, task.batches(SPLIT))
    hits: NDArray[np.bool_] = (predicted == labels).numpy()
    return hits


@cache
def _dense_hits(task_name: str, model: str) -> NDArray[np.bool_]:
    task = get_task(task_name)
    return _hits(task, task.load(model))
