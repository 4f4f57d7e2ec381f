"""One method on one model under pytest-benchmark: what the ``lowrank`` fixture does."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

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
from lowrank_bench.running.locks import preparation_lock, say_waiting, timing_lock
from lowrank_bench.tasks.catalog import TASKS, get_task
from lowrank_bench.tasks.open_task import ANY_MODEL, is_code, split_model
from lowrank_bench.tasks.speed import Speed
from lowrank_bench.tasks.task import Split, Task
from lowrank_bench.tasks.zoo import in_zoo
from lowrank_bench.training.evaluate import predicted_and_true
from lowrank_bench.trial import Budget, NetworkRanks, target_text

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
        ranks: NetworkRanks | None = None,
        options: Mapping[str, Any] | None = None,
        input_size: tuple[int, int, int] | None = None,
        runtime: str = "eager-nhwc",
        threads: int = 1,
        batch: int = 1,
        rounds: int = 30,
    ) -> Outcome:
        """Compress a model without tuning it, and time it in rounds on pinned cores, with the dense model around each.

        ``model``: the name of a task's model, such as "charnet", or a module with its ``input_size`` (C, H, W), or any
        other network's name in a sweep: "timm:NAME", "torchvision:NAME" or "PACKAGE.MODULE:FACTORY", each alone or as
        "NAME@FILE"; its ``input_size`` is by default that of task ``speed``: what the factory has, else 3x224x224. A
        library's network without a file has random weights, so that its ranks are chosen and its factors drawn as that
        task does it. The other arguments are those of ``lowrank_bench.compress`` and ``measure_speedup``.
        pytest-benchmark's table shows the compressed model's time per call; ``extra_info`` holds the rest, under the
        names that ``load_records`` uses. While it is timed, no run of lowrank-bench uses this machine; what runs now is
        waited for. Raises InvalidInput, UnknownName and what ``compress`` and ``prepare`` raise.
        """
        network = _network(model, input_size)
        name, size = network.name, network.size
        check_setting(size, batch, threads)
        check_rounds(rounds)
        with self._preparing(times_itself=budget is not None and budget.metric == "latency"):
            compressed = compress(
                network.dense,
                method,
                budget,
                ranks,
                options,
                size,
                _data(network.task),
                recipe="none",
                speed_only=network.random,
            )
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
        self.benchmark.group = self.benchmark.group or name
        with self._preparing():
            top1 = None if network.task is None else self._judge(network.task, name, compressed.model)
            images = random_input(network.dense, (batch, *size))
            both = (network.dense, compressed.model)
            ours, theirs = (prepare(runtime, each, images, threads).run for each in both)
        with self._alone(), pinned(threads), inference_state(threads), no_garbage_collection():
            if not self.benchmark.enabled:
                self.benchmark(theirs)
                return Outcome(compressed, None, None, top1)
            timed = self._time(Rounds(ours, theirs), rounds)
        return Outcome(compressed, timed.speedup, self._tell(timed), top1)

    def _preparing(self, *, times_itself: bool = False) -> AbstractContextManager[None]:
        """Not while others time; what is not timed afterwards need not wait, and what times by itself cannot."""
        if times_itself or not self.benchmark.enabled:
            return nullcontext()
        return preparation_lock(waiting=say_waiting)

    def _alone(self) -> AbstractContextManager[None]:
        return timing_lock(waiting=say_waiting) if self.benchmark.enabled else nullcontext()

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


class _Network(NamedTuple):
    """A network, the task whose model it is (None for any other), its name, and the size of its images; ``random``:
    whether its weights mean nothing.
    """

    task: Task | None
    name: str
    dense: nn.Module
    size: tuple[int, int, int]
    random: bool = False


def _network(model: str | nn.Module, input_size: tuple[int, int, int] | None) -> _Network:
    if isinstance(model, nn.Module) and input_size is not None:
        return _Network(None, type(model).__name__, model, input_size)
    if not isinstance(model, str):
        raise InvalidInput("a model that is not a task's needs input_size = (channels, height, width)")
    if (task := _task_of(model)) is not None:
        if input_size is not None and tuple(input_size) != task.input_size:
            raise InvalidInput(
                f"input_size = {input_size}: the images of {model!r} on {task.name} are {task.input_size}; a "
                f"library's network of that name would be 'torchvision:{model}' or 'timm:{model}'"
            )
        return _Network(task, model, task.load(model), task.input_size)
    if input_size is not None:
        check_setting(input_size, 1, 1)
    asked = "" if input_size is None else ":" + "x".join(map(str, input_size))
    speed = get_task(f"{Speed.name}{asked}", model)
    name, file = split_model(model)
    return _Network(None, model, speed.load(model), speed.input_size, random=in_zoo(name) and file is None)


def _task_of(model: str) -> Task | None:
    """None for a network of a library or of the user's own. Raises UnknownName."""
    named = {known: task for task in reversed(TASKS.values()) for known in task.models if known not in ANY_MODEL}
    if model in named:
        return named[model]()
    name, _ = split_model(model)
    if in_zoo(name) or is_code(name):
        return None
    raise UnknownName("model", model, named)


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
