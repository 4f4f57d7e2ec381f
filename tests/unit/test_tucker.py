"""Tucker-2: exactness, the chain of bounds, and tensorly as a peer."""

import itertools
import math

import pytest
import tensorly
import torch
from tensorly.decomposition import partial_tucker
from torch.linalg import svdvals, vector_norm

import lowrank_bench as lrb
from lowrank_bench.compression.chain import KernelShape
from lowrank_bench.compression.compose import chain_error
from lowrank_bench.compression.geometry import Geometry
from lowrank_bench.decomposition.matrix import relative_error
from lowrank_bench.decomposition.tucker import tucker2, tucker_kernel
from lowrank_bench.decomposition.vbmf import evbmf
from lowrank_bench.errors import InvalidRanks, InvalidWeights


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def smooth(t, s, seed=0):
    """A kernel with falling singular values in both channel modes, as trained ones have."""
    output = torch.linalg.qr(normal(t, t, seed=seed + 1)).Q * torch.logspace(0, -2, t, dtype=torch.float64)
    input_ = torch.linalg.qr(normal(s, s, seed=seed + 2)).Q * torch.logspace(0, -2, s, dtype=torch.float64)
    return tucker_kernel(output, normal(t, s, 3, 3, seed=seed), input_)


def tail(unfolding, rank):
    return svdvals(unfolding)[rank:].square().sum().sqrt()


@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (1, 1, 3, 3), (9, 2, 1, 1), (2, 9, 1, 1), (1, 5, 3, 2), (30, 3, 3, 3)])
def test_full_ranks_are_lossless(shape):
    t, s, dh, dw = shape
    result = tucker2(normal(*shape), (min(t, s * dh * dw), min(s, t * dh * dw)))
    assert result.error < 1e-12


def test_a_full_rank_leaves_its_channels_as_they_are():
    result = tucker2(normal(6, 4, 3, 3), (3, 4))
    torch.testing.assert_close(result.input, torch.eye(4).to(result.input), rtol=0, atol=0)


def test_one_sided_tucker_is_the_svd_of_one_unfolding():
    kernel = normal(8, 6, 3, 3)
    assert tucker2(kernel, (3, 6)).error == pytest.approx(float(tail(kernel.flatten(1), 3) / vector_norm(kernel)))
    unfolding = kernel.transpose(0, 1).flatten(1)
    assert tucker2(kernel, (8, 2)).error == pytest.approx(float(tail(unfolding, 2) / vector_norm(kernel)))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ranks", [(1, 1), (3, 2), (5, 9), (11, 9)])
def test_chain_of_bounds(ranks, seed):
    """max tail <= optimum <= HOOI <= HOSVD <= sqrt(tail_T^2 + tail_S^2) <= sqrt(2) optimum <= sqrt(2) HOOI."""
    kernel = normal(12, 10, 3, 3, seed=seed) if seed % 2 else smooth(12, 10, seed)
    result = tucker2(kernel, ranks)
    tails = tail(kernel.flatten(1), ranks[0]), tail(kernel.transpose(0, 1).flatten(1), ranks[1])
    norm, slack = vector_norm(kernel), 1 + 1e-9
    hosvd, hooi = result.history[0] * norm, result.error * norm
    assert max(tails) <= hooi * slack
    assert hooi <= hosvd * slack
    assert hosvd <= math.hypot(*tails) * slack
    assert math.hypot(*tails) <= math.sqrt(2) * hooi * slack


def test_iterations_never_raise_the_error_and_end_at_a_fixed_point():
    kernel = normal(12, 10, 3, 3)
    result = tucker2(kernel, (4, 3), tol=0, max_iter=300)
    assert all(after <= before + 1e-13 for before, after in zip(result.history, result.history[1:], strict=False))
    # At a stationary point each basis is invariant under the Gram matrix of the kernel projected on the other.
    projected = torch.einsum("tsij,sq->tqij", kernel, result.input).flatten(1)
    gram = projected @ projected.T @ result.output
    assert vector_norm(gram - result.output @ (result.output.T @ gram)) < 1e-4 * vector_norm(gram)


def test_planted_ranks_are_recovered():
    kernel = tucker_kernel(normal(12, 3), normal(3, 4, 3, 3, seed=1), normal(10, 4, seed=2))
    assert tucker2(kernel, (3, 4)).error < 1e-12


@pytest.mark.parametrize("shape", [(12, 300, 1, 1), (300, 12, 1, 1), (8, 200, 1, 3)])
def test_no_decomposition_is_of_the_larger_side(shape, monkeypatch):
    solve, sizes = torch.linalg.eigh, []
    monkeypatch.setattr(torch.linalg, "eigh", lambda gram: sizes.append(len(gram)) or solve(gram))
    kernel = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = tucker2(kernel, (5, 5))
    assert len(sizes) >= 2 and max(sizes) <= 24
    identity = torch.eye(5, dtype=torch.float64)
    for factor in (found.output, found.input):
        torch.testing.assert_close(factor.T @ factor, identity)
    if shape[2:] == (1, 1):
        tail = svdvals(kernel[:, :, 0, 0])[5:]
        assert found.error == pytest.approx(float(vector_norm(tail) / vector_norm(kernel)), rel=1e-9)


def test_factors_are_orthonormal_and_the_core_is_the_projection():
    kernel = normal(12, 10, 3, 3)
    output, core, input_, error, _ = tucker2(kernel, (4, 3))
    torch.testing.assert_close(output.T @ output, torch.eye(4).to(output))
    torch.testing.assert_close(input_.T @ input_, torch.eye(3).to(input_))
    # Pythagoras holds for the least squares core only.
    assert vector_norm(core) ** 2 / vector_norm(kernel) ** 2 + error**2 == pytest.approx(1)
    assert relative_error(tucker_kernel(output, core, input_), kernel) == pytest.approx(error)


@pytest.mark.parametrize(("kernel", "ranks"), [(smooth(48, 32), (12, 8)), (normal(32, 32, 3, 3), (8, 8))])
def test_not_worse_than_tensorly(kernel, ranks):
    with tensorly.backend_context("pytorch"):
        _, errors = partial_tucker(kernel, rank=list(ranks), modes=[0, 1])
    assert tucker2(kernel, ranks).error <= float(errors[-1]) + 1e-4


def test_zero_kernels_scale_and_shapes():
    kernel = normal(12, 10, 3, 3)
    zero = tucker2(0 * kernel, (4, 3))
    assert zero.error == 0 and not tucker_kernel(zero.output, zero.core, zero.input).any()
    assert tucker2(1e-30 * kernel, (4, 3)).error == pytest.approx(tucker2(kernel, (4, 3)).error)
    meta = tucker2(kernel.to("meta"), (4, 3))
    assert [f.shape for f in meta[:3]] == [(12, 4), (4, 3, 3, 3), (10, 3)]


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e300])
def test_kernels_beyond_the_range_of_squares_are_no_worse(scale):
    kernel = normal(12, 10, 3, 3)
    scaled, plain = tucker2(scale * kernel, (4, 3)), tucker2(kernel, (4, 3))
    assert scaled.error == pytest.approx(plain.error)
    found = tucker_kernel(scaled.output, scaled.core / scale, scaled.input)
    torch.testing.assert_close(found, tucker_kernel(plain.output, plain.core, plain.input))


@pytest.mark.parametrize(
    ("ranks", "words"), [(2, "give 2"), ((2, 2, 1), "give 2"), ((2.5, 2), "2.5"), ((2, True), "True")]
)
def test_what_is_no_pair_of_ranks_is_named(ranks, words):
    with pytest.raises(InvalidRanks, match=words):
        tucker2(normal(4, 4, 3, 3), ranks)


def test_bad_input_is_named():
    kernel = normal(12, 10, 3, 3)
    with pytest.raises(InvalidRanks, match="output rank is 13, but must be between 1 and 12"):
        tucker2(kernel, (13, 3))
    with pytest.raises(InvalidRanks, match="input rank is 0, but must be between 1 and 10"):
        tucker2(kernel, (4, 0))
    with pytest.raises(InvalidRanks, match="output rank is 28, but must be between 1 and 27"):
        tucker2(normal(64, 3, 3, 3), (28, 3))
    with pytest.raises(InvalidWeights):
        tucker2(kernel * torch.nan, (4, 3))


@pytest.mark.parametrize("shape", [(8, 6, 1, 1), (8, 6, 3, 3), (6, 12, 3, 1)])
def test_expected_errors_lie_between_the_largest_tail_and_the_sum_and_never_saturate(shape):
    torch.manual_seed(0)
    weight = torch.randn(shape, dtype=torch.float64)
    method = lrb.methods()["tucker"]()
    candidates = method.candidates(KernelShape(*shape))
    told = method.errors(weight, candidates)
    for ranks, error in zip(candidates, told, strict=True):
        by_mode = (weight.flatten(1), weight.transpose(0, 1).flatten(1))
        tails = [
            float(torch.linalg.svdvals(matrix)[rank:].square().sum() / weight.square().sum())
            for matrix, rank in zip(by_mode, ranks, strict=True)
        ]
        assert max(tails) - 1e-12 <= error <= sum(tails) + 1e-12
    assert all(more > less for more, less in itertools.pairwise(told[:-1]))
    if shape[2:] == (1, 1):  # a matrix: Tucker is its SVD, and so is the error
        for ranks, error in zip(candidates, told, strict=True):
            chain = method.factorize(weight, ranks)
            assert error == pytest.approx(chain_error(weight, chain, 1) ** 2, abs=1e-12)


def test_the_input_mode_of_images_is_left_whole_and_that_of_narrow_groups_is_cut():
    method = lrb.methods()["tucker"]()
    assert {inputs for _, inputs in method.candidates(KernelShape(64, 3, 7, 7))} == {3}
    conv = torch.nn.Conv2d(64, 64, 3, groups=16)  # as in the first stage of ResNeXt-50, 32x4d: 4 channels in each group
    assert {inputs for _, inputs in method.candidates(Geometry.of(conv).kernel)} == {1, 2, 3, 4}
    assert lrb.factorize(conv, "tucker", (2, 2))[0].out_channels == 16 * 2


@pytest.mark.parametrize("shape", [(512, 16, 3, 3), (16, 512, 3, 3), (64, 16, 3, 1), (32, 8, 1, 1), (8, 32, 1, 1)])
def test_no_candidate_pays_for_maps_that_the_core_cannot_fill(shape):
    method, (t, s, dh, dw) = lrb.methods()["tucker"](), shape
    aligned = lrb.methods()["tucker"](align=8).aligned_candidates(KernelShape(*shape))
    assert all(
        out == t or inputs == s or (out <= inputs * dh * dw and inputs <= out * dh * dw)
        for out, inputs in [*method.candidates(KernelShape(*shape)), *aligned]
    )


def test_ranks_that_cannot_be_filled_together_are_refused_and_not_read_off_a_kernel():
    conv = torch.nn.Conv2d(16, 64, 3)
    with pytest.raises(
        InvalidRanks, match=r"layer: tucker ranks \(40, 2\) .* cannot be filled together: \(18, 2\) can"
    ):
        lrb.factorize(conv, "tucker", (40, 2))
    with pytest.raises(InvalidRanks, match=r"\(2, 16\) of a kernel \(64, 32, 1, 3\) .* \(2, 6\) can"):
        lrb.factorize(torch.nn.Conv2d(32, 64, (1, 3)), "tucker", (2, 16))
    # where a mode is left whole, its factor is merged into the core and nothing is spent in vain
    for ranks in ((64, 2), (1, 16)):
        assert len(lrb.factorize(conv, "tucker", ranks)) == 2


def test_evbmf_gives_no_maps_that_the_core_cannot_fill():
    """20 directions stand out of the output unfolding, spread over the inputs too thinly to stand out of theirs."""
    signal = torch.linalg.qr(normal(64, 20)).Q @ torch.linalg.qr(normal(144, 20, seed=1)).Q.T
    kernel = normal(64, 16, 3, 3, seed=2) + 32 * signal.reshape(64, 16, 3, 3)
    kernel[:, 0] += 2 * normal(64, 3, 3, seed=3)
    assert (evbmf(kernel.flatten(1)).rank, evbmf(kernel.transpose(0, 1).flatten(1)).rank) == (20, 1)
    conv = torch.nn.Conv2d(16, 64, 3, dtype=torch.float64)
    with torch.no_grad():
        conv.weight.copy_(kernel)
    assert lrb.factorize(conv, "tucker", "evbmf")[1].out_channels == 9
