"""Inside the blocks of a bi-clustered kernel (Denton et al. 2014): outer products, double SVD, weighted metrics.

A block is (..., t, s, dh, dw): its share of the output and input channels, after any axes that count blocks.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lowrank_bench.decomposition.balance import balance_factors, balance_terms
from lowrank_bench.decomposition.matrix import TINY, as_float64, check_rank, relative_error, truncated_svd, weighted_svd

MAX_SWEEPS = 64  # of the paper
CHUNK = 1 << 16  # entries of the blocks that are worked on together: what stays in a core's cache
INNER = 3  # updates of input and output for one of the taps, which alone read the whole residual


class OuterProducts(NamedTuple):
    """Per block: input (..., K, s), taps (..., K, dh, dw), output (..., t, K); the error is over all blocks."""

    input: Tensor
    taps: Tensor
    output: Tensor
    error: float


class DoubleSVD(NamedTuple):
    """Per block: input (..., K1, s), core (..., K2, K1, dh, dw), output (..., t, K2); the error is over all blocks."""

    input: Tensor
    core: Tensor
    output: Tensor
    error: float


def split_blocks(kernel: Tensor, in_clusters: int, out_clusters: int) -> Tensor:
    """Blocks (H, G, T/H, S/G, dh, dw) of a kernel (T, S, dh, dw) with G in- and H out-clusters, neighbours in order."""
    t, s, dh, dw = kernel.shape
    return kernel.reshape(out_clusters, t // out_clusters, in_clusters, s // in_clusters, dh, dw).transpose(1, 2)


def outer_products(blocks: Tensor, terms: int, *, tol: float = 1e-4) -> OuterProducts:
    """K = `terms` greedy rank-1 terms per block, each by alternating power updates on the residual of those before.

    As in the paper, at most 64 sweeps a term; they end when one raises the term's norm by less than the share `tol`.
    They start at the leading tap vector and the largest row, not at the paper's means, which may vanish.
    K is at most the product of the two smaller of s, t and dh dw, where unit vectors are exact. Every term's norm is
    spread evenly. Raises InvalidRanks and InvalidWeights.
    """
    blocks = as_float64(blocks, "blocks")
    dh, dw = blocks.shape[-2:]
    tensor = blocks.flatten(-2)  # (..., t, s, d)
    small = sorted(tensor.shape[-3:])
    check_rank("outer-product terms", terms, small[0] * small[1])
    if terms == small[0] * small[1]:
        factors = _unit_terms(tensor)
    elif tensor.is_meta:
        factors = [tensor.new_empty(*tensor.shape[:-3], size, terms) for size in tensor.shape[-3:]]
    else:
        lead, flat = tensor.shape[:-3], tensor.reshape(-1, *tensor.shape[-3:])
        chunks = flat.split(max(1, CHUNK // flat[0].numel()))
        parts = zip(*(_greedy_terms(chunk, terms, tol) for chunk in chunks), strict=True)
        factors = [torch.cat(part).reshape(*lead, -1, terms) for part in parts]
    output, input_, taps = balance_terms(factors)
    error = relative_error(torch.einsum("...tk,...sk,...dk->...tsd", output, input_, taps), tensor)
    return OuterProducts(input_.mT, taps.mT.unflatten(-1, (dh, dw)), output, error)


def double_svd(blocks: Tensor, in_rank: int, out_rank: int, covariance: Tensor | None = None) -> DoubleSVD:
    """Each block's inputs truncated to K1 = in_rank maps, then its outputs to K2 = out_rank, by one SVD each.

    covariance (..., s dh dw, s dh dw) of a block's input patches, in the order (s, dh, dw), makes the truncations lower
    the error of the responses, ||(W - What) Sigma^(1/2)||_F, not that of the weights: of the inputs with the covariance
    of maps (summed over taps), of the outputs at the exact minimum that the inputs leave. Exact at K1 = s and K2 = t.
    The norm is spread evenly over the three factors. Raises InvalidRanks and InvalidWeights.
    """
    blocks = as_float64(blocks, "blocks")
    t, s, dh, dw = blocks.shape[-4:]
    lead, taps = blocks.shape[:-4], dh * dw
    check_rank("the block's input rank K1", in_rank, min(s, t * taps))
    check_rank("the block's output rank K2", out_rank, min(t, in_rank * taps))
    by_input = blocks.flatten(-2).mT.reshape(*lead, t * taps, s)
    if covariance is None:
        u, s_in, input_ = truncated_svd(by_input, in_rank)
        wide = u * s_in.unsqueeze(-2)  # orthonormal input_, so that the second cut is weighted as the kernel is
    else:
        sigma = as_float64(covariance, "covariance").unflatten(-1, (s, taps)).unflatten(-3, (s, taps))
        wide, input_ = weighted_svd(by_input, torch.einsum("...axbx->...ab", sigma), in_rank)
    by_output = wide.reshape(*lead, t, taps, in_rank).mT
    if covariance is None:
        output, s_out, vh = truncated_svd(by_output.flatten(-2), out_rank)
        core = s_out.unsqueeze(-1) * vh
    else:
        with_maps = torch.einsum("...axby,...lb->...axly", sigma, input_).flatten(-2)
        of_maps = torch.einsum("...ka,...axm->...kxm", input_, with_maps).flatten(-3, -2)
        # the first cut weighs the sum over taps: what the maps, tap by tap, tell of its residual is added to them
        residual = (blocks.flatten(-2) - torch.einsum("...tkx,...ka->...tax", by_output, input_)).flatten(-2)
        told = residual @ with_maps.flatten(-3, -2) @ torch.linalg.pinv(of_maps, hermitian=True)
        output, core = weighted_svd(by_output.flatten(-2) + told, of_maps, out_rank)
    input_, core, output = balance_factors([input_, core.reshape(*lead, out_rank, in_rank, dh, dw), output])
    rebuilt = torch.einsum("...tp,...pqij,...qs->...tsij", output, core, input_)
    return DoubleSVD(input_, core, output, relative_error(rebuilt, blocks))


def _greedy_terms(tensor: Tensor, terms: int, tol: float) -> list[Tensor]:
    """Output (..., t, K), input (..., s, K) and taps (..., d, K)."""
    t, s = tensor.shape[-3:-1]
    scale = tensor.abs().max().clamp_min(TINY)
    residual = tensor.flatten(-3, -2).mT / scale  # (..., d, t s): both products of a sweep read it as it lies
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for _ in range(terms):
        c = torch.linalg.eigh(residual @ residual.mT).eigenvectors[..., -1:]
        slices = (c.mT @ residual).unflatten(-1, (t, s)).squeeze(-3)
        largest = torch.linalg.vector_norm(slices, dim=-1, keepdim=True).argmax(dim=-2, keepdim=True)
        b = _unit(slices.take_along_dim(largest, dim=-2).mT)
        norm = torch.zeros(())
        for _ in range(MAX_SWEEPS):
            slices = (c.mT @ residual).unflatten(-1, (t, s)).squeeze(-3)
            for _ in range(INNER):
                a = _unit(slices @ b)
                b = _unit(slices.mT @ a)
            c = residual @ (a * b.mT).flatten(-2).unsqueeze(-1)
            before, norm = norm, torch.linalg.vector_norm(c, dim=-2, keepdim=True)
            c = _unit(c)
            if bool((norm - before <= tol * norm).all()):
                break
        a = a * norm
        residual = residual - c * (a * b.mT).flatten(-2).unsqueeze(-2)
        found.append((a, b, c))
    output, input_, taps = (torch.cat(vectors, dim=-1) for vectors in zip(*found, strict=True))
    return [output * scale, input_, taps]


def _unit_terms(tensor: Tensor) -> list[Tensor]:
    """The fibres along the largest mode, one term for each, with unit vectors of the other two modes."""
    long, second, third = sorted((-3, -2, -1), key=lambda axis: -tensor.shape[axis])
    n, m = tensor.shape[second], tensor.shape[third]
    factors = {
        long: tensor.movedim((long, second, third), (-3, -2, -1)).flatten(-2),
        second: torch.eye(n).to(tensor).repeat_interleave(m, dim=1).expand(*tensor.shape[:-3], n, n * m),
        third: torch.eye(m).to(tensor).repeat(1, n).expand(*tensor.shape[:-3], m, n * m),
    }
    return [factors[axis] for axis in (-3, -2, -1)]


def _unit(vector: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(vector, dim=-2, keepdim=True)
    return vector / norm.clamp_min(TINY)
