"""A chain's factors, all moved together towards where a metric of what they miss of a kernel is least nearby."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lowrank_bench.compression.chain import Chain
from lowrank_bench.compression.compose import compose_chain
from lowrank_bench.compression.metric import Target
from lowrank_bench.decomposition.whitening import Whitening

VERSION = 1
"""Raised by hand when a change here would change a trial's result."""

DRAWS, STEPS, ROUNDS = 16, 50, 6
SETTLED = 0.99  # of the squared distance: a round that leaves more than that is the last one
EXACT = 1e-24  # of the kernel's square: nothing but rounding is left to be moved
FLAT = 1e-8  # of the squared distance, what moving every tensor by its own length would gain: a closed form stays


def reconstruct(chain: Chain, target: Target, groups: int) -> Chain:
    """The chain with its factors moved by L-BFGS, in rounds of STEPS steps until one lowers the squared distance by
    less than 1 % or ROUNDS are over, each in coordinates in which the metric is about alike in every direction of every
    factor: as they are, moments of images differ a millionfold, and a thousand steps end further off.

    ``chain`` is the start, mostly the optimum in the Frobenius norm; what comes back is never worse in the metric. Its
    note ``data_error`` is the root of what is left over what no approximation at all would leave, both as differences
    from the target's kernel. With ``sequential`` that is the kernel whose responses come nearest to the dense
    network's, so that what even this one misses of them is not in it.
    """
    whole = float(target.metric(target.kernel))
    left = float(target.metric(target.kernel - compose_chain(chain, groups)))
    generator = torch.Generator().manual_seed(0)
    for _ in range(ROUNDS):
        if left <= EXACT * whole or _slope(chain, left, target, groups) <= FLAT:
            break
        before = left
        chain, left = _round(chain, left, target, groups, generator)
        if left > SETTLED * before:
            break
    return Chain(chain.stages, (chain.notes or {}) | {"data_error": (max(left, 0.0) / (whole or 1.0)) ** 0.5})


def _round(chain: Chain, before: float, target: Target, groups: int, generator: torch.Generator) -> tuple[Chain, float]:
    """The chain after STEPS steps at most from where its squared distance is ``before``, and what that is then."""
    spaces = [Whitening(draws) for draws in _draws(chain, target, groups, generator)]
    tensors = [space.apply(tensor) for space, tensor in zip(spaces, chain.tensors, strict=True)]
    leaves = [tensor.detach().clone(memory_format=torch.contiguous_format).requires_grad_() for tensor in tensors]
    best = before, chain
    optimizer = torch.optim.LBFGS(
        leaves, max_iter=STEPS, history_size=20, line_search_fn="strong_wolfe", tolerance_grad=0, tolerance_change=1e-9
    )

    def loss() -> Tensor:
        nonlocal best
        optimizer.zero_grad()
        moved = _with(chain, [space.undo(leaf) for space, leaf in zip(spaces, leaves, strict=True)])
        left = target.metric(target.kernel - compose_chain(moved, groups))
        value = left / before
        value.backward()
        if (squared := float(left.detach())) < best[0]:
            best = squared, moved.map(lambda tensor: tensor.detach().clone())
        return value

    optimizer.step(loss)
    return best[1], best[0]


def _slope(chain: Chain, left: float, target: Target, groups: int) -> float:
    """The gradient's length times the factor's, summed over the chain's tensors, as a share of the squared distance."""
    leaves = [tensor.detach().double().requires_grad_() for tensor in chain.tensors]
    moved = target.metric(target.kernel - compose_chain(_with(chain, leaves), groups))
    gradients = torch.autograd.grad(moved, leaves)
    return sum(float(g.norm() * leaf.detach().norm()) for g, leaf in zip(gradients, leaves, strict=True)) / left


def _draws(chain: Chain, target: Target, groups: int, generator: torch.Generator) -> Iterator[tuple[Tensor, ...]]:
    """For every tensor of the chain, what moving it along would lead into DRAWS draws of the metric: gradients, whose
    covariance is the Gauss-Newton matrix of the squared distance.
    """
    leaves = [tensor.detach().double().requires_grad_() for tensor in chain.tensors]
    kernel = compose_chain(_with(chain, leaves), groups)
    directions = (target.metric.draw(target.kernel, generator) for _ in range(DRAWS))
    gradients = [torch.autograd.grad(kernel, leaves, direction, retain_graph=True) for direction in directions]
    return zip(*gradients, strict=True)


def _with(chain: Chain, tensors: Sequence[Tensor]) -> Chain:
    values = iter(tensors)
    return chain.map(lambda _: next(values))
