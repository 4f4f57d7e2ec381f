"""What a factored layer is made of: a Chain of Factor, Permute and Rebuilt stages, on plain tensors.

A kernel has shape (T, S, dh, dw): T output and S input channels. The stages of a chain are applied first to last,
without nonlinearity between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lowrank_bench.errors import InvalidChain

Axes = Literal["", "h", "w", "hw"]


class KernelShape(NamedTuple):
    """Shape of the kernel of one group: T output channels, S input channels, dh x dw taps."""

    T: int
    S: int
    dh: int
    dw: int

    @property
    def patch(self) -> int:
        """Values that one output reads: S dh dw."""
        return self.S * self.dh * self.dw


@dataclass(frozen=True, eq=False)
class Factor:
    """A convolution: ``weight`` (out, in / groups, kh, kw), and which of the kernel's axes it spans.

    The factor that spans an axis takes the layer's stride, padding and dilation along it. Exactly one stage of a chain
    spans each axis, even where the kernel is one tap wide there.
    """

    weight: Tensor
    axes: Axes = ""
    groups: int = 1

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(out, in / groups, kh, kw)."""
        return _four(self.weight.shape)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What is stored."""
        return (self.weight,)

    def kernel(self) -> Tensor:
        """The kernel of the convolution as it runs, of ``shape``."""
        return self.weight

    def __str__(self) -> str:
        """Its structure, without values."""
        return f"Factor{self.shape} axes={self.axes!r} groups={self.groups}"


@dataclass(frozen=True, eq=False)
class Permute:
    """A gather of channels: output channel i is input channel ``index[i]``; channels may be repeated (colour gathers)
    or reordered (bi-clustering).
    """

    index: Tensor
    inputs: int

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What is stored."""
        return (self.index,)

    def __str__(self) -> str:
        """Its structure, without values."""
        return f"Permute({self.inputs}, {self.index.numel()})"


@dataclass(frozen=True, eq=False)
class Rebuilt:
    """A convolution whose kernel is rebuilt from cores at each forward.

    ``torch.einsum(equation, *cores)`` reshaped to (blocks, out, in / groups, kh, kw) = (blocks, *block_shape); each
    block is repeated ``repeat`` times with tied weights. Every core, and the result, leads with the block axis (1 for
    an ungrouped kernel). The convolution has ``blocks * repeat`` groups.
    """

    cores: tuple[Tensor, ...]
    equation: str
    block_shape: tuple[int, int, int, int]
    axes: Axes = ""
    repeat: int = 1

    @property
    def blocks(self) -> int:
        """How many groups of the layer's kernel are stacked."""
        return self.cores[0].shape[0]

    @property
    def groups(self) -> int:
        """Groups of the convolution as it runs."""
        return self.blocks * self.repeat

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(out, in / groups, kh, kw) of the convolution as it runs."""
        out, inputs, kh, kw = self.block_shape
        return self.blocks * self.repeat * out, inputs, kh, kw

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What is stored."""
        return self.cores

    def kernel(self) -> Tensor:
        """The kernel of the convolution as it runs, of ``shape``."""
        return rebuild(self.cores, self.equation, self.block_shape, self.repeat)

    def __str__(self) -> str:
        """Its structure, without values."""
        cores = [tuple(core.shape) for core in self.cores]
        return f"Rebuilt{self.shape} axes={self.axes!r} groups={self.groups} cores={cores} by {self.equation!r}"


Stage = Factor | Permute | Rebuilt


def rebuild(cores: Sequence[Tensor], equation: str, block_shape: Sequence[int], repeat: int) -> Tensor:
    """Contract cores to the kernel of the convolution that they stand for; see Rebuilt."""
    blocks = cores[0].shape[0]
    unique = torch.einsum(equation, *cores).reshape(blocks, 1, *block_shape)
    return unique.expand(blocks, repeat, *block_shape).reshape(blocks * repeat * block_shape[0], *block_shape[1:])


def with_tensors(stage: Stage, change: Callable[[Tensor], Tensor]) -> Stage:
    """The stage with other weights or cores, of the same shapes; an index does not change."""
    if isinstance(stage, Factor):
        return replace(stage, weight=change(stage.weight))
    if isinstance(stage, Rebuilt):
        return replace(stage, cores=tuple(change(core) for core in stage.cores))
    return stage


@dataclass(frozen=True, eq=False)
class Chain:
    """Stages, first applied first. ``notes``: numbers that the method reports about this layer, such as the degeneracy
    of a CP.
    """

    stages: tuple[Stage, ...]
    notes: dict[str, float] | None = None

    def __init__(self, stages: Sequence[Stage], notes: dict[str, float] | None = None) -> None:
        object.__setattr__(self, "stages", tuple(stages))
        object.__setattr__(self, "notes", notes)

    def __str__(self) -> str:
        """Its structure, without values."""
        return " -> ".join(map(str, self.stages))

    @property
    def params(self) -> int:
        """Weights stored, without the bias; a Permute stores an index, which is no parameter."""
        return sum(tensor.numel() for tensor in self.tensors)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All weights and cores, those of the first stage first."""
        return tuple(tensor for stage in self.stages if not isinstance(stage, Permute) for tensor in stage.tensors)

    def map(self, change: Callable[[Tensor], Tensor]) -> Chain:
        """The chain with other weights and cores, each changed in the order of ``tensors`` to one of its shape."""
        return Chain([with_tensors(stage, change) for stage in self.stages], self.notes)

    @property
    def last(self) -> int:
        """Number of the last convolution: only gathers follow it, and it carries the bias."""
        return max(number for number, stage in enumerate(self.stages) if not isinstance(stage, Permute))

    def check(self, shape: KernelShape, groups: int = 1) -> None:
        """Raise InvalidChain unless the stages fit each other and map S * groups channels to T * groups over dh x dw
        taps.
        """
        channels = shape.S * groups
        for number, stage in enumerate(self.stages):
            if isinstance(stage, Permute):
                fits, channels_out = stage.inputs == channels, stage.index.numel()
            else:
                fits = stage.shape[1] * stage.groups == channels and stage.shape[0] % stage.groups == 0
                channels_out = stage.shape[0]
            if not fits:
                raise InvalidChain(
                    f"stage {number} of the chain does not take the {channels} channels that reach it: {stage}"
                )
            channels = channels_out
        if channels != shape.T * groups:
            raise InvalidChain(f"the chain ends in {channels} channels, the layer has {shape.T * groups}")
        for axis, taps, place in (("h", shape.dh, 2), ("w", shape.dw, 3)):
            spanning = [s for s in self.stages if not isinstance(s, Permute) and axis in s.axes]
            if len(spanning) != 1 or spanning[0].shape[place] != taps:
                raise InvalidChain(f"exactly one stage must span the {taps} taps of axis {axis!r}: {self}")


def stack_groups(chains: Sequence[Chain]) -> Chain:
    """One chain for a grouped layer from the chains of its groups, which must be of one structure: every factor stays
    grouped.

    Raises InvalidChain where the structures differ.
    """
    if len(chains) == 1:
        return chains[0]
    if len({str(chain) for chain in chains}) > 1:
        raise InvalidChain("the groups of a layer were factored into chains of different structure")
    notes = {name: max((chain.notes or {})[name] for chain in chains) for name in chains[0].notes or {}}
    return Chain([_stack(stages) for stages in zip(*(chain.stages for chain in chains), strict=True)], notes)


def _stack(stages: Sequence[Stage]) -> Stage:
    first = stages[0]
    if isinstance(first, Factor):
        return replace(
            first,
            weight=torch.cat([s.weight for s in stages if isinstance(s, Factor)]),
            groups=first.groups * len(stages),
        )
    if isinstance(first, Permute):
        index = torch.cat([s.index + g * first.inputs for g, s in enumerate(stages) if isinstance(s, Permute)])
        return Permute(index, first.inputs * len(stages))
    cores = zip(*(s.cores for s in stages if isinstance(s, Rebuilt)), strict=True)
    return replace(first, cores=tuple(torch.cat(parts) for parts in cores))


def _four(shape: torch.Size) -> tuple[int, int, int, int]:
    if len(shape) != 4:
        raise InvalidChain(f"a factor's weight has shape (out, in / groups, kh, kw), not {tuple(shape)}")
    out, inputs, kh, kw = shape
    return out, inputs, kh, kw
