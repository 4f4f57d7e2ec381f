"""The state of a training after an epoch, on disk: safetensors, with the epochs so far in the metadata."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from lowrank_bench.atomic import drafts, write_tensors
from lowrank_bench.compression.history import Epoch
from lowrank_bench.recipe import Recipe

PROCESSOR, DEVICE = "random/processor", "random/device"


@dataclass(frozen=True)
class Saved:
    """The epochs done, the best weights so far, and what acted on the weights remembered."""

    epochs: list[Epoch]
    best: dict[str, Tensor]
    acting: dict[str, Tensor]


class SavePoint:
    """The file at ``path``, for one training only: another recipe, seed or network does not go on from it."""

    def __init__(self, path: Path, recipe: Recipe, seed: int) -> None:
        self.path, self.said = path, [recipe.model_dump(mode="json"), seed]

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer | None, saved: Saved) -> None:
        """Write weights, buffers, the optimiser's moments (None after the last epoch, when they are done with), torch's
        random state and ``saved``. The file is replaced whole. Raises NotWritten.
        """
        tensors = {f"model/{name}": value for name, value in copied_state(model).items()}
        tensors |= {f"best/{name}": value for name, value in saved.best.items()}
        tensors |= {f"acting/{name}": value for name, value in saved.acting.items()}
        for index, moments in (optimizer.state_dict()["state"] if optimizer else {}).items():
            tensors |= {f"optimizer/{index}/{name}": value.cpu() for name, value in moments.items()}
        tensors[PROCESSOR] = torch.get_rng_state()
        if torch.cuda.is_available():
            tensors[DEVICE] = torch.cuda.get_rng_state()
        facts = {"of": self._identity(model), "epochs": json.dumps([asdict(epoch) for epoch in saved.epochs])}
        with drafts(self.path) as (draft,):
            write_tensors(tensors, draft, facts)

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Saved | None:
        """Set everything as it was saved, but for what comes back. None, and nothing is changed, where there is no
        file, or that of another training, or one that cannot be read.
        """
        if not self.path.is_file():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                facts = file.metadata() or {}
                if facts.get("of") != self._identity(model):
                    return None
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict
        except SafetensorError:
            return None
        model.load_state_dict(_below(tensors, "model/"))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in _below(tensors, "optimizer/").items():
            index, _, kind = name.partition("/")
            moments.setdefault(int(index), {})[kind] = value
        optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})
        for parameter, state in optimizer.state.items():  # a fused step goes through memory as the weights lie there
            alike = {kind: value for kind, value in state.items() if value.shape == parameter.shape}
            state |= {kind: torch.empty_like(parameter, dtype=m.dtype).copy_(m) for kind, m in alike.items()}
        torch.set_rng_state(tensors[PROCESSOR])
        if DEVICE in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors[DEVICE])
        epochs = [Epoch(**epoch) for epoch in json.loads(facts["epochs"])]
        return Saved(epochs, _below(tensors, "best/"), _below(tensors, "acting/"))

    def _identity(self, model: nn.Module) -> str:
        shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
        return json.dumps([*self.said, shapes], sort_keys=True)


def copied_state(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all weights and buffers, on the CPU."""
    return {name: value.detach().to("cpu", copy=True) for name, value in model.state_dict().items()}


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
