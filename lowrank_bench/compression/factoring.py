"""How a method factors one layer: its ranks, its kernel, and what may be said of both before anything is computed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar, Self

import torch
from torch import Tensor

from lowrank_bench.compression.chain import Chain, KernelShape, stack_groups
from lowrank_bench.compression.geometry import Geometry
from lowrank_bench.compression.metric import Target
from lowrank_bench.compression.options import LayerOptions
from lowrank_bench.compression.reconstruct import reconstruct
from lowrank_bench.compression.surgery import check_finite
from lowrank_bench.decomposition.matrix import cut_errors
from lowrank_bench.errors import InvalidRanks, UnsupportedLayer


class LayerFactoring(ABC):
    """How a method factors one layer; what chooses its ranks and puts it in place knows no more of the method."""

    name: ClassVar[str]
    version: ClassVar[int]
    seed: int
    options: LayerOptions

    linear: ClassVar[bool] = False
    """Whether linear layers are factored too, as kernels (M, N, 1, 1)."""

    @property
    def first_only(self) -> bool:
        """Whether, with its options, it is for the convolution that reads the image: in a network all other layers stay
        dense, and that one does not for a budget's sake.
        """
        return False

    @abstractmethod
    def candidates(self, shape: KernelShape) -> Sequence[tuple[int, ...]]:
        """Ranks worth trying for a kernel of one group, cheapest first; the last are exact ("full") and the largest
        that are valid.
        """

    def feasible(self, shape: KernelShape, ranks: tuple[int, ...]) -> tuple[int, ...]:
        """Ranks up to these that can be filled together, where one limits another; by default every one can."""
        return ranks

    def aligned_candidates(self, shape: KernelShape) -> list[tuple[int, ...]]:
        """The candidates with every rank at a multiple of the option ``align``, or as near as can be filled; as they
        are where no rank can be so large.
        """
        candidates = [tuple(ranks) for ranks in self.candidates(shape)]
        step, full = self.options.align, candidates[-1]
        if max(full) < step:
            return candidates
        rounded = (
            tuple(min(limit, max(step, round(r / step) * step)) for r, limit in zip(ranks, full, strict=True))
            for ranks in candidates
        )
        return list(dict.fromkeys(self.feasible(shape, ranks) for ranks in rounded))

    @abstractmethod
    def factorize(self, weight: Tensor, ranks: tuple[int, ...], statistics: Tensor | None = None) -> Chain:
        """Factor the kernel of one group, (T, S, dh, dw) in float64, finite, a copy that may be overwritten.

        ``statistics``: second moments of the input patches, (S dh dw, S dh dw), or None. Is also called with a ``meta``
        tensor to learn the chain's shapes; a method that looks at values overrides ``structure`` instead.
        """

    def structure(self, shape: KernelShape, ranks: tuple[int, ...]) -> Chain:
        """The chain that ``factorize`` would return, on the meta device: shapes, no values."""
        return self.factorize(torch.empty(shape, dtype=torch.float64, device="meta"), ranks)

    def refuse(self, geometry: Geometry) -> str | None:
        """Why this method leaves such a layer dense; None where it takes it."""
        return f"{self.name} leaves linear layers dense" if geometry.kind == "linear" and not self.linear else None

    def target_geometry(self, geometry: Geometry) -> Geometry:
        """What takes a layer's place: by default its like, in which each group is factored on its own.
        ``geometry.ungrouped()`` has one group, whose kernel is block-diagonal.
        """
        return geometry

    def unfoldings(self, weight: Tensor) -> tuple[Tensor | None, ...]:
        """One matrix per rank, for rules that read ranks off singular values ("evbmf", "energy:0.9"); None for a rank
        that stays full, and empty where there is no such matrix.
        """
        return ()

    def errors(self, weight: Tensor, candidates: Sequence[tuple[int, ...]]) -> Sequence[float] | None:
        """Squared relative error to expect at each candidate, for the sharing of a budget between layers.

        By default from the energy that the unfoldings keep, see ``cut_errors``. None where there is no unfolding.
        """
        matrices = self.unfoldings(weight)
        return cut_errors(matrices, candidates) if matrices else None

    def spread(self, shape: KernelShape, rank: int) -> tuple[int, ...]:
        """What a single integer means: by default that rank everywhere."""
        return (rank,) * len(self.candidates(shape)[-1])

    def check_alone(self) -> None:
        """Raise UnsupportedLayer where the options make sense for a whole network only."""
        if self.options.metric != "frobenius":
            raise UnsupportedLayer(
                f"metric {self.options.metric!r} is calibrated on images that reach a layer within its network: use "
                "lowrank_bench.compress with data"
            )

    def factorize_layer(
        self,
        weight: Tensor,
        groups: int,
        ranks: tuple[int, ...],
        place: str = "layer",
        target: Target | None = None,
    ) -> Chain:
        """Factor a whole layer's kernel (T, S / groups, dh, dw), each group on its own; with a ``target``, that one's
        kernel in its metric. Raises InvalidRanks or InvalidWeights, naming ``place``.
        """
        check_finite(weight, place)
        kernel = weight.detach() if target is None else target.kernel
        parts = kernel.to(torch.float64, copy=True).chunk(groups)
        self.check_ranks(KernelShape(*parts[0].shape), ranks, place)
        one = self.of_one_group(groups)
        if target is None:
            return stack_groups([one.factorize(part, ranks) for part in parts])
        statistics = [None] * groups if target.statistics is None else map(_as_matrix, target.statistics)
        chains = [one.factorize(part, ranks, moments) for part, moments in zip(parts, statistics, strict=True)]
        return reconstruct(stack_groups(chains), target, groups)

    def of_one_group(self, groups: int) -> Self:
        """The method as it factors each of a layer's groups: by default as it is."""
        return self

    def structure_layer(self, shape: KernelShape, groups: int, ranks: tuple[int, ...]) -> Chain:
        """The chain that ``factorize_layer`` would return, on the meta device; remembered, as a budget asks for
        hundreds, and a training that learns its ranks for the same ones time and again.
        """
        key = shape, groups, tuple(ranks)
        if key not in self._structures:
            self._structures[key] = stack_groups([self.structure(shape, ranks)] * groups)
        return self._structures[key]

    @cached_property
    def _structures(self) -> dict[tuple[KernelShape, int, tuple[int, ...]], Chain]:
        return {}

    def check_ranks(self, shape: KernelShape, ranks: tuple[int, ...], place: str = "layer") -> None:
        """Raise InvalidRanks, naming the valid range, unless 1 <= ranks <= full and all can be filled together."""
        full = tuple(self.candidates(shape)[-1])
        whole = len(ranks) == len(full) and all(isinstance(r, int) and not isinstance(r, bool) for r in ranks)
        if not whole or any(not 1 <= r <= f for r, f in zip(ranks, full, strict=True)):
            raise InvalidRanks(
                f"{place}: {self.name} ranks {ranks} of a kernel {tuple(shape)}: whole numbers from {(1,) * len(full)} "
                f"to {full} are wanted"
            )
        if (most := self.feasible(shape, ranks)) != ranks:
            raise InvalidRanks(
                f"{place}: {self.name} ranks {ranks} of a kernel {tuple(shape)} cannot be filled together: {most} can"
            )


def _as_matrix(moments: Tensor) -> Tensor:
    return torch.diag(moments) if moments.dim() == 1 else moments
