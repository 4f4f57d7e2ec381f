"""Matrix tools that the closed-form factorisations share: checks, truncated SVD, weighted SVD, errors.

Everything runs in float64, in batches over leading axes, and on meta tensors too (shapes only), where errors are `nan`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lowrank_bench.errors import InvalidRanks, InvalidWeights

TINY = torch.finfo(torch.float64).tiny


def as_float64(tensor: Tensor, name: str = "kernel", axes: int | None = None) -> Tensor:
    """The same values in float64, outside autograd.

    Raises InvalidWeights for a tensor that is empty, complex or of another number of ``axes``, and for NaN or infinite
    entries.
    """
    if tensor.is_complex() or axes not in (None, tensor.dim()):
        wanted = "real numbers" if axes is None else f"real numbers along {axes} axes"
        raise InvalidWeights(f"{name} of {tensor.dtype} and shape {tuple(tensor.shape)}: {wanted} are wanted")
    if tensor.numel() == 0:
        raise InvalidWeights(f"{name} of shape {tuple(tensor.shape)} is empty: there is nothing to decompose")
    tensor = tensor.detach().to(torch.float64)
    if not tensor.is_meta and not bool(torch.isfinite(tensor).all()):
        bad = int((~torch.isfinite(tensor)).sum())
        raise InvalidWeights(
            f"{name} of shape {tuple(tensor.shape)} has {bad} entries that are NaN or infinite: "
            "repair or retrain the layer before decomposing it"
        )
    return tensor


def power_of_two(tensor: Tensor, roots: int = 1) -> float:
    """At most the largest magnitude, and a scale by which nothing is rounded; so is its root of that degree. 1 for
    zeros and meta tensors.
    """
    largest = 0.0 if tensor.is_meta else float(tensor.abs().max())
    return 2.0 ** ((math.frexp(largest)[1] - 1) // roots * roots) if largest else 1.0


def is_whole(number: object) -> bool:
    """Whether that is an integer, numpy's too, and no truth value."""
    return hasattr(number, "__index__") and not isinstance(number, bool)


def check_rank(name: str, rank: int, limit: int) -> None:
    """Raises InvalidRanks, with the valid range, unless it is a whole number and 1 <= rank <= limit."""
    if not is_whole(rank) or not 1 <= rank <= limit:
        raise InvalidRanks(f"{name} is {rank!r}, but must be between 1 and {limit} for this shape, a whole number")


def check_count(name: str, ranks: Sequence[int], count: int, each: str) -> None:
    """Raises InvalidRanks unless these are so many ranks, one for each of what stands in ``each``."""
    if not isinstance(ranks, Sequence) or len(ranks) != count:
        raise InvalidRanks(f"{name} ranks {ranks!r}: give {count}, one for each {each}")


def relative_error(approximation: Tensor, reference: Tensor) -> float:
    """||reference - approximation||_F / ||reference||_F; 0 when both are zero, `nan` on meta tensors."""
    if reference.is_meta:
        return math.nan
    scale = reference.abs().max()  # squares of entries below 1e-160 would underflow
    if scale == 0:
        return 0.0 if not approximation.any() else math.inf
    residual = torch.linalg.vector_norm((reference - approximation) / scale)
    return float(residual / torch.linalg.vector_norm(reference / scale))


def truncated_svd(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Leading singular triplets U (..., m, rank), s (..., rank), Vh (..., rank, n): the best approximation.

    The largest entry of every left vector is positive, so that the factors do not depend on the number of threads.
    Raises InvalidRanks unless 1 <= rank <= min(m, n).
    """
    rows, columns = matrix.shape[-2:]
    check_rank("rank", rank, min(rows, columns))
    if matrix.is_meta:  # torch's own meta kernels take milliseconds, and a budget asks for hundreds of shapes
        batch = matrix.shape[:-2]
        return (
            matrix.new_empty(*batch, rows, rank),
            matrix.new_empty(*batch, rank),
            matrix.new_empty(*batch, rank, columns),
        )
    if rows > columns:
        v, s, uh = _svd_of_wide(matrix.mT, rank)
        u, vh = uh.mT, v.mT
    else:
        u, s, vh = _svd_of_wide(matrix, rank)
    sign = torch.where(u.gather(-2, u.abs().argmax(dim=-2, keepdim=True)) < 0, -1.0, 1.0).to(u.dtype)
    return u * sign, s, vh * sign.mT


def balanced_svd(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Factors U sqrt(s) (..., m, rank) and sqrt(s) Vh (..., rank, n) of the best approximation: both carry the same
    norm into fine-tuning. Raises InvalidRanks as ``truncated_svd`` does.
    """
    u, s, vh = truncated_svd(matrix, rank)
    root = s.sqrt()
    return u * root.unsqueeze(-2), root.unsqueeze(-1) * vh


def weighted_svd(matrix: Tensor, covariance: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Factors L (..., m, rank), R (..., rank, n) that minimise ||(W - L R) Sigma^(1/2)||_F over all of that rank.

    The closed form of Denton et al. 2014's data covariance metric: L holds the leading left singular vectors of
    W Sigma^(1/2), and R = L^T W. Without an inverse, so that Sigma (n, n), positive semi-definite, may be singular.
    At rank min(m, n) the product is W itself, whatever Sigma is. Raises InvalidRanks and InvalidWeights.
    """
    matrix, covariance = as_float64(matrix, "matrix"), as_float64(covariance, "covariance")
    columns = matrix.shape[-1]
    if covariance.shape[-2:] != (columns, columns):
        raise InvalidWeights(
            f"covariance has shape {tuple(covariance.shape)}, but the matrix needs ({columns}, {columns}), its columns"
        )
    # Inside the range of W, a full set of left vectors loses nothing even where a singular Sigma leaves them arbitrary.
    basis, inner = torch.linalg.qr(matrix)
    check_rank("rank", rank, inner.shape[-2])
    # the left singular vectors of W Sigma^(1/2), without the root: Sigma may have thousands of rows, W has few
    _, vectors = torch.linalg.eigh(inner @ covariance @ inner.mT)
    u = vectors[..., -rank:].flip(-1)
    return basis @ u, u.mT @ inner


def _svd_of_wide(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    rows, columns = matrix.shape[-2:]
    if columns <= 2 * rows:
        u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
        return u[..., :rank], s[..., :rank], vh[..., :rank, :]
    q, r = torch.linalg.qr(matrix.mT)  # a QR first makes the SVD of a 512 x 4608 unfolding four times faster
    u, s, vh = torch.linalg.svd(r.mT, full_matrices=False)
    return u[..., :rank], s[..., :rank], vh[..., :rank, :] @ q.mT


def kept_by_energy(singular_values: Tensor, share: float) -> Tensor:
    """Which of the singular values (..., n), largest first, make up the smallest rank that keeps ``share`` of the
    energy, the sum of their squares (..., n), bool.
    """
    energy = singular_values.square().cumsum(-1)
    before = torch.nn.functional.pad(energy[..., :-1], (1, 0))
    return before < share * energy[..., -1:]


def cut_errors(matrices: Sequence[Tensor | None], candidates: Sequence[tuple[int, ...]]) -> list[float]:
    """Squared relative error to expect where each matrix is cut at its rank (None: it is not cut): what the product of
    the shares of energy that they keep leaves.

    Exact for one matrix; for several it lies between the largest tail and the sum of all, as the error does (De
    Lathauwer et al. 2000), and it falls with every rank.
    """
    kept = []
    for matrix in matrices:
        energy = torch.zeros(1) if matrix is None else torch.linalg.svdvals(matrix).square()
        total = energy.sum()
        kept.append([0.0, *(energy.cumsum(0) / total).tolist()] if total > 0 else [1.0])
    shares = ([k[min(r, len(k) - 1)] for k, r in zip(kept, ranks, strict=True)] for ranks in candidates)
    return [max(0.0, 1 - math.prod(share)) for share in shares]
