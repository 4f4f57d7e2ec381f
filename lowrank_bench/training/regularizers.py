"""Regularisers that pull the kernels of a dense network towards low rank while it trains; see loop.Regularizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lowrank_bench.decomposition.matrix import TINY, kept_by_energy
from lowrank_bench.decomposition.separable_basis import singular_value_threshold
from lowrank_bench.recipe import Recipe


class UnfoldedKernel:
    """A weight (T, S / groups, dh, dw) or (T, S), read and written as one matrix per group.

    ``unfold`` rearranges the kernel of one group, (T / groups, S / groups, dh, dw), into a matrix.
    """

    def __init__(self, weight: Tensor, groups: int, unfold: Callable[[Tensor], Tensor]) -> None:
        self.weight, self.groups = weight, groups
        taps = weight.shape[1:] if weight.dim() == 4 else (weight.shape[1], 1, 1)
        # The places of the entries, unfolded in their stead: any rearrangement can then be undone.
        places = torch.arange(weight.numel() // groups).reshape(weight.shape[0] // groups, *taps)
        self._places = unfold(places)

    def read(self) -> Tensor:
        """(groups, m, n), differentiable."""
        return self.weight.reshape(self.groups, -1)[:, self._places.to(self.weight.device)]

    def write(self, matrices: Tensor) -> None:
        """Set the weight from (groups, m, n), outside autograd."""
        flat = torch.empty(self.groups, self._places.numel(), dtype=self.weight.dtype, device=self.weight.device)
        flat[:, self._places.flatten().to(flat.device)] = matrices.flatten(1).to(flat)
        with torch.no_grad():
            self.weight.copy_(flat.reshape(self.weight.shape))


class NuclearNorm:
    """Proximal steps on the nuclear norm, every ``every`` steps (Alvarez and Salzmann 2017): U (S - eta lambda)_+ V^T.

    eta is the sum of the learning rates since the last proximal step, and a kernel's lambda is
    ``strength`` s_1 / (sum of all learning rates), s_1 its largest singular value at the start. So the singular values
    lose ``strength`` times s_1 over the training, but for what the gradients give back: one value fits layers of every
    scale and recipes of every length. The map is the prox in the Euclidean metric, whatever AdamW's is.
    """

    def __init__(self, kernels: Sequence[UnfoldedKernel], recipe: Recipe, strength: float, every: int) -> None:
        rates = [recipe.learning_rate_at(step) for step in range(recipe.epochs * recipe.steps_per_epoch)]
        self._shares = [rate / sum(rates) for rate in rates]
        self._every = every
        self._kernels = [(kernel, strength * _spectral_norm(kernel)) for kernel in kernels]

    def penalty(self) -> float:
        """None: the norm acts through its prox."""
        return 0.0

    def after_step(self, step: int) -> None:
        """Soft-threshold the singular values of every kernel."""
        if (step + 1) % self._every:
            return
        share = sum(self._shares[step + 1 - self._every : step + 1])
        for kernel, threshold in self._kernels:
            matrices = kernel.read().detach().double()
            kernel.write(singular_value_threshold(matrices, share * threshold.to(matrices.device)))

    def state(self) -> dict[str, Tensor]:
        """Nothing: the thresholds are those of the start."""
        return {}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Nothing to remember."""


class EnergyCut(NamedTuple):
    """Matrices (..., m, n) of lower rank, and U_r V_r^T of them, the subgradient of their nuclear norm."""

    matrices: Tensor
    polar: Tensor


def cut_to_energy(matrices: Tensor, share: float) -> EnergyCut:
    """Cut matrices (..., m, n) to the smallest rank that keeps ``share`` of the energy, the sum of squared singular
    values.
    """
    u, s, vh = torch.linalg.svd(matrices, full_matrices=False)
    kept = kept_by_energy(s, share).to(s)
    return EnergyCut((u * (s * kept).unsqueeze(-2)) @ vh, (u * kept.unsqueeze(-2)) @ vh)


class RankPruning:
    """Trained rank pruning (Xu et al. 2020): every ``every`` steps cut each kernel to ``energy``, and go on training it
    dense.

    ``subgradient`` is the weight lambda of U_r V_r^T in the gradient of the step that follows a cut.
    """

    def __init__(self, kernels: Sequence[UnfoldedKernel], energy: float, every: int, subgradient: float = 0.0) -> None:
        self._kernels, self._energy, self._every, self._weight = kernels, energy, every, subgradient
        self._polars: list[tuple[UnfoldedKernel, Tensor]] = []

    def penalty(self) -> Tensor | float:
        """lambda <U_r V_r^T, W> right after a cut, where it is lambda times the nuclear norm; else nothing."""
        return sum((self._weight * (kernel.read() * polar).sum() for kernel, polar in self._polars), start=0.0)

    def after_step(self, step: int) -> None:
        """Cut every kernel, and write it back."""
        self._polars = []
        if (step + 1) % self._every:
            return
        for kernel in self._kernels:
            cut = cut_to_energy(kernel.read().detach().double(), self._energy)
            kernel.write(cut.matrices)
            if self._weight:
                self._polars.append((kernel, cut.polar.to(kernel.weight)))

    def state(self) -> dict[str, Tensor]:
        """U_r V_r^T of every kernel right after a cut."""
        return {str(index): polar for index, (_, polar) in enumerate(self._polars)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Give every kernel its U_r V_r^T, or none."""
        named = [(self._kernels[int(index)], polar) for index, polar in state.items()]
        self._polars = [(kernel, polar.to(kernel.weight)) for kernel, polar in named]


class LearningCompression:
    """The LC algorithm with learned ranks (Idelbayev and Carreira-Perpinan 2020), as an augmented Lagrangian.

    L steps: train on L + sum mu / 2 ||W - D - y / mu||^2 / ||W_0||^2, W_0 the weight at the start. C step, every
    ``every`` steps: D = ``compress``(W - y / mu), then y -= mu (W - D), then mu grows geometrically, over the ``steps``
    of the training, from ``mu[0]`` to ``mu[1]`` (loss per squared relative error). The penalty is unweighted, while a
    ``compress`` that cuts in another norm, as layers before a batch norm are, is no projection in that of the penalty.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        compress: Callable[[dict[str, Tensor]], dict[str, Tensor]],
        mu: tuple[float, float],
        every: int,
        steps: int,
    ) -> None:
        self._weights, self._compress, self._every = weights, compress, every
        cuts = max(1, steps // every - 1)
        self._mu, self._growth = mu[0], (mu[1] / mu[0]) ** (1 / cuts)
        self._norms = {name: float(w.detach().double().square().sum().clamp(min=TINY)) for name, w in weights.items()}
        self._multipliers = {name: torch.zeros_like(w.detach()) for name, w in weights.items()}
        self._targets = compress({name: w.detach() for name, w in weights.items()})

    def penalty(self) -> Tensor | float:
        """The quadratic penalty, with the multipliers in it."""
        return sum(
            (
                self._mu / 2 * (w - self._centre(name)).square().sum() / self._norms[name]
                for name, w in self._weights.items()
            ),
            start=0.0,
        )

    def after_step(self, step: int) -> None:
        """A C step where it is time for one."""
        if (step + 1) % self._every:
            return
        weights = {name: w.detach() for name, w in self._weights.items()}
        self._targets = self._compress({name: w - self._multiplier(name) / self._mu for name, w in weights.items()})
        for name, w in weights.items():
            self._multipliers[name] = self._multiplier(name) - self._mu * (w - self._targets[name].to(w))
        self._mu *= self._growth

    def state(self) -> dict[str, Tensor]:
        """mu, and y and D of every weight."""
        state = {"mu": torch.tensor(self._mu, dtype=torch.float64)}
        state |= {f"multiplier/{name}": value for name, value in self._multipliers.items()}
        return state | {f"target/{name}": value for name, value in self._targets.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Set them."""
        self._mu = float(state["mu"])
        for name in self._weights:
            self._multipliers[name], self._targets[name] = state[f"multiplier/{name}"], state[f"target/{name}"]

    def _centre(self, name: str) -> Tensor:
        """D + y / mu."""
        return self._targets[name].to(self._weights[name]) + self._multiplier(name) / self._mu

    def _multiplier(self, name: str) -> Tensor:
        return self._multipliers[name].to(self._weights[name].device)


def _spectral_norm(kernel: UnfoldedKernel) -> Tensor:
    """Largest singular value of each group, (groups, 1)."""
    norm: Tensor = torch.linalg.matrix_norm(kernel.read().detach().double(), 2)
    return norm[:, None]
