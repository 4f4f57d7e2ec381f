"""Even norms over the factors of a product: uneven ones make gradients differ by orders of magnitude in fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lowrank_bench.decomposition.matrix import TINY


def balance_terms(factors: Sequence[Tensor]) -> list[Tensor]:
    """Factors (..., n_i, R) of R rank-1 terms, every term's norm spread evenly; a zero term becomes zero in all."""
    norms = torch.stack([torch.linalg.vector_norm(factor, dim=-2, keepdim=True) for factor in factors])
    mean = norms.pow(1 / len(factors)).prod(dim=0)
    return [factor * (mean / norm.clamp_min(TINY)) for factor, norm in zip(factors, norms, strict=True)]


def balance_factors(factors: Sequence[Tensor]) -> list[Tensor]:
    """Factors of a multilinear product, scaled to equal Frobenius norms; all become zero if one is."""
    norms = [torch.linalg.vector_norm(factor) for factor in factors]
    mean = torch.stack(norms).pow(1 / len(norms)).prod()
    return [factor * (mean / norm.clamp_min(TINY)) for factor, norm in zip(factors, norms, strict=True)]
