"""Trains over split channels: TT-conv for kernels (Garipov et al. 2016), TT-matrix for linear layers (Novikov 2015).

A core of in-mode c and out-mode s is (c, s, r_i, r_i+1). Channels split row-major: the first mode is the slowest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from torch import Tensor

from lowrank_bench.decomposition.tensor_train import tt_svd
from lowrank_bench.errors import InvalidInput, InvalidOptions, InvalidRanks


def tt_conv(kernel: Tensor, in_modes: Sequence[int], out_modes: Sequence[int], ranks: Sequence[int]) -> list[Tensor]:
    """Garipov's TT-conv: K[x, y, c, s] = G0[x, y] G1[c1, s1] ... GD[cD, sD] for a kernel (T, S, dh, dw), by TT-SVD.

    in_modes c1..cD with product S, out_modes s1..sD with product T, ranks r1..rD -> G0 (dh, dw, r1), then
    Gi (c_i, s_i, r_i, r_i+1) with r_D+1 = 1. Raises InvalidOptions, InvalidRanks and InvalidWeights.
    """
    t, s, dh, dw = kernel.shape
    _check_modes(in_modes, out_modes, s, t)
    pairs = interleave_channels(kernel.permute(2, 3, 1, 0), in_modes, out_modes)
    first, *rest = tt_svd(pairs.flatten(0, 1), ranks)
    return [first.reshape(dh, dw, -1), *_split_pairs(rest, in_modes, out_modes)]


def tt_conv_shapes(
    in_modes: Sequence[int], out_modes: Sequence[int], kernel_size: tuple[int, int], ranks: Sequence[int]
) -> list[tuple[int, ...]]:
    """Shapes of TT-conv cores, for counting and for training from scratch. Raises InvalidOptions and InvalidRanks.

    The ranks may exceed what TT-SVD can fill, as the published ones do: r1 = 22 where a 3x3 kernel has 9 taps.
    """
    return [(*kernel_size, *ranks[:1]), *_shapes(in_modes, out_modes, ranks, [*ranks, 1])]


def tt_matrix(weight: Tensor, in_modes: Sequence[int], out_modes: Sequence[int], ranks: Sequence[int]) -> list[Tensor]:
    """TT-matrix of a linear layer's weight (T, S): W[t, s] = G1[n1, m1] ... GD[nD, mD], by TT-SVD.

    in_modes n1..nD with product S, out_modes m1..mD with product T, ranks r1..r_D-1 -> cores (n_i, m_i, r_i-1, r_i),
    r_0 = r_D = 1. Raises InvalidOptions, InvalidRanks and InvalidWeights.
    """
    t, s = weight.shape
    _check_modes(in_modes, out_modes, s, t)
    pairs = interleave_channels(weight.T, in_modes, out_modes)
    return _split_pairs(tt_svd(pairs, ranks), in_modes, out_modes)


def tt_matrix_shapes(in_modes: Sequence[int], out_modes: Sequence[int], ranks: Sequence[int]) -> list[tuple[int, ...]]:
    """Shapes of TT-matrix cores, for counting and for training from scratch. Raises InvalidOptions and InvalidRanks."""
    return _shapes(in_modes, out_modes, ranks, [1, *ranks, 1])


def pair_dims(in_modes: Sequence[int], out_modes: Sequence[int]) -> tuple[int, ...]:
    """The sides c_i s_i of the tensor that TT-SVD sees; TT-conv has dh dw before them."""
    return tuple(c * s for c, s in zip(in_modes, out_modes, strict=True))


def interleave_channels(tensor: Tensor, in_modes: Sequence[int], out_modes: Sequence[int]) -> Tensor:
    """(..., S, T) -> (..., c1 s1, ..., cD sD): the tensor that TT-SVD sees, whose sides are `pair_dims`."""
    lead, count = tensor.ndim - 2, len(in_modes)
    order = [*range(lead), *(lead + axis for i in range(count) for axis in (i, i + count))]
    split = tensor.reshape(*tensor.shape[:lead], *in_modes, *out_modes).permute(order)
    return split.reshape(*tensor.shape[:lead], *pair_dims(in_modes, out_modes))


def channel_modes(channels: int, count: int) -> tuple[int, ...]:
    """`count` factors of a number of channels, as equal as its divisors allow, the largest in the middle.

    64 -> (4, 4, 4) and 128 -> (4, 8, 4), the modes of Garipov et al. 2016; a prime leaves ones: 3 -> (1, 3, 1).
    Raises InvalidInput.
    """
    if channels < 1 or count < 1:
        raise InvalidInput(f"cannot split {channels} channels into {count} modes: both must be at least 1")
    modes = min(_factorizations(channels, count, 1), key=sum)
    return modes[0::2] + modes[1::2][::-1]


def _factorizations(number: int, count: int, least: int) -> Iterator[tuple[int, ...]]:
    """All non-decreasing factors >= least of a number."""
    if count == 1:
        yield (number,)
        return
    factor = least
    while factor**count <= number:
        if number % factor == 0:
            for rest in _factorizations(number // factor, count - 1, factor):
                yield (factor, *rest)
        factor += 1


def _split_pairs(cores: Sequence[Tensor], in_modes: Sequence[int], out_modes: Sequence[int]) -> list[Tensor]:
    """(r, c s, q) -> (c, s, r, q), core by core."""
    return [
        core.unflatten(1, (c, s)).permute(1, 2, 0, 3) for core, c, s in zip(cores, in_modes, out_modes, strict=True)
    ]


def _shapes(
    in_modes: Sequence[int], out_modes: Sequence[int], ranks: Sequence[int], bonds: Sequence[int]
) -> list[tuple[int, ...]]:
    _check_modes(in_modes, out_modes, math.prod(in_modes), math.prod(out_modes))
    if len(bonds) != len(in_modes) + 1:
        needed = len(ranks) + len(in_modes) + 1 - len(bonds)
        raise InvalidRanks(f"{len(ranks)} TT ranks {tuple(ranks)} for {len(in_modes)} channel modes: give {needed}")
    return [(c, s, r, q) for c, s, (r, q) in zip(in_modes, out_modes, pairwise(bonds), strict=True)]


def _check_modes(in_modes: Sequence[int], out_modes: Sequence[int], inputs: int, outputs: int) -> None:
    if len(in_modes) != len(out_modes):
        raise InvalidOptions(f"in_modes {tuple(in_modes)} and out_modes {tuple(out_modes)} must be of the same length")
    for name, modes, channels in (("in_modes", in_modes, inputs), ("out_modes", out_modes, outputs)):
        if math.prod(modes) != channels:
            raise InvalidOptions(
                f"{name} {tuple(modes)} have the product {math.prod(modes)}, but must have {channels}, the channels"
            )
