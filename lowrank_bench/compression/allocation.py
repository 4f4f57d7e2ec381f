"""Ranks per layer for a budget: what each layer can cost, what it loses there, and the rule that weighs them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor, nn

from lowrank_bench.compression.budget import Choice, allocate
from lowrank_bench.compression.cost import Cost, Site
from lowrank_bench.compression.sensitivity import Sensitivity
from lowrank_bench.compression.surgery import kernel_of, named_layer
from lowrank_bench.errors import InvalidBudget
from lowrank_bench.trial import Budget

if TYPE_CHECKING:
    from lowrank_bench.compression.method import Job, LayerMethod

LayerRanks = dict[str, tuple[int, ...] | None]


def ranks_for_budget(
    method: LayerMethod,
    model: nn.Module,
    job: Job,
    budget: Budget,
    dense_cost: Cost,
    sites: dict[str, Site],
    open_sites: dict[str, Site],
) -> LayerRanks:
    """Ranks for every open layer within the budget's scope; a linear layer is outside of ``scope="convs"``.

    The first convolution, which reads the image, stays dense wherever the budget can be met without it, as in the
    papers (Garipov et al. 2016; Wang et al. 2021): its error counts for more than its share. Where sensitivities are
    measured it is a layer like any other. Raises InvalidBudget.
    """
    if budget.metric == "latency":
        raise InvalidBudget(
            f"budget {budget}: {method.name} meets budgets in macs or params; measure the speedup that they give"
        )
    convs = {name: site for name, site in sites.items() if site.geometry.kind == "conv2d"}
    if budget.scope == "convs":
        open_sites = {name: site for name, site in open_sites.items() if name in convs}
        total = sum(_dense(site, budget) for site in convs.values())
    else:
        total = dense_cost.macs if budget.metric == "macs" else dense_cost.params
    measured = method.options.allocation == "sensitivity" and not job.speed_only
    sensitivity = Sensitivity(method, model, job) if measured else None
    choices = {n: _choices(method, model, job, budget, n, site, sensitivity) for n, site in open_sites.items()}
    if measured:
        return allocate(budget, total, choices)
    first = next(iter(convs), None)
    try:
        return allocate(budget, total, {name: options for name, options in choices.items() if name != first})
    except InvalidBudget:
        return allocate(budget, total, choices)


def _choices(
    method: LayerMethod,
    model: nn.Module,
    job: Job,
    budget: Budget,
    name: str,
    site: Site,
    sensitivity: Sensitivity | None,
) -> list[Choice]:
    target = method.target_geometry(site.geometry)
    shape, groups, weight = target.kernel, target.groups, kernel_of(named_layer(model, name), target.groups)
    candidates, dense = method.aligned_candidates(shape), _dense(site, budget)
    chains = [method.structure_layer(shape, groups, ranks) for ranks in candidates]
    costs = [site.macs(chain) if budget.metric == "macs" else site.params(chain) for chain in chains]
    errors: Sequence[float | None] = [None] * len(candidates)
    if method.options.allocation != "uniform" and not job.speed_only:
        expected = _mean_errors(method, weight.double().chunk(groups), candidates)
        errors = expected or errors
        if sensitivity is not None:
            losses = sensitivity.losses(name, site, candidates, [cost / dense for cost in costs], expected)
            errors = [-float(np.expm1(-loss)) for loss in losses]  # allocate() adds up -log(1 - error)
    return [Choice(None, dense, 0.0), *map(Choice, candidates, costs, errors)]


def _mean_errors(
    method: LayerMethod, parts: Sequence[Tensor], candidates: Sequence[tuple[int, ...]]
) -> Sequence[float] | None:
    """Squared relative error at each candidate, averaged over the groups of a layer; None where it is not known."""
    per_group = [errors for part in parts if (errors := method.errors(part, candidates)) is not None]
    if not per_group:
        return None
    return [sum(column) / len(column) for column in zip(*per_group, strict=True)]


def _dense(site: Site, budget: Budget) -> int:
    return site.dense_macs if budget.metric == "macs" else site.dense_params
