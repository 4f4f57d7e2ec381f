"""Compress a model layer by layer: choose ranks, factor, swap, and write down what was done and what was not."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from lowrank_bench.compression.allocation import ranks_for_budget
from lowrank_bench.compression.chain import Chain
from lowrank_bench.compression.choices import LayerRanks
from lowrank_bench.compression.compose import chain_error
from lowrank_bench.compression.cost import Site, count, trace
from lowrank_bench.compression.drawing import draw_factored
from lowrank_bench.compression.factoring import LayerFactoring
from lowrank_bench.compression.geometry import build, refusal
from lowrank_bench.compression.job import Job
from lowrank_bench.compression.means import centre_norm, centred_bias
from lowrank_bench.compression.metric import Target
from lowrank_bench.compression.model import Compressed
from lowrank_bench.compression.modules import Factored
from lowrank_bench.compression.norms import factor_weighed, output_scale, weighing_norms
from lowrank_bench.compression.passes import called, copy_of, first_convolution
from lowrank_bench.compression.plan import LayerPlan, Plan, describe_stage
from lowrank_bench.compression.ranks import resolve_ranks
from lowrank_bench.compression.surgery import check_finite, kernel_of, named_layer, swap, tied_layers
from lowrank_bench.compression.targets import Targets
from lowrank_bench.errors import InvalidInput, UnsupportedLayer

VERSION = 1
"""Raised by hand when a change here, or in what this calls, would change a trial's result."""


def compress_layers(method: LayerFactoring, model: nn.Module, job: Job, *, draw: bool = False) -> Compressed:
    """A copy of the model in which every layer that got ranks is factored; the others carry a reason. See
    LayerMethod.compress. ``draw``: their values are random instead, see draw_layer; the ranks are the same. Raises
    InvalidWeights, naming the layer, where one that could be factored holds NaN or infinity.
    """
    sites = trace(model, job.input_size)
    dense_cost = count(model, job.input_size)
    skipped = untouched(model, sites)
    skipped |= {name: reason for name, site in sites.items() if (reason := method.refuse(site.geometry))}
    if method.first_only:
        first = first_convolution(model, job.input_size)
        not_first = f"{method.name} with these options is for the convolution that reads the image"
        skipped |= {name: not_first for name in sites if name not in skipped and name != first}
    skipped |= {name: reason for name, reason in tied_layers(model).items() if name in sites}
    open_sites = {name: site for name, site in sites.items() if name not in skipped}
    if not job.speed_only:
        for name in open_sites:
            check_finite(named_layer(model, name).weight, f"layer {name!r}")
    norms = weighing_norms(method, model, job, open_sites)
    if job.budget is not None:
        ranks = ranks_for_budget(method, model, job, job.budget, dense_cost, sites, open_sites, norms)
        why_dense = f"the budget {job.budget} is met with it dense, or no factorisation of it is cheaper"
    else:
        ranks, why_dense = (
            _given_ranks(method, model, job, open_sites, skipped),
            "not named in ranks, or its chain would not be cheaper",
        )
    compressed = copy_of(model)
    geometries = {n: method.target_geometry(s.geometry) for n, s in open_sites.items() if ranks.get(n)}
    targets = None if draw or job.speed_only else Targets(method.options, model, job, geometries)
    layers: dict[str, LayerPlan] = {}
    with torch.random.fork_rng(devices=[], enabled=job.speed_only):
        if job.speed_only:
            torch.manual_seed(method.seed)
        for name, site in open_sites.items():
            if (layer_ranks := ranks.get(name)) is None:
                skipped.setdefault(name, why_dense)
            elif targets is None:
                layers[name] = draw_layer(method, compressed, name, site, layer_ranks)
            else:
                target = targets.of(name, compressed)
                layers[name] = factor_layer(method, compressed, name, site, layer_ranks, target, norms.get(name))
    _check_called(compressed, job.input_size, layers)
    plan = Plan(
        method=method.name,
        version=method.version,
        options=method.options.model_dump(mode="json"),
        layers=layers,
        skipped=skipped,
    )
    return Compressed(compressed, plan, count(compressed, job.input_size), dense_cost)


def factor_layer(
    method: LayerFactoring,
    model: nn.Module,
    name: str,
    site: Site,
    ranks: tuple[int, ...],
    target: Target | None = None,
    norm: str | None = None,
) -> LayerPlan:
    """Factor the kernel that a layer holds now, put the chain in its place, and return its entry of the plan.

    ``target``: what the chain is to come close to; None: that kernel in the Frobenius norm. ``norm``: the batch norm
    that weighs its output channels.
    """
    layer, geometry = named_layer(model, name), method.target_geometry(site.geometry)
    weight = kernel_of(layer, geometry.groups)
    scale = output_scale(model, norm)
    chain = factor_weighed(method, weight, geometry.groups, ranks, f"layer {name!r}", target, scale)
    bias = centred_bias(layer.bias, target, chain, geometry.groups)
    centre_norm(model, target, chain, geometry.groups)
    swap(model, name, build(chain, geometry, bias, layer.weight.dtype))
    return planned(site, chain, ranks, chain_error(weight, chain, geometry.groups), geometry != site.geometry)


def draw_layer(method: LayerFactoring, model: nn.Module, name: str, site: Site, ranks: tuple[int, ...]) -> LayerPlan:
    """The same with random values and a zero bias, where training from scratch starts: the plan tells no error."""
    geometry = method.target_geometry(site.geometry)
    chain, factored = draw_factored(method, named_layer(model, name), geometry, ranks)
    swap(model, name, factored)
    return planned(site, chain, ranks, None, geometry != site.geometry)


def untouched(model: nn.Module, sites: dict[str, Site]) -> dict[str, str]:
    """Convolutions and linear layers that no method can take: name -> reason."""
    layers = {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, _ConvNd | nn.Linear) and name not in sites
    }
    out_of_reach = "never called in a forward pass, or other code there reads its weight, its bias or its sizes too"
    return {name: refusal(layer) or out_of_reach for name, layer in layers.items()}


def _check_called(model: nn.Module, input_size: tuple[int, int, int], names: Collection[str]) -> None:
    if idle := set(names) - set(called(model, input_size, (Factored,)) if names else ()):
        raise UnsupportedLayer(
            f"layer {min(idle)!r} is not called as the submodule that it is, so that factors in its place would never "
            "run: hold such layers in nn.ModuleList or nn.ModuleDict, not in a list or a dictionary"
        )


def planned(site: Site, chain: Chain, ranks: tuple[int, ...], error: float | None, ungrouped: bool) -> LayerPlan:
    """The plan's entry of a factored layer."""
    return LayerPlan(
        ranks=ranks,
        stages=tuple(describe_stage(stage) for stage in chain.stages),
        ungrouped=ungrouped,
        error=error,
        params=site.params(chain),
        macs=site.macs(chain),
        dense_params=site.dense_params,
        dense_macs=site.dense_macs,
        notes=chain.notes or {},
    )


def _given_ranks(
    method: LayerFactoring, model: nn.Module, job: Job, sites: dict[str, Site], skipped: dict[str, str]
) -> LayerRanks:
    """Ranks by name, or by one rule for all; a rule that reads ranks off the weights leaves a layer dense where its
    chain would have more MACs, or as many and no fewer parameters.
    """
    if job.ranks is None:
        raise InvalidInput(f"{method.name} needs a budget or ranks: e.g. budget=Budget(macs=4) or ranks='evbmf'")
    rules = job.ranks if isinstance(job.ranks, dict) else dict.fromkeys(sites, job.ranks)
    chosen: LayerRanks = {}
    for name, rule in rules.items():
        layer = named_layer(model, name)
        if name not in sites:
            raise UnsupportedLayer(f"layer {name!r}: {skipped[name]}")
        site, target = sites[name], method.target_geometry(sites[name].geometry)
        ranks = resolve_ranks(method, kernel_of(layer, target.groups), target.groups, rule, f"layer {name!r}")
        if ranks is None:
            skipped[name] = f"{rule}: rank 0, nothing in this kernel stands out from noise"
        elif isinstance(rule, str) and rule != "full":
            chain = method.structure_layer(target.kernel, target.groups, ranks)
            if (site.macs(chain), site.params(chain)) >= (site.dense_macs, site.dense_params):
                skipped[name] = f"{rule}: ranks {ranks} would not be cheaper than dense"
                ranks = None
        chosen[name] = ranks
    return chosen
