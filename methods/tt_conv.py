"""Tensor trains: of the kernel as it is, or with its channels split into modes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from lowrank_bench.compression import method
from lowrank_bench.compression.chain import Axes, Chain, Factor, KernelShape, Permute, Rebuilt, Stage
from lowrank_bench.compression.geometry import Geometry
from lowrank_bench.compression.method import grid
from lowrank_bench.decomposition.matrix import cut_errors
from lowrank_bench.decomposition.tensor_train import tt_full_ranks, tt_kernel, tt_kernel_shapes
from lowrank_bench.decomposition.tt_matrix import (
    channel_modes,
    interleave_channels,
    pair_dims,
    tt_conv,
    tt_conv_shapes,
    tt_matrix,
    tt_matrix_shapes,
)
from lowrank_bench.training.from_scratch import StartLayerOptions, StartMethod


class TTConvOptions(StartLayerOptions):
    """``mode``: "naive" runs the train of the 4-D kernel as four convolutions. Of a train over split channels,
    "rebuild" contracts the kernel in every forward and "core_by_core" convolves with one core after another.

    ``modes``: into how many factors the last two split the channels, as equal as divisors allow.
    ``start`` and ``scratch_recipe``: see StartOptions. From scratch ranks may exceed what TT-SVD can fill.
    """

    mode: Literal["naive", "core_by_core", "rebuild"] = "naive"
    modes: int = Field(3, ge=2, le=8)

    @model_validator(mode="after")
    def _naive_splits_nothing(self) -> TTConvOptions:
        if self.mode == "naive" and "modes" in self.model_fields_set:
            raise ValueError("modes would do nothing with mode='naive', which splits no channels: leave it out")
        return self


class TTConv(StartMethod):
    """Tensor trains by TT-SVD (Garipov et al. 2016), ranks r1, r2, ... at every cut.

    "naive", in the mode order (S, dh, dw, T): 1x1 S -> r1, dh x 1 r1 -> r2, 1 x dw r2 -> r3, 1x1 r3 -> T; S r1 + r1 dh
    r2 + r2 dw r3 + r3 T weights. It is the default since it alone saves MACs as a rule: "rebuild" runs the dense
    convolution, and is for budgets in parameters; "core_by_core" may run several times the dense MACs. Both store dh dw
    r1 + sum_i c_i s_i r_i r_i+1 weights (r_D+1 = 1) for channels S = prod c_i and T = prod s_i, and no dh dw r1 for a
    1x1 kernel. Linear layers are TT-matrices (Novikov et al. 2015) with "rebuild" and stay dense otherwise.

    The paper trains from scratch, with a batch norm behind every train: ``start="scratch"``. Folded into
    the layer, its scale is one more value for each output channel in the two modes with split channels.
    """

    name, version = "tt_conv", 2
    linear = True
    Options: ClassVar[type[method.LayerOptions]] = TTConvOptions
    options: TTConvOptions

    def candidates(self, shape: KernelShape) -> Sequence[tuple[int, ...]]:
        """One rank for all cuts, at each cut no more than its unfolding has."""
        return [self.spread(shape, rank) for rank in grid(max(self._full(shape)))]

    def spread(self, shape: KernelShape, rank: int) -> tuple[int, ...]:
        """The rank at every cut that allows it, the cut's full rank at the others."""
        full = self._full(shape)
        return tuple(min(rank, limit) for limit in full) if rank <= max(full) else (rank,) * len(full)

    def feasible(self, shape: KernelShape, ranks: tuple[int, ...]) -> tuple[int, ...]:
        """No rank above the one before it times the side between them; from scratch any."""
        if self.options.start == "scratch":
            return ranks
        kept = [1]
        for rank, side in zip(ranks, self._dims(shape)[:-1], strict=True):
            kept.append(min(rank, kept[-1] * side))
        return tuple(kept[1:])

    def refuse(self, geometry: Geometry) -> str | None:
        """Linear layers, unless their kernel is rebuilt: the naive train of a matrix is no more than an SVD."""
        if geometry.kind == "linear" and self.options.mode != "rebuild":
            return f"{self.name} leaves linear layers dense unless mode = 'rebuild'"
        return None

    def check_ranks(self, shape: KernelShape, ranks: tuple[int, ...], place: str = "layer") -> None:
        """From scratch any ranks from 1 on, as the published ones do exceed what TT-SVD can fill: r1 = 22 of 9 taps."""
        full = self._full(shape)
        if self.options.start == "scratch" and len(ranks) == len(full):
            super().check_ranks(shape, tuple(min(pair) for pair in zip(ranks, full, strict=True)), place)
        else:
            super().check_ranks(shape, ranks, place)

    def factorize(self, weight: Tensor, ranks: tuple[int, ...], statistics: Tensor | None = None) -> Chain:
        """TT-SVD; the cores have equal norms."""
        shape = KernelShape(*weight.shape)
        if self.options.mode == "naive":
            return self._chain(tt_kernel(weight, ranks), shape)
        if shape.dh * shape.dw == 1:
            return self._chain(tt_matrix(weight[:, :, 0, 0], *self._modes(shape), ranks), shape)
        return self._chain(tt_conv(weight, *self._modes(shape), ranks), shape)

    def structure(self, shape: KernelShape, ranks: tuple[int, ...]) -> Chain:
        """The same chain of cores without values, for any ranks."""
        if self.options.mode == "naive":
            shapes = tt_kernel_shapes(shape, ranks)
        elif shape.dh * shape.dw == 1:
            shapes = tt_matrix_shapes(*self._modes(shape), ranks)
        else:
            shapes = tt_conv_shapes(*self._modes(shape), (shape.dh, shape.dw), ranks)
        return self._chain([torch.empty(sides, device="meta") for sides in shapes], shape)

    def unfoldings(self, weight: Tensor) -> tuple[Tensor, ...]:
        """One for each cut: the modes before it by those behind it."""
        shape = KernelShape(*weight.shape)
        if self.options.mode == "naive":
            tensor = weight.permute(1, 2, 3, 0)
        else:
            tensor = interleave_channels(weight.permute(2, 3, 1, 0), *self._modes(shape))
        dims = self._dims(shape)
        return tuple(tensor.reshape(math.prod(dims[:cut]), -1) for cut in range(1, len(dims)))

    def errors(self, weight: Tensor, candidates: Sequence[tuple[int, ...]]) -> Sequence[float] | None:
        """Of a naive train of a 1x1 kernel, one matrix, its SVD at the smallest rank."""
        if self.options.mode != "naive" or weight[0, 0].numel() > 1:
            return super().errors(weight, candidates)
        return cut_errors([weight.flatten(1)], [(min(ranks),) for ranks in candidates])

    def _chain(self, cores: Sequence[Tensor], shape: KernelShape) -> Chain:
        """The stages in which a train runs."""
        if self.options.mode == "naive":
            return Chain(_naive(cores))
        return Chain([rebuilt_train(cores, shape)] if self.options.mode == "rebuild" else _core_by_core(cores, shape))

    def _full(self, shape: KernelShape) -> tuple[int, ...]:
        return tt_full_ranks(self._dims(shape))

    def _dims(self, shape: KernelShape) -> tuple[int, ...]:
        """Sides of the tensor that TT-SVD sees."""
        if self.options.mode == "naive":
            return shape.S, shape.dh, shape.dw, shape.T
        taps, pairs = shape.dh * shape.dw, pair_dims(*self._modes(shape))
        return pairs if taps == 1 else (taps, *pairs)

    def _modes(self, shape: KernelShape) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return channel_modes(shape.S, self.options.modes), channel_modes(shape.T, self.options.modes)


def _naive(cores: Sequence[Tensor]) -> list[Stage]:
    """Four convolutions; those of one tap along their axis are merged into the one before."""
    first, rows, columns, last = cores
    stages = [Factor(first)]
    spatial: list[tuple[Tensor, Axes]] = [(rows, "h"), (columns, "w")]
    for kernel, axis in spatial:
        if kernel[0, 0].numel() > 1:
            stages.append(Factor(kernel, axis))
        else:
            before = stages.pop()
            merged: Axes = "hw" if before.axes else axis
            stages.append(Factor(torch.einsum("oi,iskl->oskl", kernel[:, :, 0, 0], before.weight), merged))
    return [*stages, Factor(last)]


def rebuilt_train(cores: Sequence[Tensor], shape: KernelShape) -> Rebuilt:
    """One dense convolution of the kernel G0[x, y] G1[c1, s1] ... GD[cD, sD], from the cores of tt_conv; those of
    tt_matrix have no G0, for a linear layer or a 1x1 kernel.
    """
    spatial, cores = _spatial(cores)
    count = len(cores)
    ins, outs, bonds = ([chr(ord(start) + i) for i in range(count + 1)] for start in "cCR")
    terms = [f"zxy{bonds[0]}" for _ in spatial]
    terms += [f"z{ins[i]}{outs[i]}{bonds[i]}{bonds[i + 1]}" for i in range(count)]
    result = ["z", *outs[:count], *ins[:count], *("xy" if spatial else "")]
    equation = f"{','.join(terms)}->{''.join(result)}"
    return Rebuilt(tuple(core.unsqueeze(0) for core in (*spatial, *cores)), equation, shape, "hw")


def _core_by_core(cores: Sequence[Tensor], shape: KernelShape) -> list[Stage]:
    """G0 on every input channel, then each core on its modes, at every position of the other modes.

    Before core i the channels lie in the order (c_i, ..., c_D, s_1, ..., s_i-1, r_i); it takes (c_i, r_i) to (s_i,
    r_i+1), as one group for each position of the modes between.
    """
    spatial, cores = _spatial(cores)
    stages: list[Stage] = [
        Rebuilt((core.unsqueeze(0),), "zxyr->zrxy", (core.shape[2], 1, shape.dh, shape.dw), "hw", repeat=shape.S)
        for core in spatial
    ]
    layout = [*(core.shape[0] for core in cores), cores[0].shape[2]]
    for number, core in enumerate(cores):
        c, s, r, q = core.shape
        channels, positions = math.prod(layout), math.prod(layout[1:-1])
        if c > 1 and positions > 1:
            stages.append(Permute(torch.arange(channels).reshape(layout).movedim(0, -2).flatten(), channels))
        axes: Axes = "" if spatial or number else "hw"
        stages.append(Rebuilt((core.unsqueeze(0),), "zcsrq->zsqcr", (s * q, c * r, 1, 1), axes, repeat=positions))
        layout = [*layout[1:-1], s, q]
    return stages


def _spatial(cores: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The core of the taps, (dh, dw, r1), if there is one, and the others, (c, s, r, q)."""
    return [core for core in cores if core.ndim == 3], [core for core in cores if core.ndim == 4]
