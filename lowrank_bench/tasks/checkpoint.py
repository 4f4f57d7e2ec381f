"""Weights in safetensors: those of the tasks' own networks, in float16 with their recipe and accuracy in the metadata,
and those that a user brings.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from lowrank_bench.atomic import drafts, write_tensors
from lowrank_bench.errors import DataMissing, InvalidWeights

SHOWN = 3
NAME_ANOTHER = "name another file"
WRAPPERS = "module.", "_orig_mod."
"""What DataParallel and torch.compile put before the names of a network's weights."""
COUNTER = "num_batches_tracked"
"""Of a batch norm; files of old releases have none, and a trained network does not read it."""


def round_to_half(network: nn.Module) -> None:
    """Round weights and buffers, in place, to what float16 holds. Raises InvalidWeights for values beyond it."""
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            half = value.to(torch.float16)
            if not torch.isfinite(half).all():
                raise InvalidWeights(
                    f"{name} of the trained network holds values that float16 cannot hold, up to "
                    f"{float(value.abs().max()):.3g}: train it with another seed"
                )
            value.copy_(half)


def save_checkpoint(network: nn.Module, path: Path, **facts: Any) -> None:
    """Write the weights in float16, and ``facts`` (anything JSON takes) in the metadata. Raises NotWritten."""
    state = {
        name: value.to(torch.float16) if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }
    with drafts(path) as (draft,):
        write_tensors(state, draft, {name: json.dumps(fact) for name, fact in facts.items()})


def load_checkpoint(model: nn.Module, path: Path, remedy: str = NAME_ANOTHER, spare: tuple[str, ...] = ()) -> nn.Module:
    """Fill ``model`` from a safetensors file; returns it in float32 and eval mode. ``spare``: modules whose weights the
    file may hold though the model has no such module.

    Raises DataMissing, with the ``remedy``, where there is none, and InvalidWeights where the file is not of that
    format, holds values that are not finite, or belongs to another architecture.
    """
    state = _unwrapped(_read(path, remedy), model.state_dict())
    idle = [module for module in spare if getattr(model, module, None) is None]
    state = {
        name: value.float() if value.is_floating_point() else value
        for name, value in state.items()
        if name.partition(".")[0] not in idle
    }
    _check_fit(model, state, path)
    model.float().load_state_dict(state)
    return model.eval()


def weights_checksum(path: Path) -> int:
    """See state_checksum: that of every file with the same weights, whatever else it tells of them. Raises as
    ``load_checkpoint`` does.
    """
    return state_checksum(_read(path, NAME_ANOTHER))


def state_checksum(state: Mapping[str, Tensor]) -> int:
    """CRC-32 of names, types, shapes and values."""
    found = 0
    for name, value in sorted(state.items()):
        found = zlib.crc32(f"{name} {value.dtype} {tuple(value.shape)}".encode(), found)
        found = zlib.crc32(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes(), found)
    return found


def checkpoint_facts(path: Path) -> dict[str, Any]:
    """Read what was saved beside the weights, such as the recipe and the accuracy on the test split. Raises
    InvalidWeights for a damaged file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: json.loads(fact) for name, fact in (file.metadata() or {}).items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise InvalidWeights(f"{path} is damaged ({error}): remove it, then train again") from None


def _read(path: Path, remedy: str) -> dict[str, Tensor]:
    if not path.is_file():
        raise DataMissing(f"no checkpoint {path}: {remedy}")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict
    except (SafetensorError, OSError) as error:
        raise InvalidWeights(
            f"{path} is not a safetensors file ({error}): "
            + (
                "write one with safetensors.torch.save_file(model.state_dict(), FILE); pickled checkpoints are not read"
                if remedy == NAME_ANOTHER
                else f"remove it, then {remedy}"
            )
        ) from None


def _unwrapped(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefixes of wrappers that every name has."""
    for prefix in WRAPPERS:
        if (
            state
            and all(name.startswith(prefix) for name in state)
            and not any(name.startswith(prefix) for name in own)
        ):
            return _unwrapped({name.removeprefix(prefix): value for name, value in state.items()}, own)
    return state


def _check_fit(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    own = model.state_dict()
    wrong = [f"{name} is missing" for name in own if name not in state and not name.endswith(COUNTER)]
    wrong += [f"{name} has no place in it" for name in state if name not in own]
    wrong += [
        f"{name} has shape {tuple(state[name].shape)} in the file and {tuple(value.shape)} in the network"
        for name, value in own.items()
        if name in state and state[name].shape != value.shape
    ]
    if wrong:
        more = f", and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise InvalidWeights(
            f"{path} holds the weights of another architecture than {type(model).__name__}: "
            f"{'; '.join(wrong[:SHOWN])}{more}"
        )
    for name, value in state.items():
        if not torch.isfinite(value).all():
            raise InvalidWeights(f"{path}: {name} holds values that are not finite: save the weights again")
