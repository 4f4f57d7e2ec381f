"""Times for latency budgets: of layers on their own, kept on disk, and of whole networks side by side."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from lowrank_bench.atomic import drafts
from lowrank_bench.compression.modules import Factored
from lowrank_bench.errors import InvalidInput, NotWritten
from lowrank_bench.measurement.cores import pinned, usable_cores
from lowrank_bench.measurement.environment import fingerprint, version_of
from lowrank_bench.measurement.runtimes import inference_state, prepare
from lowrank_bench.measurement.speedup import random_input
from lowrank_bench.measurement.timing import least_ns, no_garbage_collection, time_pairs
from lowrank_bench.tasks.baseline import cache_folder
from lowrank_bench.trial import Budget

LAYER_NS = 200_000_000
FEWEST_CALLS = 5
PRECISION, NETWORK_SECONDS = 0.01, 10.0


class _Entry(BaseModel):
    """One time on disk, and what it is of."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    seconds: float = Field(gt=0)
    model: str
    shape: tuple[int, ...]
    runtime: str
    threads: int
    environment: str


class Clock:
    """The timer of latency budgets (see compression.latency.Timer).

    A layer that was timed once is not timed again on this machine: entries are named by its structure, its input's
    shape, runtime, threads, and the machine with its versions; each is a file of its own that appears whole, so that
    processes share them without a lock. A network is timed every time: what it prints does not tell what its forward
    does. The process is pinned to as many cores as there are threads meanwhile, as for published timings. ``alone``:
    entered around whatever is timed, to have the machine alone.
    """

    def __init__(
        self, alone: Callable[[], AbstractContextManager[None]] = nullcontext, folder: Path | None = None
    ) -> None:
        """``folder``: where the times are kept; by default in ``cache_folder``."""
        self.alone, self.folder = alone, folder or cache_folder() / "latency"

    def seconds(self, model: nn.Module, shape: tuple[int, ...], budget: Budget) -> float:
        """Least time of one call, in seconds, over at least 5 calls and 0.2 s: what a machine at rest takes. Raises
        what ``prepare`` raises, and InvalidInput for more threads than cores.
        """
        runtime, threads = _setting(budget)
        if not (type(model) in (nn.Conv2d, nn.Linear) or isinstance(model, Factored)):
            return self._timed(model, shape, runtime, threads)
        values = [(tuple(value.shape), str(value.dtype)) for value in model.state_dict().values()]
        facts = {
            "model": f"{type(model).__qualname__}: {model} {values}",
            "shape": shape,
            "runtime": runtime,
            "threads": threads,
            "environment": _environment(),
        }
        path = self.folder / f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]}.json"
        try:
            return _Entry.model_validate_json(path.read_bytes()).seconds
        except (OSError, ValidationError):
            pass  # not timed yet, or damaged
        found = self._timed(model, shape, runtime, threads)
        with suppress(NotWritten), drafts(path) as (draft,):  # then it is timed again
            draft.write_text(_Entry.model_validate(facts | {"seconds": found}).model_dump_json(indent=1) + "\n")
        return found

    def ratio(self, dense: nn.Module, compressed: nn.Module, shape: tuple[int, ...], budget: Budget) -> float:
        """Median of pair ratios, dense over compressed, to 1 % or for 10 s; never kept. Raises as ``seconds`` does."""
        runtime, threads = _setting(budget)
        images = random_input(dense, shape)
        with pinned(threads):
            ours, theirs = (prepare(runtime, model, images, threads) for model in (dense, compressed))
            with self.alone(), inference_state(threads):
                pairs = time_pairs(ours.run, theirs.run, precision=PRECISION, max_seconds=NETWORK_SECONDS)
        return pairs.interval.ratio

    def _timed(self, model: nn.Module, shape: tuple[int, ...], runtime: str, threads: int) -> float:
        with pinned(threads):
            prepared = prepare(runtime, model, random_input(model, shape), threads)
            with self.alone(), inference_state(threads), no_garbage_collection():
                prepared.run()
                return least_ns(prepared.run, duration=LAYER_NS, fewest=FEWEST_CALLS) / 1e9


def _setting(budget: Budget) -> tuple[str, int]:
    runtime, threads = budget.runtime, budget.threads
    assert runtime is not None and threads is not None  # a latency budget has both
    if not 1 <= threads <= usable_cores():
        raise InvalidInput(f"budget {budget}: threads must be from 1 to this machine's {usable_cores()}, got {threads}")
    return runtime, threads


@cache
def _environment() -> str:
    """The machine and the versions on which times depend, of what makes a runtime's model too."""
    found = fingerprint()
    exporters = {name: version_of(name) for name in ("lowrank-bench", "onnx", "onnxscript")}
    return json.dumps([found.machine, found.cpu_capability, found.packages, exporters])
