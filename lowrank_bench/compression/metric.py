"""In which norm a factored kernel is to be close to the dense one, beside the Frobenius norm that closed forms have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lowrank_bench.compression.chain import Chain, with_tensors
from lowrank_bench.compression.compose import compose_chain

Metric = Callable[[Tensor], Tensor]
"""Squared norm of a difference of kernels, (T, S / groups, dh, dw)."""

MAX_ITER = 100


@dataclass(frozen=True)
class Means:
    """What a metric about the mean leaves to be put right. ``response``: the dense layer's mean response without its
    bias, (T,); ``patch``: the mean patch that reaches the layer now, (groups, S dh dw); ``norm``: the batch norm that
    takes the shift, None for the layer's own bias.
    """

    response: Tensor
    patch: Tensor
    norm: str | None

    def shift(self, chain: Chain, groups: int) -> Tensor:
        """By what a chain's mean response falls short of the dense layer's, (T,)."""
        rows = compose_chain(chain, groups).double().reshape(len(self.patch), -1, self.patch.shape[-1])
        return self.response - (rows @ self.patch[..., None]).flatten()


@dataclass(frozen=True)
class Target:
    """What a layer's chain is to approximate: a kernel (T, S / groups, dh, dw), in a metric.

    ``statistics``: second moments of the input patches per group, (groups, S dh dw, S dh dw), or what stands for their
    diagonals, (groups, S dh dw), where the metric is made of those: methods with a closed form start from it.
    ``means``: what is to become of their mean, where they are moments about it.
    """

    kernel: Tensor
    metric: Metric
    statistics: Tensor | None = None
    means: Means | None = None


def response_metric(moments: Tensor) -> Metric:
    """||D Sigma^(1/2)||^2: what the layer's responses differ by on average (Denton et al. 2014, section 3.1; the data
    reconstruction of Jaderberg et al. 2014, eq. 7). ``moments``: (groups, n, n).
    """

    def squared_norm(difference: Tensor) -> Tensor:
        rows = difference.reshape(len(moments), -1, moments.shape[-1])
        product = rows.detach() @ moments  # moments are symmetric: this one product is half of the gradient, too
        return 2 * (rows * product).sum() - (rows.detach() * product).sum()

    return squared_norm


def weighted_metric(importance: Tensor) -> Metric:
    """||alpha o D||^2, a weight for every entry (Denton et al. 2014's Mahalanobis metric)."""
    return lambda difference: (importance * difference).square().sum()


def reconstruct(chain: Chain, target: Target, groups: int) -> Chain:
    """The chain with all its factors moved together, by L-BFGS, towards where the metric of W - W^ is least nearby: at
    most MAX_ITER steps, with which moments of a large condition number leave methods of many factors, CP first, some
    way off.

    ``chain`` is the start, mostly the optimum in the Frobenius norm; what comes back is never worse in the metric. Its
    note ``data_error`` is the root of what is left over what no approximation at all would leave, both as differences
    from the target's kernel. With ``sequential`` that is the kernel whose responses come nearest to the dense
    network's, so that what even this one misses of them is not in it.
    """
    scale = float(target.metric(target.kernel))
    leaves: list[Tensor] = []

    def free(tensor: Tensor) -> Tensor:
        copied = tensor.detach().double().clone(memory_format=torch.contiguous_format)
        leaves.append(copied.requires_grad_())
        return leaves[-1]

    stages = [with_tensors(stage, free) for stage in chain.stages]
    best: tuple[float, list[Tensor]] = (float("inf"), [])
    optimizer = torch.optim.LBFGS(leaves, max_iter=MAX_ITER, history_size=20, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        nonlocal best
        optimizer.zero_grad()
        value = target.metric(target.kernel - compose_chain(Chain(stages), groups)) / (scale or 1.0)
        value.backward()
        if (left := float(value.detach())) < best[0]:
            best = left, [leaf.detach().clone() for leaf in leaves]
        return value

    optimizer.step(loss)
    values = iter(best[1])
    notes = (chain.notes or {}) | {"data_error": max(best[0], 0.0) ** 0.5}
    return Chain([with_tensors(stage, lambda _: next(values)) for stage in chain.stages], notes)
