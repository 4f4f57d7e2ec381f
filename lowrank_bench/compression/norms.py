"""The batch norm behind a layer: how much it makes of each output channel, and kernels factored with that in mind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from lowrank_bench.compression.chain import Chain, Factor
from lowrank_bench.compression.cost import Site
from lowrank_bench.compression.factoring import LayerFactoring
from lowrank_bench.compression.folding import scale_outputs
from lowrank_bench.compression.job import Job
from lowrank_bench.compression.metric import Target
from lowrank_bench.compression.passes import alias_of, run_on_zeros
from lowrank_bench.compression.watching import input_of

NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)

LEAST_SCALE = 1e-3
"""Of the largest: a channel that the batch norm silences is not to be given away, as its values are divided again."""


def following_norms(
    model: nn.Module, input_size: tuple[int, ...], names: Iterable[str], by_channel: bool = False
) -> dict[str, str | None]:
    """For each of these layers whose very output a normalisation takes in a forward pass, the name of that; None where
    the network gives the output back. A layer that is called more than once, with another one behind each call, is left
    out; ``by_channel``: so is one whose outputs are not the channels of a batch norm, which are the second axis, as of
    a linear layer of tokens (N, L, F). The model is not touched. Raises InvalidInput as ``count`` does.
    """
    made: list[tuple[str, Any, int]] = []  # held, so that no two have one identity
    taken: list[tuple[str | None, Any, int]] = []
    model = alias_of(model)
    modules = dict(model.named_modules())
    for name in names:
        modules[name].register_forward_hook(
            lambda _layer, _inputs, output, name=name: made.append((name, *_now(output)))
        )
    for name, module in modules.items():
        if isinstance(module, NORMS):
            module.register_forward_pre_hook(
                lambda _norm, inputs, named, name=name: taken.append((name, *_now(input_of(inputs, named)))),
                with_kwargs=True,
            )
    model.register_forward_hook(lambda _model, _inputs, output: taken.append((None, *_now(output))))
    run_on_zeros(model, input_size)
    found: dict[str, set[str | None]] = {}
    for name, output, version in made:
        if by_channel and isinstance(modules[name], nn.Linear) and output.ndim > 2:
            continue
        for norm, tensor, now in taken:
            if tensor is output and version == now:
                found.setdefault(name, set()).add(norm)
    return {name: norms.pop() for name, norms in found.items() if len(norms) == 1}


def _now(value: Any) -> tuple[Any, int]:
    """With the count of the changes in place so far, such as an activation's."""
    return value, value._version if isinstance(value, Tensor) else 0


def weighing_norms(method: LayerFactoring, model: nn.Module, job: Job, sites: Mapping[str, Site]) -> dict[str, str]:
    """Names of the batch norms by which a method weighs the output channels of these layers.

    None where its options say so, where values mean nothing, and for a chain that ties its output channels, into which
    no scale can be folded for free.
    """
    if job.speed_only or method.options.batch_norm == "ignored" or method.options.metric == "mahalanobis":
        return {}
    foldable = [name for name, site in sites.items() if _ends_free(method, site)]
    found = following_norms(model, job.input_size, foldable, by_channel=True)
    return {name: norm for name, norm in found.items() if norm and isinstance(model.get_submodule(norm), _BatchNorm)}


def output_scale(model: nn.Module, norm: str | None) -> Tensor | None:
    """What a batch norm multiplies each channel by in eval mode, |gamma| / sigma, as a share of the largest, in
    float64; a silenced channel has a thousandth. None without a norm, and of one without statistics or that silences
    all.
    """
    if norm is None:
        return None
    module = model.get_submodule(norm)
    assert isinstance(module, _BatchNorm)  # weighing_norms made sure
    if module.running_var is None:
        return None
    scale = (module.running_var.double() + module.eps).rsqrt()
    if module.affine:
        scale = scale * module.weight.detach().double().abs()
    if not torch.isfinite(scale).all() or not scale.max() > 0:
        return None
    return (scale / scale.max()).clamp(min=LEAST_SCALE)


def weigh_rows(kernel: Tensor, scale: Tensor | None) -> Tensor:
    """A kernel (T, S, dh, dw) as it leaves the batch norm behind it."""
    return kernel if scale is None else kernel.double() * scale[:, None, None, None]


def factor_weighed(
    method: LayerFactoring,
    weight: Tensor,
    groups: int,
    ranks: tuple[int, ...],
    place: str,
    target: Target | None = None,
    scale: Tensor | None = None,
) -> Chain:
    """LayerFactoring.factorize_layer, with every output channel's error weighed by its ``scale``."""
    if scale is None:
        return method.factorize_layer(weight, groups, ranks, place, target)
    weighed = None if target is None else replace(target, kernel=weigh_rows(target.kernel, scale))
    return scale_outputs(method.factorize_layer(weigh_rows(weight, scale), groups, ranks, place, weighed), 1 / scale)


def _ends_free(method: LayerFactoring, site: Site) -> bool:
    geometry = method.target_geometry(site.geometry)
    chain = method.structure_layer(geometry.kernel, geometry.groups, tuple(method.candidates(geometry.kernel)[0]))
    return isinstance(chain.stages[chain.last], Factor)
