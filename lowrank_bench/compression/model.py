"""A compressed model in memory and on disk: a plan (JSON) and a state dict (safetensors); loading rebuilds it, and no
pickle is ever read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lowrank_bench.atomic import drafts, write_tensors
from lowrank_bench.compression.cost import Cost
from lowrank_bench.compression.drawing import draw_chain
from lowrank_bench.compression.geometry import Geometry, build
from lowrank_bench.compression.history import History
from lowrank_bench.compression.passes import check_module, copy_of
from lowrank_bench.compression.plan import Plan, blank_chain
from lowrank_bench.compression.surgery import named_layer, swap
from lowrank_bench.compression.widths import resize
from lowrank_bench.errors import InvalidPlan, LowRankBenchError, UnknownName, UnsupportedLayer, explain

PLAN, WEIGHTS = "plan.json", "weights.safetensors"
DRAWN = 0
"""Seed of what is drawn."""


@dataclass(frozen=True)
class Compressed:
    """A compressed model, its plan, and its cost beside the dense model's; ``history``: of the training within the
    method, then of the tuning; it is not saved with it.
    """

    model: nn.Module
    plan: Plan
    cost: Cost
    dense_cost: Cost
    history: History = field(default_factory=History)

    @property
    def skipped(self) -> dict[str, str]:
        """Layers that stayed dense: name -> reason."""
        return self.plan.skipped

    def save(self, folder: Path | str, values: bool = True) -> None:
        """Write ``plan.json`` and, with ``values``, ``weights.safetensors`` into a folder, which is made where it does
        not exist. Whatever interrupts it, where a plan stands the model is whole. Raises NotWritten, and
        UnsupportedLayer for a model whose state is not all tensors.
        """
        folder, state = Path(folder), self.model.state_dict()
        if odd := [name for name, value in state.items() if values and not isinstance(value, Tensor)]:
            raise UnsupportedLayer(
                f"{odd[0]!r} of the model is a {type(state[odd[0]]).__name__}, and files of weights hold tensors: save "
                "it before it is quantized, or with values=False"
            )
        document = _Document(plan=self.plan, cost=self.cost, dense_cost=self.dense_cost)
        with drafts(*(folder / name for name in ([WEIGHTS] if values else []) + [PLAN])) as files:
            if values:
                write_tensors(state, files[0])
            files[-1].write_text(document.model_dump_json(indent=1) + "\n")


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    plan: Plan
    cost: Cost
    dense_cost: Cost


def load(folder: Path | str, model: nn.Module, values: bool = True) -> Compressed:
    """Rebuild a compressed model that ``save`` wrote, from a dense model of the same architecture, which is not
    changed. Without ``values`` the factors are drawn, the same ones at every call, and the rest is the dense model's.

    Raises InvalidPlan where the folder holds no plan, a damaged one, or one that does not fit the model, InvalidInput
    for what is no model.
    """
    check_module(model)
    folder = Path(folder)
    try:
        document = _Document.model_validate_json((folder / PLAN).read_bytes())
        weights = load_file(folder / WEIGHTS) if values else {}
    except ValidationError as error:
        raise InvalidPlan(explain(error, str(folder / PLAN))) from None
    except (OSError, SafetensorError) as error:
        raise InvalidPlan(
            f"{folder} does not hold a compressed model ({error}): `Compressed.save` writes {PLAN} and {WEIGHTS}"
        ) from None
    rebuilt = copy_of(model)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(DRAWN)
            _rebuild(rebuilt, document.plan, values)
    except LowRankBenchError as error:
        raise InvalidPlan(f"{folder / PLAN} does not fit the model: {error}") from None
    except (RuntimeError, ValueError, TypeError, OverflowError, MemoryError) as error:  # torch, of shapes beyond reason
        raise InvalidPlan(f"{folder / PLAN} describes layers that cannot be built: {error}") from None
    if values:
        _fill(rebuilt, weights, folder)
    return Compressed(rebuilt.eval(), document.plan, document.cost, document.dense_cost)


def _rebuild(model: nn.Module, plan: Plan, values: bool) -> None:
    for name, layer in plan.layers.items():
        dense = named_layer(model, name)
        geometry = Geometry.of(dense).ungrouped() if layer.ungrouped else Geometry.of(dense)
        chain, bias = blank_chain(layer), dense.bias if dense.bias is None else dense.bias.to("meta")
        if not values:
            chain, bias = draw_chain(chain, geometry.kernel, geometry.groups), dense.bias
        swap(model, name, build(chain, geometry, bias, dense.weight.dtype))
    for name, width in plan.widths.items():
        resize(_module(model, name), width, f"layer {name!r}")


def _module(model: nn.Module, name: str) -> nn.Module:
    modules: dict[str, nn.Module] = dict(model.named_modules())
    if name not in modules:
        raise UnknownName("layer", name, modules)
    return modules[name]


def _fill(blank: nn.Module, weights: dict[str, Tensor], folder: Path) -> None:
    wanted = {name: tuple(t.shape) for name, t in blank.state_dict().items()}
    if wanted != (found := {name: tuple(t.shape) for name, t in weights.items()}):
        name = sorted(set(wanted.items()) ^ set(found.items()))[0][0]
        raise InvalidPlan(
            f"{folder / WEIGHTS}: tensor {name!r} has shape {found.get(name, 'missing')}, the plan wants "
            f"{wanted.get(name, 'none')}"
        )
    tied = _names_of_one(blank)
    blank.load_state_dict(weights, assign=True)  # to_empty() would import sympy: a second in every timed child
    for first, *others in tied:
        for other in others:
            place, _, kind = other.rpartition(".")
            setattr(blank.get_submodule(place), kind, blank.get_parameter(first))


def _names_of_one(model: nn.Module) -> list[list[str]]:
    """The names of each parameter."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return list(names.values())
