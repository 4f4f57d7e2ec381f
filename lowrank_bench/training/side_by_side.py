"""Tuning with the dense layers beside the factored ones: blended to nothing, or matched slice by slice."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Literal, Self

import torch
from torch import Tensor, nn

from lowrank_bench.compression.surgery import swap
from lowrank_bench.compression.watching import input_of
from lowrank_bench.training.loop import Regularizer

VANISHED = 0.5
"""Share of the steps after which the dense layers no longer contribute; in the rest the factored ones go on alone."""

Kind = Literal["vanishing", "slices"]


@contextmanager
def side_by_side(
    kind: Kind, model: nn.Module, dense: nn.Module, names: Sequence[str], steps: int
) -> Iterator[tuple[nn.Module, Regularizer]]:
    """The network to train for so many steps in place of ``model``, whose layers ``names`` were factored from those of
    ``dense``, and what acts on it. Afterwards ``model`` is again what it was, but for its weights; ``dense`` is not
    changed.
    """
    if kind == "slices":
        network = Slices(model, dense, names)
        try:
            yield network, network
        finally:
            network.release()
        return
    blends = {name: Blend(copy.deepcopy(dense.get_submodule(name)), model.get_submodule(name)) for name in names}
    for name, blend in blends.items():
        swap(model, name, blend)
    try:
        yield model, Vanishing([*blends.values()], steps)
    finally:
        for name, blend in blends.items():
            swap(model, name, blend.factored)


class Blend(nn.Module):
    """beta f + (1 - beta) g, of a dense layer f and the factored one g in its place (Nikiforos et al. 2025)."""

    def __init__(self, dense: nn.Module, factored: nn.Module) -> None:
        super().__init__()
        self.dense, self.factored, self.beta = dense, factored, 1.0

    def forward(self, input: Tensor) -> Tensor:
        """What the two layers make of the input, blended; once beta is 0 only the factored one runs."""
        factored: Tensor = self.factored(input)
        return factored if self.beta == 0 else torch.lerp(factored, self.dense(input), self.beta)


class Vanishing:
    """Vanishing contributions: beta = max(1 - t / Q, 0) at step t, with Q half of all steps. Both sides are trained."""

    def __init__(self, blends: Sequence[Blend], steps: int) -> None:
        self.blends, self.vanished = blends, VANISHED * steps

    def penalty(self) -> float:
        """None: the loss is the labels' alone."""
        return 0.0

    def after_step(self, step: int) -> None:
        """Lower beta."""
        for blend in self.blends:
            blend.beta = max(1 - (step + 1) / self.vanished, 0.0)

    def state(self) -> dict[str, Tensor]:
        """Beta of every blend."""
        return {"beta": torch.tensor([blend.beta for blend in self.blends], dtype=torch.float64)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Set beta."""
        for blend, beta in zip(self.blends, state["beta"].tolist(), strict=True):
            blend.beta = beta


class Slices(nn.Module):
    """Slice-wise feature distillation (Hamreras et al. 2026), a slice being a factored layer: each learns on its own to
    give what its dense layer gives, on the dense network's own features; labels and other layers play no part.

    The loss of a slice is its mean squared error over the dense output's mean square, so that slices weigh alike.
    ``forward`` gives the dense network's logits, which no weight can change.
    """

    def __init__(self, model: nn.Module, dense: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.compressed, self.dense = model, dense
        self._errors: list[Tensor] = []
        self._hooks = [
            dense.get_submodule(name).register_forward_hook(
                partial(self._compare, model.get_submodule(name)), with_kwargs=True
            )
            for name in names
        ]

    def forward(self, images: Tensor) -> Tensor:
        """Run the dense network, and every slice beside it."""
        self._errors.clear()
        with torch.no_grad():
            logits: Tensor = self.dense(images)
        return logits

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the compressed network; the dense one keeps its running statistics."""
        super().train(mode)
        self.dense.eval()
        return self

    def penalty(self) -> Tensor:
        """The slices' losses in the last forward pass, summed."""
        return torch.stack(self._errors).sum()

    def after_step(self, step: int) -> None:
        """Nothing: the optimiser does it all."""

    def state(self) -> dict[str, Tensor]:
        """Nothing: the slices are the network's own."""
        return {}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Nothing to remember."""

    def release(self) -> None:
        """Leave the dense network alone."""
        for hook in self._hooks:
            hook.remove()

    def _compare(
        self,
        factored: nn.Module,
        _layer: nn.Module,
        inputs: tuple[Tensor, ...],
        named: dict[str, Tensor],
        output: Tensor,
    ) -> None:
        wanted = output.float()
        scale = wanted.square().mean().clamp(min=torch.finfo(torch.float32).tiny)
        with torch.enable_grad():
            self._errors.append((factored(input_of(inputs, named)).float() - wanted).square().mean() / scale)
