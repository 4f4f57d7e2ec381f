"""Shipped weights: float16 safetensors with their recipe and accuracy in the metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from lowrank_bench.atomic import drafts, write_tensors
from lowrank_bench.errors import DataMissing


def save_checkpoint(network: nn.Module, path: Path, **facts: Any) -> None:
    """Write the weights in float16, and ``facts`` (anything JSON takes) in the metadata. Raises NotWritten."""
    state = {name: value.to(torch.float16) for name, value in network.state_dict().items()}
    with drafts(path) as (draft,):
        write_tensors(state, draft, {name: json.dumps(fact) for name, fact in facts.items()})


def load_checkpoint(model: nn.Module, path: Path) -> nn.Module:
    """Fill ``model`` from a checkpoint; returns it in float32 and eval mode. Raises DataMissing where there is none."""
    if not path.exists():
        remedy = f"reinstall lowrank-bench, or make one with `lowrank-bench train {path.stem}`"
        raise DataMissing(f"no checkpoint {path}: {remedy}")
    with safe_open(path, framework="pt") as file:
        model.load_state_dict({name: file.get_tensor(name).float() for name in file.keys()})  # noqa: SIM118  it is no dict
    return model.eval()


def checkpoint_facts(path: Path) -> dict[str, Any]:
    """Read what was saved beside the weights, such as the recipe and the accuracy on the test split."""
    with safe_open(path, framework="pt") as file:
        return {name: json.loads(fact) for name, fact in file.metadata().items()}
