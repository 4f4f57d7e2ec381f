"""In which norm a factored kernel is to be close to the dense one, beside the Frobenius norm that closed forms have."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from lowrank_bench.compression.chain import Chain
from lowrank_bench.compression.compose import compose_chain

FLOOR = 1e-3


class Metric(Protocol):
    """A norm of differences of kernels, (T, S / groups, dh, dw)."""

    def __call__(self, difference: Tensor) -> Tensor:
        """Its square."""
        ...

    def draw(self, kernel: Tensor, generator: torch.Generator) -> Tensor:
        """A random tensor of a kernel's shape whose inner products with differences have, on average, their squared
        norms as squares.
        """
        ...


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


@dataclass(frozen=True)
class ResponseMetric:
    """||D Sigma^(1/2)||: what the layer's responses differ by on average (Denton et al. 2014, section 3.1; the data
    reconstruction of Jaderberg et al. 2014, eq. 7). ``moments``: Sigma, (groups, n, n).
    """

    moments: Tensor

    def __call__(self, difference: Tensor) -> Tensor:
        """tr(D Sigma D^T)."""
        rows = difference.reshape(len(self.moments), -1, self.moments.shape[-1])
        product = rows.detach() @ self.moments  # they are symmetric: this one product is half of the gradient, too
        return 2 * (rows * product).sum() - (rows.detach() * product).sum()

    def draw(self, kernel: Tensor, generator: torch.Generator) -> Tensor:
        """Rows of covariance Sigma, but for a thousandth of its mean, which makes it definite in any rounding."""
        shape = kernel.reshape(len(self.moments), -1, self.moments.shape[-1]).shape
        noise = torch.randn(shape, dtype=torch.float64, generator=generator)
        return (noise @ self._root.mT).reshape(kernel.shape)

    @cached_property
    def _root(self) -> Tensor:
        mean = self.moments.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None]
        root: Tensor = torch.linalg.cholesky(self.moments + FLOOR * mean * torch.eye(self.moments.shape[-1]))
        return root


@dataclass(frozen=True)
class WeightedMetric:
    """||alpha o D||, a weight for every entry, of the kernel's shape (Denton et al. 2014's Mahalanobis metric)."""

    importance: Tensor

    def __call__(self, difference: Tensor) -> Tensor:
        """The sum of (alpha D)^2."""
        return (self.importance * difference).square().sum()

    def draw(self, kernel: Tensor, generator: torch.Generator) -> Tensor:
        """Entries of deviation alpha."""
        return self.importance * torch.randn(kernel.shape, dtype=torch.float64, generator=generator)
