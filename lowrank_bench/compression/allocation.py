"""Ranks per layer for a budget: what each layer can cost, what it loses there, and the rule that weighs them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from lowrank_bench.compression.budget import allocate, check_reach, spent
from lowrank_bench.compression.chain import Chain
from lowrank_bench.compression.choices import Choice, LayerRanks
from lowrank_bench.compression.cost import Cost, Site, count
from lowrank_bench.compression.factoring import LayerFactoring
from lowrank_bench.compression.job import Job
from lowrank_bench.compression.latency import LayerTimes, meet_latency
from lowrank_bench.compression.norms import output_scale, weigh_rows
from lowrank_bench.compression.passes import first_convolution
from lowrank_bench.compression.sensitivity import Sensitivity
from lowrank_bench.compression.surgery import kernel_of, named_layer
from lowrank_bench.errors import InvalidBudget
from lowrank_bench.trial import Budget, Metric


def ranks_for_budget(
    method: LayerFactoring,
    model: nn.Module,
    job: Job,
    budget: Budget,
    dense_cost: Cost,
    sites: dict[str, Site],
    open_sites: dict[str, Site],
    norms: Mapping[str, str],
) -> LayerRanks:
    """Ranks for every open layer within the budget's scope; a linear layer is outside of ``scope="convs"``. ``norms``:
    the batch norms that weigh their output channels.

    The convolution called first, which reads the image, stays dense wherever the budget can be met without it, as in
    the papers (Garipov et al. 2016; Wang et al. 2021): its error counts for more than its share. Where sensitivities
    are measured it is a layer like any other, as it is to a method that is for this one only. Raises InvalidBudget.
    """
    if budget.scope == "convs":
        open_sites = {name: site for name, site in open_sites.items() if site.geometry.kind == "conv2d"}
    costs = _costs(method, model, job, budget)
    timed = isinstance(costs, LayerTimes)
    # what is timed has random factors, and the draws to come must not depend on how many
    with torch.random.fork_rng(devices=[], enabled=timed):
        choices = {
            name: _choices(method, model, job, costs, name, site, norms.get(name)) for name, site in open_sites.items()
        }
        if isinstance(costs, LayerTimes):
            total = costs.network(job.input_size, open_sites)
        else:
            total = spent(dense_cost if budget.scope == "all" else count(model, job.input_size, budget.scope), budget)
        with _naming_align(method.options.align):
            if method.options.allocation == "sensitivity" and not job.speed_only:
                if not timed:
                    check_reach(budget, total, choices)  # before the hours that measuring may take
                sensitivity = Sensitivity(method, model, job, open_sites, norms)
                preferred = [{name: sensitivity.choices(name, options) for name, options in choices.items()}]
            elif method.first_only:
                preferred = [choices]
            else:
                first = first_convolution(model, job.input_size)
                preferred = [{name: options for name, options in choices.items() if name != first}, choices]
            if isinstance(costs, LayerTimes):
                return meet_latency(costs, job, sites, preferred, total)
            for some in preferred[:-1]:
                with suppress(InvalidBudget):
                    return allocate(budget, total, some)
            return allocate(budget, total, preferred[-1])


@contextmanager
def _naming_align(align: int) -> Iterator[None]:
    """What is out of reach names the option that may have put it there."""
    try:
        yield
    except InvalidBudget as error:
        if align == 1:
            raise
        raise InvalidBudget(f"{error}; a smaller align than {align} reaches more where layers are narrow") from None


class _Costs(Protocol):
    """What a layer costs in a budget's metric."""

    def dense(self, name: str, site: Site) -> int:
        """As it is."""

    def factored(
        self, name: str, site: Site, candidates: Sequence[tuple[int, ...]], chains: Sequence[Chain]
    ) -> list[int]:
        """At every candidate, as the chain beside it."""


@dataclass(frozen=True)
class _Counted:
    """MACs or parameters, as a chain has them."""

    metric: Metric

    def dense(self, name: str, site: Site) -> int:
        return site.dense_macs if self.metric == "macs" else site.dense_params

    def factored(
        self, name: str, site: Site, candidates: Sequence[tuple[int, ...]], chains: Sequence[Chain]
    ) -> list[int]:
        return [site.macs(chain) if self.metric == "macs" else site.params(chain) for chain in chains]


def _costs(method: LayerFactoring, model: nn.Module, job: Job, budget: Budget) -> _Costs:
    if budget.metric != "latency":
        return _Counted(budget.metric)
    if budget.scope != "all":
        raise InvalidBudget(f"budget {budget}: latency is measured of the whole network: leave scope out")
    if job.timer is None:
        raise InvalidBudget(f"budget {budget}: a latency is measured: give the job a timer, as compress and run do")
    return LayerTimes(method, model, budget, job.timer)


def _choices(
    method: LayerFactoring, model: nn.Module, job: Job, costs: _Costs, name: str, site: Site, norm: str | None
) -> list[Choice]:
    """Dense first, then all candidates; without errors where these are not asked for or not known."""
    target = method.target_geometry(site.geometry)
    shape, groups = target.kernel, target.groups
    candidates = method.aligned_candidates(shape)
    chains = [method.structure_layer(shape, groups, ranks) for ranks in candidates]
    factored = costs.factored(name, site, candidates, chains)
    errors: Sequence[float | None] = [None] * len(candidates)
    if method.options.allocation != "uniform" and not job.speed_only:
        weight = weigh_rows(kernel_of(named_layer(model, name), groups), output_scale(model, norm))
        errors = _mean_errors(method, weight.double().chunk(groups), candidates) or errors
    return [Choice(None, costs.dense(name, site), 0.0), *map(Choice, candidates, factored, errors)]


def _mean_errors(
    method: LayerFactoring, parts: Sequence[Tensor], candidates: Sequence[tuple[int, ...]]
) -> Sequence[float] | None:
    """Squared relative error of a layer at each candidate, from those of its groups; None where it is not known."""
    per_group = [errors for part in parts if (errors := method.errors(part, candidates)) is not None]
    if not per_group:
        return None
    energies = [float(part.square().sum()) for part in parts]
    whole = sum(energies) or 1.0
    return [
        sum(energy * error for energy, error in zip(energies, column, strict=True)) / whole
        for column in zip(*per_group, strict=True)
    ]
