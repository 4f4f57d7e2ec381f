"""What timings on this machine are worth: an A/A that shows its noise, the most that it can do, and a conclusion."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from lowrank_bench.measurement.cores import pin_cores, usable_cores
from lowrank_bench.measurement.environment import Check, Environment
from lowrank_bench.measurement.peak import Peak, peak
from lowrank_bench.measurement.rank_steps import all_rank_steps
from lowrank_bench.measurement.runtimes import inference_state, prepare
from lowrank_bench.measurement.statistics import noise_floor
from lowrank_bench.measurement.timing import check_bounds, time_pairs

# Beyond this, 2 % of speedup, which separate many methods on a board, drown.
NOISE_LIMIT = 0.02
# Of its wall time, what one thread gets at least of a core that is its own.
CORE_SHARE_LIMIT = 0.98
# It stops on time, not on precision: the width that this machine allows is the question.
_NEVER_PRECISE = 1e-9


class Probe(BaseModel):
    """How a network's times compare with those of its own copy, on one thread, and the machine's measured peaks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ratio: float
    low: float
    high: float
    noise_floor: float
    pairs: int
    core_share: float
    """CPU time over wall time of the timed calls; below 1, others had the core meanwhile."""
    peaks: dict[int, Peak]
    """By number of threads."""
    steps: dict[str, dict[int, float]]
    """By runtime, how many times less time per rank multiples of each step take: see rank_steps."""


class Diagnosis(BaseModel):
    """The machine, what it did under load, and everything that timings on it depend on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    environment: Environment
    probe: Probe
    checks: list[Check]

    @property
    def conclusion(self) -> str:
        """What follows for timings on this machine, in a sentence."""
        faults = [check.name for check in self.checks if not check.ok]
        told = f"two models that differ by less than {self.probe.noise_floor:.1%} are called the same"
        if not faults:
            return f"Nothing was found that makes timings on this machine untrustworthy; {told}."
        return f"Timings taken now are not to be trusted because of: {', '.join(faults)}. As it stands, {told}."


def probe(seconds: float = 10.0) -> Probe:
    """Measure the peaks with one thread and with all cores, then the A/A for ``seconds`` and the steps of ranks, pinned
    to one core.

    For a fresh process: it stays pinned. Raises InvalidInput unless ``seconds`` is positive and finite.
    """
    check_bounds(_NEVER_PRECISE, seconds)
    peaks = {cores: peak(cores) for cores in {usable_cores()} - {1}}
    pin_cores(1)
    peaks[1] = peak(1)
    images = torch.randn(1, 64, 28, 28, generator=torch.Generator().manual_seed(0))
    one, twin = (prepare("eager", _network(), images, 1) for _ in range(2))
    with inference_state(1):
        pairs = time_pairs(one.run, twin.run, precision=_NEVER_PRECISE, max_seconds=seconds)
    interval = pairs.interval
    cpu, wall = (sum(pairs.dense_cpu_ns + pairs.compressed_cpu_ns), sum(pairs.dense_ns + pairs.compressed_ns))
    return Probe(
        ratio=interval.ratio,
        low=interval.low,
        high=interval.high,
        noise_floor=noise_floor(interval),
        pairs=len(pairs),
        core_share=cpu / wall,
        peaks=dict(sorted(peaks.items())),
        steps=all_rank_steps(),
    )


def diagnose(environment: Environment, checks: Sequence[Check], probe: Probe) -> Diagnosis:
    """Put together what stands still, ``checks()``, and what the probe showed."""
    shown = [
        Check(
            "noise floor",
            probe.noise_floor <= NOISE_LIMIT,
            f"{probe.noise_floor:.2%}: a network against its copy ran at {probe.ratio:.4f} "
            f"[{probe.low:.4f}, {probe.high:.4f}] in {probe.pairs} pairs",
            "end what else runs; allow more max_seconds, and 5 processes or more for each row",
        ),
        Check(
            "core to itself",
            probe.core_share >= CORE_SHARE_LIMIT,
            f"{min(probe.core_share, 1.0):.1%} of a core while it was timed",
            "something else runs on these cores now: end it, or keep it away with taskset",
        ),
    ]
    return Diagnosis(environment=environment, probe=probe, checks=[*checks, *shown])


def _network() -> nn.Module:
    """A few convolutions of a few ms, the same at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [layer for _ in range(4) for layer in (nn.Conv2d(64, 64, 3, padding=1), nn.ReLU())]
    return nn.Sequential(*layers)
