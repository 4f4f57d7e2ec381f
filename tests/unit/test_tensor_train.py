"""Tensor trains: the bounds of TT-SVD, the trains of kernels and matrices, and Garipov's published counts."""

import math

import pytest
import torch
from torch.linalg import svdvals, vector_norm
from torch.nn.functional import conv2d

from lowrank_bench.decomposition.matrix import relative_error, truncated_svd
from lowrank_bench.decomposition.tensor_train import tt_full_ranks, tt_kernel, tt_svd
from lowrank_bench.decomposition.tt_matrix import (
    channel_modes,
    pair_dims,
    tt_conv,
    tt_conv_shapes,
    tt_matrix,
    tt_matrix_shapes,
)
from lowrank_bench.errors import InvalidInput, InvalidOptions, InvalidRanks, InvalidWeights


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def tt_tensor(cores):
    """The tensor that a train stands for, by its definition: the product of its cores' slices."""
    result = cores[0]
    for core in cores[1:]:
        result = torch.tensordot(result, core, dims=1)
    return result.squeeze(0).squeeze(-1)


def channels(cores):
    """Cores (c_i, s_i, r, q) contracted over their ranks: (r_1, S, T) for the first core's rank r_1."""
    ins, outs, bonds = ([chr(ord(start) + i) for i in range(len(cores) + 1)] for start in "aAp")
    terms = [f"{ins[i]}{outs[i]}{bonds[i]}{bonds[i + 1]}" for i in range(len(cores))]
    n = len(cores)
    result = "".join([bonds[0], *ins[:n], *outs[:n], bonds[n]])
    return torch.einsum(f"{','.join(terms)}->{result}", *cores).squeeze(-1).flatten(1, n).flatten(2)


def tt_conv_kernel(cores):
    """The kernel (T, S, dh, dw) that the cores of tt_conv stand for."""
    return torch.einsum("hwr,rst->tshw", cores[0], channels(cores[1:]))


def tt_matrix_weight(cores):
    """The weight (T, S) that the cores of tt_matrix stand for."""
    return channels(cores)[0].T


def tail(tensor, cut, rank):
    return svdvals(tensor.flatten(0, cut).flatten(1))[rank:].square().sum().sqrt()


@pytest.mark.parametrize("dims", [(4, 5, 6), (3, 2, 2, 5), (7, 3), (2, 1, 3)])
def test_full_ranks_are_lossless_and_no_cut_needs_more(dims):
    tensor, full = normal(*dims), tt_full_ranks(dims)
    assert relative_error(tt_tensor(tt_svd(tensor, full)), tensor) < 1e-12
    for cut, rank in enumerate(full):
        assert torch.linalg.matrix_rank(tensor.flatten(0, cut).flatten(1)) == rank


@pytest.mark.parametrize("ranks", [(1, 1, 1), (2, 5, 3), (4, 8, 2)])
def test_the_error_lies_between_the_largest_tail_and_the_sum_of_tails(ranks):
    tensor = normal(4, 5, 6, 3)
    error = vector_norm(tensor - tt_tensor(tt_svd(tensor, ranks)))
    tails = torch.stack([tail(tensor, cut, rank) for cut, rank in enumerate(ranks)])
    assert tails.max() <= error * (1 + 1e-12)
    assert error <= vector_norm(tails) * (1 + 1e-12)


def test_the_squared_error_is_the_sum_of_what_each_truncation_loses():
    tensor, ranks = normal(4, 5, 6), (3, 4)
    _, s, vh = truncated_svd(tensor.flatten(1), 3)
    rest = (s.unsqueeze(1) * vh).reshape(15, 6)
    lost = tail(tensor, 0, 3).square() + svdvals(rest)[4:].square().sum()
    error = vector_norm(tensor - tt_tensor(tt_svd(tensor, ranks)))
    torch.testing.assert_close(error, lost.sqrt())


def test_planted_trains_are_recovered():
    train = [normal(1, 4, 2), normal(2, 5, 3, seed=1), normal(3, 6, 1, seed=2)]
    tensor = tt_tensor(train)
    assert relative_error(tt_tensor(tt_svd(tensor, (2, 3))), tensor) < 1e-12


def test_cores_have_equal_norms():
    norms = [vector_norm(core) for core in tt_svd(normal(4, 5, 6), (3, 4))]
    torch.testing.assert_close(norms, 3 * [norms[0]])


@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (4, 5, 2, 3), (3, 1, 1, 1)])
def test_the_naive_train_of_a_kernel_is_a_chain_of_convolutions(shape):
    t, s, dh, dw = shape
    kernel, x = normal(*shape), normal(2, s, 8, 8, seed=1)
    y = x
    for factor in tt_kernel(kernel, tt_full_ranks((s, dh, dw, t))):
        y = conv2d(y, factor)
    torch.testing.assert_close(y, conv2d(x, kernel))


def test_the_naive_train_of_a_1x1_kernel_is_a_low_rank_matrix():
    kernel = normal(8, 6, 1, 1)
    product = torch.eye(6, dtype=torch.float64)
    for factor in tt_kernel(kernel, (3, 3, 3)):
        product = factor[:, :, 0, 0] @ product
    u, s, vh = truncated_svd(kernel[:, :, 0, 0], 3)
    torch.testing.assert_close(product, (u * s) @ vh)


def test_tt_conv_is_the_product_of_core_slices_with_the_first_mode_slowest():
    in_modes, out_modes = (2, 3), (3, 4)
    kernel = normal(12, 6, 3, 2)
    first, second, third = tt_conv(kernel, in_modes, out_modes, tt_full_ranks((6, 6, 12)))
    for x, y, c, s in [(0, 0, 0, 0), (2, 1, 5, 11), (1, 0, 4, 7), (0, 1, 2, 5)]:
        (c1, c2), (s1, s2) = divmod(c, 3), divmod(s, 4)
        value = first[x, y] @ second[c1, s1] @ third[c2, s2]
        torch.testing.assert_close(value[0], kernel[s, c, x, y])


@pytest.mark.parametrize("shape", [(12, 8, 3, 3), (8, 27, 1, 1), (5, 3, 3, 3)])
def test_tt_conv_and_tt_matrix_are_lossless_at_full_ranks(shape):
    t, s, dh, dw = shape
    kernel, modes = normal(*shape), (channel_modes(s, 3), channel_modes(t, 3))
    cores = tt_conv(kernel, *modes, tt_full_ranks((dh * dw, *pair_dims(*modes))))
    assert relative_error(tt_conv_kernel(cores), kernel) < 1e-12
    cores = tt_matrix(kernel[:, :, 0, 0], *modes, tt_full_ranks(pair_dims(*modes)))
    assert relative_error(tt_matrix_weight(cores), kernel[:, :, 0, 0]) < 1e-12


def test_core_by_core_equals_the_rebuilt_kernel():
    """Garipov's forward: the spatial filters on every single map, then one channel mode after the other."""
    kernel, x = normal(12, 6, 3, 3), normal(2, 6, 7, 7, seed=1)
    first, second, third = cores = tt_conv(kernel, (2, 3), (3, 4), (5, 4))
    maps = conv2d(x.reshape(12, 1, 7, 7), first.permute(2, 0, 1).unsqueeze(1)).reshape(2, 2, 3, 5, 5, 5)
    y = torch.einsum("bcdrhw,csrq,dtqu->bsthw", maps, second, third).flatten(1, 2)
    torch.testing.assert_close(y, conv2d(x, tt_conv_kernel(cores)))


def test_shapes_for_counting_are_those_of_the_cores():
    modes, ranks = ((2, 3), (3, 4)), (5, 4)
    kernel = normal(12, 6, 3, 3)
    for weight in (kernel, kernel.to("meta")):
        assert [tuple(core.shape) for core in tt_conv(weight, *modes, ranks)] == tt_conv_shapes(*modes, (3, 3), ranks)
        matrix = weight[:, :, 0, 0]
        assert [tuple(core.shape) for core in tt_matrix(matrix, *modes, (4,))] == tt_matrix_shapes(*modes, (4,))
    assert [f.shape for f in tt_kernel(kernel.to("meta"), (4, 5, 6))] == [f.shape for f in tt_kernel(kernel, (4, 5, 6))]


def test_channel_modes_are_balanced_with_the_largest_in_the_middle():
    assert channel_modes(64, 3) == (4, 4, 4)
    assert channel_modes(128, 3) == (4, 8, 4)
    assert channel_modes(3, 3) == (1, 3, 1)
    assert channel_modes(48, 1) == (48,)
    for channels in (1, 7, 96, 100, 512):
        for count in (2, 3, 4):
            modes = channel_modes(channels, count)
            assert math.prod(modes) == channels and len(modes) == count


def test_zero_and_tiny_tensors():
    tensor = normal(4, 5, 6)
    assert not tt_tensor(tt_svd(0 * tensor, (3, 4))).any()
    tiny = relative_error(tt_tensor(tt_svd(1e-60 * tensor, (3, 4))), 1e-60 * tensor)
    assert tiny == pytest.approx(relative_error(tt_tensor(tt_svd(tensor, (3, 4))), tensor))


def test_bad_input_is_named():
    tensor, kernel = normal(4, 5, 6), normal(12, 6, 3, 3)
    with pytest.raises(InvalidRanks, match=r"TT rank 1 of \(5, 2\) is 5, but must be between 1 and 4"):
        tt_svd(tensor, (5, 2))
    with pytest.raises(InvalidRanks, match="TT ranks 2: give 2"):
        tt_svd(tensor, 2)
    with pytest.raises(InvalidRanks, match=r"TT rank 1 of .* is 2\.0"):
        tt_svd(tensor, (2.0, 2))
    with pytest.raises(InvalidRanks, match="give 2, one for each cut"):
        tt_svd(tensor, (3,))
    with pytest.raises(InvalidWeights):
        tt_svd(tensor / 0, (3, 4))
    with pytest.raises(InvalidOptions, match=r"in_modes \(2, 2\) have the product 4, but must have 6"):
        tt_conv(kernel, (2, 2), (3, 4), (5, 4))
    with pytest.raises(InvalidOptions, match="same length"):
        tt_conv_shapes((2, 3), (12,), (3, 3), (5, 4))
    with pytest.raises(InvalidRanks, match="give 2"):
        tt_conv_shapes((2, 3), (3, 4), (3, 3), (5,))
    with pytest.raises(InvalidRanks, match="give 1"):
        tt_matrix_shapes((2, 3), (3, 4), (5, 4))
    with pytest.raises(InvalidInput, match="0 channels"):
        channel_modes(0, 3)
