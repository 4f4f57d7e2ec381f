"""What a plug-in implements: Method, and LayerMethod for methods that factor one layer at a time."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import BaseModel as PydanticModel
from pydantic import ConfigDict, Field, ValidationError, model_validator
from torch import Tensor, nn

from lowrank_bench.compression.chain import Chain, KernelShape, stack_groups
from lowrank_bench.compression.geometry import Geometry
from lowrank_bench.compression.job import Batches, Job
from lowrank_bench.compression.layerwise import compress_layers
from lowrank_bench.compression.metric import Target
from lowrank_bench.compression.model import Compressed
from lowrank_bench.compression.reconstruct import VERSION as RECONSTRUCT_VERSION
from lowrank_bench.compression.reconstruct import reconstruct
from lowrank_bench.compression.sensitivity import VERSION as SENSITIVITY_VERSION
from lowrank_bench.compression.surgery import check_finite
from lowrank_bench.decomposition.matrix import cut_errors
from lowrank_bench.errors import InvalidOptions, InvalidRanks, UnsupportedLayer, explain
from lowrank_bench.seeds import check_seed

__all__ = [
    "Batches",
    "Job",
    "LayerMethod",
    "LayerOptions",
    "Method",
    "Options",
    "fillable_pair",
    "grid",
    "grid_of_pairs",
]


class Options(PydanticModel):
    """Base of a method's options: frozen, validated, no unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LayerOptions(Options):
    """What every layer-wise method can be asked for: in which ``metric`` its factors are close to the dense kernel.

    "frobenius": of the kernel (filter reconstruction in Jaderberg et al. 2014). "covariance": of the responses to
    calibration images (data reconstruction; the data covariance of Denton et al. 2014); with ``sequential``, to what
    reaches the layer once those before it are compressed, and with ``centred`` about their mean (Zhang et al. 2016,
    section 3.1), whose error the layer's bias takes or else the batch norm behind it; where there is neither, as
    without. "mahalanobis": weighted by how far a weight pulls images to wrong labels (Denton et al. 2014, section 3.1).
    "activation": every input channel weighted by the root of its mean absolute value (ASVD, Yuan et al. 2023, alpha =
    1/2). All but the first need data, start from its factors or from a closed form and move all of a layer's factors
    together; layers with more than 8,192 weights per filter stay with it.
    ``align``: a budget is met with ranks in multiples of it, which vector units like; a layer whose ranks cannot be so
    large is free of it. ``allocation``: a budget is shared at one "price" for all layers, weighed by their errors, or
    as the same "uniform" fraction of each one's cost. "sensitivity": at one price, weighed by what the output loses
    when only this layer is cut, measured on training images at a few ranks of every layer; no more of them are tried
    once a layer took ``probe_seconds``, so that on a slow machine fewer are, and other ranks may come of it.
    ``batch_norm``: errors count as they leave the batch norm behind the layer ("folded"), or as they enter it
    ("ignored"); metric "mahalanobis" knows what it does to the output anyhow.
    """

    metric: Literal["frobenius", "covariance", "mahalanobis", "activation"] = "frobenius"
    sequential: bool = False
    centred: bool = False
    align: int = Field(1, ge=1)
    allocation: Literal["price", "uniform", "sensitivity"] = "price"
    probe_seconds: float = Field(60.0, gt=0)
    batch_norm: Literal["folded", "ignored"] = "folded"

    @model_validator(mode="after")
    def _nothing_without_effect(self) -> Self:
        for name in ("sequential", "centred"):
            if getattr(self, name) and self.metric != "covariance":
                raise ValueError(f"{name} belongs to metric='covariance': set that, or leave {name} out")
        if "probe_seconds" in self.model_fields_set and self.allocation != "sensitivity":
            raise ValueError("probe_seconds would do nothing without allocation='sensitivity': leave it out")
        return self


class Method(ABC):
    """A compression method. Set ``name`` and ``version`` (raised by hand when results would change) and implement
    ``compress``.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    Options: ClassVar[type[Options]] = Options

    def __init__(self, seed: int = 0, **options: Any) -> None:
        """Validate the options. Raises InvalidOptions naming the option, its value and what would be right, and
        InvalidInput for a seed that is none.
        """
        check_seed(seed)
        self.seed = int(seed)
        try:
            self.options = self.Options(**options)
        except ValidationError as error:
            known = ", ".join(self.Options.model_fields) or "none"
            raise InvalidOptions(
                f"{explain(error, f'options of method {self.name!r}')} (its options: {known})"
            ) from None

    @property
    def versions(self) -> dict[str, int]:
        """The declared version of each stage of its own that decides its results."""
        return {"method": self.version}

    @abstractmethod
    def compress(self, model: nn.Module, job: Job) -> Compressed:
        """A compressed copy of the model; the model itself is not changed."""


class LayerMethod(Method):
    """A method that factors one kernel at a time. Implement ``candidates`` and ``factorize``; the harness does groups,
    geometry, budgets and surgery.
    """

    Options: ClassVar[type[Options]] = LayerOptions
    options: LayerOptions

    linear: ClassVar[bool] = False
    """Whether linear layers are factored too, as kernels (M, N, 1, 1)."""

    @property
    def first_only(self) -> bool:
        """Whether, with its options, it is for the convolution that reads the image: in a network all other layers stay
        dense, and that one does not for a budget's sake.
        """
        return False

    @property
    def versions(self) -> dict[str, int]:
        """Its own, and those of the measuring of sensitivities and of the fit in a metric where options want them."""
        measured = {"sensitivity": SENSITIVITY_VERSION} if self.options.allocation == "sensitivity" else {}
        fitted = {"reconstruct": RECONSTRUCT_VERSION} if self.options.metric != "frobenius" else {}
        return super().versions | measured | fitted

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
        """Factor the kernel of one group, (T, S, dh, dw) in float64, finite.

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

    def compress(self, model: nn.Module, job: Job) -> Compressed:
        """Choose ranks for every layer, factor each, swap it in."""
        return compress_layers(self, model, job)

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
        parts = (weight.detach().double() if target is None else target.kernel).chunk(groups)
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


def grid_of_pairs(full_out: int, full_in: int) -> list[tuple[int, int]]:
    """Candidate pairs (R_out, R_in) in the proportion of the full ranks, as ``grid`` has them for the larger one."""
    largest = max(full_out, full_in)
    return [(max(1, round(r * full_out / largest)), max(1, round(r * full_in / largest))) for r in grid(largest)]


def fillable_pair(ranks: tuple[int, int], taps: int) -> tuple[int, int]:
    """The ranks up to (R_out, R_in) that a core R_in -> R_out of so many ``taps`` can fill: R_out maps need R_in times
    the taps of inputs, and the other way round.
    """
    out, inputs = ranks
    return min(out, inputs * taps), min(inputs, out * taps)


def grid(full: int) -> list[int]:
    """Candidate ranks from 1 to ``full``, both included: every rank up to 50, then in steps of 2 %, so that a budget
    can be met closely.
    """
    ranks = [1]
    while ranks[-1] < full:
        ranks.append(min(full, max(ranks[-1] + 1, math.ceil(1.02 * ranks[-1]))))
    return ranks
