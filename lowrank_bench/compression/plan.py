"""A plan: what was done to each layer, as validated JSON. Structure only: the values are in the state dict beside."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from lowrank_bench.compression.chain import Axes, Chain, Factor, Permute, Rebuilt, Stage

Shape4 = tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FactorSpec(_Spec):
    """A Factor without its values."""

    kind: Literal["factor"] = "factor"
    shape: Shape4
    axes: Axes
    groups: PositiveInt


class PermuteSpec(_Spec):
    """A Permute without its values."""

    kind: Literal["permute"] = "permute"
    inputs: PositiveInt
    outputs: PositiveInt


class RebuiltSpec(_Spec):
    """A Rebuilt without its values."""

    kind: Literal["rebuilt"] = "rebuilt"
    cores: tuple[tuple[PositiveInt, ...], ...] = Field(min_length=1)
    equation: str = Field(pattern=r"^[a-zA-Z]+(,[a-zA-Z]+)*->[a-zA-Z]+$")
    block_shape: Shape4
    axes: Axes
    groups_per_block: Literal[1] = Field(1, exclude=True)  # older plans hold it
    repeat: PositiveInt


StageSpec = Annotated[FactorSpec | PermuteSpec | RebuiltSpec, Field(discriminator="kind")]


class LayerPlan(_Spec):
    """One factored layer: its ranks and stages, its relative weight error (None where it was trained), its cost and
    what its method reports. ``ungrouped``: it stands for a grouped layer's block-diagonal kernel, in one group.
    """

    ranks: tuple[PositiveInt, ...]
    stages: tuple[StageSpec, ...]
    ungrouped: bool = False
    error: float | None = None
    params: int
    macs: int
    dense_params: int
    dense_macs: int
    notes: dict[str, float] = {}


class Width(_Spec):
    """Channels of a layer that is resized; of a norm both are the same."""

    inputs: PositiveInt
    outputs: PositiveInt


class Plan(_Spec):
    """Layer name -> ranks and stages, with method and options; ``skipped``: layers that stayed dense, and why;
    ``widths``: layers with other numbers of channels.
    """

    format: Literal[1] = 1
    method: str
    version: int
    options: dict[str, Any] = {}
    layers: dict[str, LayerPlan] = {}
    skipped: dict[str, str] = {}
    widths: dict[str, Width] = {}


def describe_stage(stage: Stage) -> FactorSpec | PermuteSpec | RebuiltSpec:
    """The structure of a stage without its values: what a plan stores."""
    if isinstance(stage, Factor):
        return FactorSpec(shape=stage.shape, axes=stage.axes, groups=stage.groups)
    if isinstance(stage, Permute):
        return PermuteSpec(inputs=stage.inputs, outputs=stage.index.numel())
    cores = tuple(tuple(core.shape) for core in stage.cores)
    contraction = {"equation": stage.equation, "block_shape": stage.block_shape, "repeat": stage.repeat}
    return RebuiltSpec.model_validate({"cores": cores, "axes": stage.axes, **contraction})


def blank_chain(layer: LayerPlan) -> Chain:
    """The chain of a planned layer on the meta device: structure, no values."""
    return Chain([_blank(spec) for spec in layer.stages])


def _blank(spec: FactorSpec | PermuteSpec | RebuiltSpec) -> Stage:
    if isinstance(spec, FactorSpec):
        return Factor(torch.empty(spec.shape, device="meta"), spec.axes, spec.groups)
    if isinstance(spec, PermuteSpec):
        return Permute(torch.empty(spec.outputs, dtype=torch.int64, device="meta"), spec.inputs)
    cores = tuple(torch.empty(shape, device="meta") for shape in spec.cores)
    return Rebuilt(cores, spec.equation, spec.block_shape, spec.axes, spec.repeat)
