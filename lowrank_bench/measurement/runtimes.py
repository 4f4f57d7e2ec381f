"""The runtimes in which models are timed, dense and compressed alike: each makes a model into one call without arguments."""

from __future__ import annotations

import copy
import shutil
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lowrank_bench.errors import ExportFailed, InvalidInput, LowRankBenchError, RuntimeMissing, UnknownName

# Runtimes sum in other orders, which costs some 1e-6 in float32; bfloat16 arithmetic would cost 1e-2.
OUTPUT_TOLERANCE = 1e-4

Output = Tensor | NDArray[Any]
Run = Callable[[], Output]


@dataclass(frozen=True)
class Runtime:
    """How a runtime takes a model: ``convert(model, example_input, threads)`` returns the call and the model's bytes.

    ``missing`` says what to install, None where the runtime is ready.
    """

    convert: Callable[[nn.Module, Tensor, int], tuple[Run, int]]
    missing: Callable[[], str | None] = lambda: None


@dataclass(frozen=True)
class Prepared:
    """A model in a runtime. ``run`` computes the output for the example input, which is bound to it once and for all.

    ``output_error``: relative difference (Frobenius) from what eager computes; ``model_bytes``: weights and, where the
    runtime has a file format, all of the file.
    """

    run: Run
    output_error: float
    convert_seconds: float
    model_bytes: int


def prepare(name: str, model: nn.Module, example_input: Tensor, threads: int) -> Prepared:
    """Convert a copy of the model, in eval mode on the CPU, and check its output against eager's.

    Time the result within ``inference_state(threads)``: torch's own runtimes take their number of threads from there.
    Raises UnknownName, RuntimeMissing, InvalidInput where the model itself rejects the input, and ExportFailed where the
    runtime rejects the model or computes something else.
    """
    if name not in RUNTIMES:
        raise UnknownName("runtime", name, RUNTIMES)
    if missing := RUNTIMES[name].missing():
        raise RuntimeMissing(f"runtime {name!r} is not ready: {missing}")
    own = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    with inference_state(threads):
        reference = _reference(own, example_input)
        started = time.perf_counter()
        try:
            run, model_bytes = RUNTIMES[name].convert(own, example_input, threads)
            output = run()
        except MemoryError:
            raise
        except Exception as error:
            if "can't allocate memory" in str(error):  # torch's allocator, in a bare RuntimeError
                raise
            raise ExportFailed(f"runtime {name!r} cannot take this model: {type(error).__name__}: {error}") from error
        seconds = time.perf_counter() - started
    error = relative_error(output, reference)
    if not error <= OUTPUT_TOLERANCE:
        raise ExportFailed(f"runtime {name!r} differs from eager by {error:.1e}, more than {OUTPUT_TOLERANCE:g}")
    return Prepared(run, error, seconds, model_bytes)


def available_runtimes() -> dict[str, str | None]:
    """Every runtime, with None where it is ready and else with what to install."""
    return {name: runtime.missing() for name, runtime in RUNTIMES.items()}


def relative_error(output: Output, reference: Output) -> float:
    """Norm of the difference over the norm of the reference; infinite where shapes differ, nan where values are."""
    ...
