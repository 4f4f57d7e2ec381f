"""The measured speedup of one model over another, in this process."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor, nn

from lowrank_bench.errors import InvalidInput
from lowrank_bench.measurement.cores import usable_cores
from lowrank_bench.measurement.exports import Exports
from lowrank_bench.measurement.runtimes import Prepared, inference_state, prepare, relative_error
from lowrank_bench.measurement.statistics import Verdict, noise_floor, verdict
from lowrank_bench.measurement.timing import Pairs, StopReason, check_bounds, time_pairs

# Of the time allowed, what the control (dense against its copy) may take.
CONTROL_SHARE = 0.25


@dataclass(frozen=True)
class Speedup:
    """How much faster the compressed model runs: dense time over compressed time, with its 95 % interval.

    ``verdict`` is against the interval widened by ``noise_floor``, how far from 1 the interval of the dense model
    against its own copy reached in the same process. ``pairs``: how many were timed; ``stop_reason``: what ended them.
    Times of one call in ms, p50 and p90. ``output_error``: the compressed model's output against the dense one's,
    relative; ``runtime_error``: the larger of the two models' differences between this runtime and eager. Seconds of
    the conversion and bytes of the model in the runtime: dense, compressed. ``raw`` and ``control``: every time behind
    the ratio and behind the noise floor.
    """

    ratio: float
    low: float
    high: float
    verdict: Verdict
    pairs: int
    stop_reason: StopReason
    noise_floor: float
    dense_ms: float
    compressed_ms: float
    dense_p90_ms: float
    p90_ms: float
    output_error: float
    runtime_error: float
    convert_seconds: tuple[float, float]
    model_bytes: tuple[int, int]
    raw: Pairs
    control: Pairs

    def __str__(self) -> str:
        """In a line, such as ``2.31 [2.28, 2.34] faster, 44 pairs, noise floor 1.2%, 10.4 ms to 4.5 ms``."""
        return (
            f"{self.ratio:.2f} [{self.low:.2f}, {self.high:.2f}] {self.verdict}, {self.pairs} pairs, noise floor "
            f"{self.noise_floor:.1%}, {self.dense_ms:.4g} ms to {self.compressed_ms:.4g} ms"
        )


class Yardstick:
    """A dense model in a runtime: what compressed ones are timed against, one after another, in this process. They
    share its conversion and its control. The arguments are those of ``lowrank_bench.measure_speedup``, which raises the
    same.
    """

    def __init__(
        self,
        dense: nn.Module,
        input_size: tuple[int, int, int],
        batch: int,
        runtime: str,
        threads: int,
        precision: float,
        max_seconds: float,
        *,
        calibration: Tensor | None = None,
        exports: Path | None = None,
    ) -> None:
        """Convert it, and its copy."""
        check_setting(input_size, batch, threads)
        check_bounds(precision, max_seconds)
        self._threads, self._precision, self._max_seconds = threads, precision, max_seconds
        images = random_input(dense, (batch, *input_size))
        self._prepare = partial(
            prepare,
            runtime,
            example_input=images,
            threads=threads,
            calibration=calibration,
            exports=Exports(exports),
        )
        self._ours, self._twin = self._prepare(model=dense), self._prepare(model=dense)

    @cached_property
    def control(self) -> Pairs:
        """The dense model against its copy."""
        return self._time(self._twin, CONTROL_SHARE)

    def speedup(self, compressed: nn.Module, before: Callable[[], object] = lambda: None) -> Speedup:
        """Time a compressed model in interleaved pairs with the dense one. ``before``: called right before that, when
        all of it is converted and the control was timed, so that only the pairs are left to do.
        """
        ours, theirs = self._ours, self._prepare(model=compressed)
        with inference_state(self._threads):
            error = relative_error(theirs.run(), ours.run())
        if math.isinf(error):
            raise InvalidInput("the two models' outputs differ in shape: they do not do the same work")
        control = self.control
        before()
        raw = self._time(theirs, 1 - CONTROL_SHARE)
        interval, floor = raw.interval, noise_floor(control.interval)
        dense_ms, dense_p90_ms = raw.milliseconds("dense")
        compressed_ms, p90_ms = raw.milliseconds("compressed")
        return Speedup(
            ratio=interval.ratio,
            low=interval.low,
            high=interval.high,
            verdict=verdict(interval, floor),
            pairs=len(raw),
            stop_reason=raw.stop_reason,
            noise_floor=floor,
            dense_ms=dense_ms,
            compressed_ms=compressed_ms,
            dense_p90_ms=dense_p90_ms,
            p90_ms=p90_ms,
            output_error=error,
            runtime_error=max(ours.output_error, theirs.output_error),
            convert_seconds=(ours.convert_seconds, theirs.convert_seconds),
            model_bytes=(ours.model_bytes, theirs.model_bytes),
            raw=raw,
            control=control,
        )

    def _time(self, other: Prepared, share: float) -> Pairs:
        seconds = share * self._max_seconds
        with inference_state(self._threads):
            return time_pairs(self._ours.run, other.run, precision=self._precision, max_seconds=seconds)


def check_setting(input_size: tuple[int, int, int], batch: int, threads: int) -> None:
    """Raise InvalidInput unless (C, H, W), batch and threads can be timed on this machine."""
    if (
        not isinstance(input_size, Sequence)
        or len(input_size) != 3
        or not all(type(n) is int and n >= 1 for n in input_size)
    ):
        raise InvalidInput(f"input_size must be (channels, height, width), three positive integers, got {input_size}")
    if not (type(batch) is int and batch >= 1):
        raise InvalidInput(f"batch must be a positive integer, got {batch}")
    if not (type(threads) is int and 1 <= threads <= usable_cores()):
        raise InvalidInput(f"threads must be an integer from 1 to this machine's {usable_cores()}, got {threads}")


def random_input(model: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """The same standard normal input at every call, in the model's dtype; the global generator is not touched."""
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
