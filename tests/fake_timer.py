"""A timer for latency budgets that computes its times."""

from __future__ import annotations

import torch
from torch import nn

import lowrank_bench as lrb
from lowrank_bench.compression.modules import Factored


class FakeTimer:
    """A machine on which a MAC takes a nanosecond; each further stage of a factored layer ``stage`` more, and within a
    network a factored layer ``slowdown`` times as long as alone.
    """

    def __init__(self, slowdown: float = 1.0, stage: float = 1e-6, rest: float = 1e-5) -> None:
        self.slowdown, self.stage, self.rest = slowdown, stage, rest
        self.asked: list[str] = []
        self.ratios: list[float] = []

    def seconds(self, model: nn.Module, shape: tuple[int, ...], budget: lrb.Budget) -> float:
        self.asked.append(str(model))
        if isinstance(model, nn.Sequential) and not isinstance(model, Factored):
            return self._network(model, shape)
        return self._layer(model, shape[1:])

    def ratio(self, dense: nn.Module, compressed: nn.Module, shape: tuple[int, ...], budget: lrb.Budget) -> float:
        self.ratios.append(self._network(dense, shape) / self._network(compressed, shape))
        return self.ratios[-1]

    def _layer(self, layer: nn.Module, size: tuple[int, ...]) -> float:
        stages = len(layer) if isinstance(layer, Factored) else 1
        return 1e-9 * lrb.count(layer, size).macs + self.stage * (stages - 1)

    def _network(self, model: nn.Module, shape: tuple[int, ...]) -> float:
        x, total = torch.zeros(1, *shape[1:]), self.rest
        for module in model.children():
            if isinstance(module, nn.Conv2d | nn.Linear | Factored):
                total += self._layer(module, x.shape[1:]) * (self.slowdown if isinstance(module, Factored) else 1)
            x = module(x).detach()
        return total
