"""Budgets in latency: a table of times per layer, and a correction by times of the whole compressed network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from lowrank_bench.compression.budget import TOLERANCE, come_close, largest_ratio
from lowrank_bench.compression.chain import Chain
from lowrank_bench.compression.choices import Choice, LayerRanks
from lowrank_bench.compression.cost import Site
from lowrank_bench.compression.drawing import draw_factored
from lowrank_bench.compression.factoring import LayerFactoring
from lowrank_bench.compression.job import Job, Timer
from lowrank_bench.compression.passes import copy_of
from lowrank_bench.compression.surgery import named_layer, swap
from lowrank_bench.errors import InvalidBudget
from lowrank_bench.trial import Budget

SHARES = (1.0, 1 / 2, 1 / 4, 1 / 8, 1 / 16)
"""Of a layer's dense MACs: below each, and at its least, a layer is timed; between them its time is linear in MACs."""

ROUNDS = 6
CLOSE = 0.02
"""A measured ratio this near to the target, relative, needs no further round."""


@dataclass(frozen=True)
class LayerTimes:
    """Times of layers on their own, in whole nanoseconds over all calls of a layer: the costs of a latency budget."""

    method: LayerFactoring
    model: nn.Module
    budget: Budget
    timer: Timer

    def network(self, input_size: tuple[int, int, int], sites: Mapping[str, Site]) -> int:
        """Of the dense network; its layers at least, where they are slower on their own."""
        whole = self.timer.seconds(self.model, (self._batch, *input_size), self.budget)
        return max(round(1e9 * whole), sum(self.dense(name, site) for name, site in sites.items()))

    def dense(self, name: str, site: Site) -> int:
        """Of a layer as it is."""
        return self._time(named_layer(self.model, name), site)

    def factored(
        self, name: str, site: Site, candidates: Sequence[tuple[int, ...]], chains: Sequence[Chain]
    ) -> list[int]:
        """Of a layer at every candidate, of which six at most are timed, with random factors. Those of no fewer MACs
        than the dense layer's are not looked at: they cost as much as it does.
        """
        macs, dense = [site.macs(chain) for chain in chains], self.dense(name, site)
        below = [index for index, count in enumerate(macs) if count < site.dense_macs]
        if not below:
            return [dense] * len(macs)
        wanted = [[index for index in below if macs[index] <= share * site.dense_macs] for share in SHARES]
        timed = {max(some, key=lambda index: macs[index]) for some in wanted if some}
        timed |= {min(below, key=lambda index: macs[index])}
        layer, geometry = named_layer(self.model, name), self.method.target_geometry(site.geometry)
        points = {}
        for index in timed:
            _, module = draw_factored(self.method, layer, geometry, candidates[index])
            points[macs[index]] = self._time(module, site)
        at = sorted(points)
        # noise only adds time, so what costs more and took less tells the truth
        least = np.minimum.accumulate([points[count] for count in reversed(at)])[::-1]
        times = np.interp(macs, at, least)
        return [round(t) if count < site.dense_macs else dense for t, count in zip(times, macs, strict=True)]

    @property
    def _batch(self) -> int:
        assert self.budget.batch is not None  # a latency budget has one
        return self.budget.batch

    def _time(self, module: nn.Module, site: Site) -> int:
        """Over all calls of a layer; a call on maps of a size that was met before takes as long."""
        inputs = site.geometry.kernel.S * site.geometry.groups
        seconds = 0.0
        for size in dict.fromkeys(site.sizes):
            shape = (self._batch, inputs, *size) if site.geometry.kind == "conv2d" else (self._batch * size[0], inputs)
            seconds += site.sizes.count(size) * self.timer.seconds(module, shape, self.budget)
        return round(1e9 * seconds)


def meet_latency(
    times: LayerTimes,
    job: Job,
    sites: Mapping[str, Site],
    preferred: Sequence[Mapping[str, Sequence[Choice]]],
    total: int,
) -> LayerRanks:
    """Ranks with which the whole network, with random factors, is measured to be as many times faster as asked for.

    ``preferred``: what may be chosen from, costs in nanoseconds; the next is taken where one does not reach the target.
    ``total``: time of the dense network. As layers are not as fast side by side as on their own, the target is rescaled
    by what was measured, and shared out anew, six times at most. The nearest of so many measurements is near by luck as
    well: its ranks are measured once more, and that ratio is judged. Raises InvalidBudget, naming the nearest, where it
    is not within 5 %.
    """
    budget, last = times.budget, preferred[-1]
    measured: dict[float, LayerRanks] = {}
    for choices in preferred:
        if choices is not last and largest_ratio(total, choices) < budget.ratio:
            continue
        measured |= _rescaled(times, job, sites, choices, total)
        best = min(measured, key=lambda found: abs(math.log(found / budget.ratio)))
        ranks = measured[best]
        if abs(best / budget.ratio - 1) <= TOLERANCE:
            del measured[best]
            best = _measure(times, job, sites, ranks)
            measured[best] = ranks
            if abs(best / budget.ratio - 1) <= TOLERANCE:
                return ranks
    raise InvalidBudget(
        f"budget {budget} cannot be met within 5 %: the nearest that these layers and this method reached on this "
        f"machine is {best:.4g}"
    )


def _rescaled(
    times: LayerTimes, job: Job, sites: Mapping[str, Site], choices: Mapping[str, Sequence[Choice]], total: int
) -> dict[float, LayerRanks]:
    """Measured ratios and the ranks behind them, round by round."""
    wanted, most = times.budget.ratio, largest_ratio(total, choices)
    asked, bracket, measured = min(wanted, most), [1.0, math.inf], dict[float, LayerRanks]()
    for _ in range(ROUNDS):
        ranks, _ = come_close(asked, total, choices)
        if ranks in measured.values():
            break
        found = _measure(times, job, sites, ranks)
        measured[found] = ranks
        if abs(found / wanted - 1) <= CLOSE:
            break
        bracket[found > wanted] = asked
        asked = min(_next(asked * wanted / found, bracket), most)
    return measured


def _next(asked: float, bracket: Sequence[float]) -> float:
    """What to ask for next: within what asked too little and what asked too much."""
    low, high = bracket
    return asked if low < asked < high else math.sqrt(low * high) if math.isfinite(high) else 2 * low


def _measure(times: LayerTimes, job: Job, sites: Mapping[str, Site], ranks: LayerRanks) -> float:
    compressed = copy_of(times.model)
    for name, chosen in ranks.items():
        if chosen is not None:
            geometry = times.method.target_geometry(sites[name].geometry)
            swap(compressed, name, draw_factored(times.method, named_layer(compressed, name), geometry, chosen)[1])
    return times.timer.ratio(times.model, compressed, (times._batch, *job.input_size), times.budget)
