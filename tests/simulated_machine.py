"""A machine with a simulated clock: two models whose true ratio is known, under the noise of a shared computer."""

from __future__ import annotations

import math
import random

# Cold caches cost the less the longer a model runs: down to a third in this time, as measured for timing.LEAD_IN_NS.
COLD_NS = 2e6


class SimulatedMachine:
    """Two models on a clock of their own: jitter, spikes, bursts, drift, cold caches and an effect of the process.

    Bursts (another tenant, 1.7 times slower) and spikes (interrupts, 3 ms) come at random moments, so that a longer
    call meets more of them; drift is a slow wave of the clock rate. ``cold`` is how much longer, relatively, the
    compressed model's calls take right after the dense model's. ``process_effect`` is the standard deviation of the
    logarithm of this process's own ratio around the true one. Without ``noisy`` there is jitter only.
    """

    def __init__(
        self,
        seed: int,
        ratio: float,
        *,
        compressed_ms: float = 4.0,
        jitter: float = 0.02,
        noisy: bool = True,
        cold: float = 1.0,
        process_effect: float = 0.0,
    ) -> None:
        self._random = random.Random(seed)
        self._jitter, self._noisy, self._cold = jitter, noisy, cold
        own_ratio = ratio * math.exp(self._random.gauss(0, process_effect))
        self._work = {"dense": compressed_ms * 1e6 * own_ratio, "compressed": compressed_ms * 1e6}
        self._now = self._switched = 0.0
        self._last = ""
        self._in_burst, self._turn = False, self._random.expovariate(1 / 3e9)
        self._phase = self._random.uniform(0, 2 * math.pi)

    def clock(self) -> int:
        """Nanoseconds since the machine was switched on."""
        return int(self._now)

    def dense(self) -> None:
        """Run the dense model."""
        self._spend("dense")

    def compressed(self) -> None:
        """Run the compressed model."""
        self._spend("compressed")

    def _spend(self, side: str) -> None:
        work = self._work[side] * math.exp(self._random.gauss(0, self._jitter))
        if side != self._last:
            self._last, self._switched = side, self._now
        if side == "compressed":  # the integral of a slowness that fades from 1 + cold to 1
            work += (
                self._cold * COLD_NS * math.exp((self._switched - self._now) / COLD_NS) * -math.expm1(-work / COLD_NS)
            )
        if not self._noisy:
            self._now += work
            return
        work *= 1 + 0.1 * math.sin(2 * math.pi * self._now / 20e9 + self._phase)
        spikes, at = 0.0, self._random.expovariate(1 / 200e6)
        while at < work:
            spikes += self._random.expovariate(1 / 3e6)
            at += self._random.expovariate(1 / 200e6)
        work += spikes
        while True:  # the burst may begin or end within the call
            slowness = 1.7 if self._in_burst else 1.0
            if self._now + work * slowness < self._turn:
                self._now += work * slowness
                return
            work -= (self._turn - self._now) / slowness
            self._now = self._turn
            self._in_burst = not self._in_burst
            self._turn += self._random.expovariate(1 / (0.3e9 if self._in_burst else 3e9))
