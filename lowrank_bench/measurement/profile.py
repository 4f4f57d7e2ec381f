"""Where a network's time goes, layer by layer: dense against compressed, each beside a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from lowrank_bench.compression.passes import copy_of
from lowrank_bench.compression.watching import input_of
from lowrank_bench.errors import InvalidInput
from lowrank_bench.measurement.environment import Environment, fingerprint
from lowrank_bench.measurement.limits import Work, work_of
from lowrank_bench.measurement.peak import Peak, peak
from lowrank_bench.measurement.runtimes import RUNTIMES, arithmetic_of, inference_state, prepare
from lowrank_bench.measurement.speedup import check_setting, random_input
from lowrank_bench.measurement.timing import Pairs, StopReason, check_bounds, time_pairs

PRECISION = 0.01


class Side(BaseModel):
    """One layer, or the network, of one of the two models, over the whole batch.

    ``ms``, ``p90_ms``: median and 90th percentile of the time of a call, where short calls count by the means of loops;
    ``mac_ms``, ``traffic_ms``: what arithmetic and memory traffic take at the machine's measured peak; ``limit_ms``:
    the sum over its stages of the larger of both, a reference that a layer whose data stay in cache may beat.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ms: float
    p90_ms: float
    stages: int
    macs: int
    bytes: int
    mac_ms: float
    traffic_ms: float
    limit_ms: float

    @property
    def intensity(self) -> float:
        """Floating-point operations for each byte moved."""
        return 2 * self.macs / self.bytes

    @property
    def gflops(self) -> float:
        """10^9 floating-point operations a second, as measured."""
        return 2 * self.macs / self.ms / 1e6


class LayerProfile(BaseModel):
    """One layer in both models, timed in interleaved pairs: median of pair ratios with its 95 % interval, of so many
    pairs, and why there were no more.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    dense: Side
    compressed: Side
    ratio: float
    low: float
    high: float
    pairs: int
    stop_reason: StopReason

    @property
    def macs_ratio(self) -> float:
        """The MAC bound of the speedup."""
        return self.dense.macs / self.compressed.macs


class Profile(BaseModel):
    """Every convolution and linear layer in the order of their calls, then the network as a whole; on which machine, in
    which state, and when.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    runtime: str
    threads: int
    batch: int
    peak: Peak
    layers: list[LayerProfile]
    network: LayerProfile
    environment: Environment
    finished: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))


def profile(
    dense: nn.Module,
    compressed: nn.Module,
    input_size: tuple[int, int, int],
    *,
    batch: int = 1,
    runtime: str = "eager-nhwc",
    threads: int = 1,
    seconds: float = 2.0,
) -> Profile:
    """Time every convolution and linear layer of two models of one architecture, at most ``seconds`` each.

    A layer is prepared and timed on its own, on a random input of the shape that reaches it, so any runtime can be
    asked; what stands between the layers (activations, pooling, batch norm) shows as the difference between their sum
    and the network. A layer that is called several times stands for its first call. The network's work is the sum of
    its layers'. Raises what ``measure_speedup`` raises, and InvalidInput for a runtime of fewer bits than those in
    which limits are counted.
    """
    check_setting(input_size, batch, threads)
    check_bounds(PRECISION, seconds)
    if (arithmetic := arithmetic_of(runtime)) != "float32":
        like = [name for name in RUNTIMES if arithmetic_of(name) == "float32"]
        raise InvalidInput(
            f"runtime {runtime!r} computes in {arithmetic}, and limits are those of float32: profile {', '.join(like)}"
        )
    images = random_input(dense, (batch, *input_size))
    timer = _Timer(runtime, threads, seconds)
    environment = fingerprint()  # its load is that of others, before this loads the machine
    before = peak(threads)
    timed: list[_Timed] = []
    kinds = {name: type(layer) for name, layer in dense.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    shapes, their_shapes = (_input_shapes(model, kinds, images) for model in (dense, compressed))
    for name, shape in shapes.items():
        layers = dense.get_submodule(name), compressed.get_submodule(name)
        inputs = random_input(dense, shape), random_input(dense, their_shapes[name])
        works = work_of(layers[0], inputs[0]), work_of(layers[1], inputs[1])
        timed.append(timer.time(name, layers, inputs, works))
    works = [work for one in timed for work in one.works[0]], [work for one in timed for work in one.works[1]]
    network = timer.time("network", (dense, compressed), (images, images), works)
    after = peak(threads)  # a limit is sought: what slowed the machine down at one time may be gone at another
    best = Peak(max(before.gflops, after.gflops), max(before.gbytes, after.gbytes))
    return Profile(
        runtime=runtime,
        threads=threads,
        batch=batch,
        peak=best,
        layers=[one.beside(best) for one in timed],
        network=network.beside(best),
        environment=environment,
    )


@dataclass(frozen=True)
class _Timed:
    """What was timed, and its work in the dense and in the compressed model."""

    name: str
    pairs: Pairs
    works: tuple[Sequence[Work], Sequence[Work]]

    def beside(self, machine: Peak) -> LayerProfile:
        ratio, low, high = self.pairs.interval
        return LayerProfile(
            name=self.name,
            dense=_side(self.pairs.milliseconds("dense"), self.works[0], machine),
            compressed=_side(self.pairs.milliseconds("compressed"), self.works[1], machine),
            ratio=ratio,
            low=low,
            high=high,
            pairs=len(self.pairs),
            stop_reason=self.pairs.stop_reason,
        )


@dataclass(frozen=True)
class _Timer:
    runtime: str
    threads: int
    seconds: float

    def time(
        self,
        name: str,
        models: tuple[nn.Module, nn.Module],
        inputs: tuple[Tensor, Tensor],
        works: tuple[Sequence[Work], Sequence[Work]],
    ) -> _Timed:
        pairs = zip(models, inputs, strict=True)
        ours, theirs = (prepare(self.runtime, model, x, self.threads) for model, x in pairs)
        with inference_state(self.threads):
            return _Timed(name, time_pairs(ours.run, theirs.run, precision=PRECISION, max_seconds=self.seconds), works)


def _side(ms: tuple[float, float], works: Sequence[Work], machine: Peak) -> Side:
    return Side(
        ms=ms[0],
        p90_ms=ms[1],
        stages=len(works),
        macs=sum(work.macs for work in works),
        bytes=sum(work.bytes for work in works),
        mac_ms=sum(work.mac_ms(machine) for work in works),
        traffic_ms=sum(work.traffic_ms(machine) for work in works),
        limit_ms=sum(work.limit_ms(machine) for work in works),
    )


def _input_shapes(model: nn.Module, kinds: Mapping[str, type[nn.Module]], images: Tensor) -> dict[str, tuple[int, ...]]:
    """Shape of what reaches each layer in its first call, in the order of the calls; what reaches a linear one is taken
    as rows, however many dimensions it has. ``kinds``: of the dense layers, by name.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    model = copy_of(model).eval()

    def recorder(name: str) -> Any:
        def record(_layer: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
            x = input_of(inputs, named)
            shapes.setdefault(name, tuple((x.flatten(0, -2) if issubclass(kinds[name], nn.Linear) else x).shape))

        return record

    hooks = [model.get_submodule(name).register_forward_pre_hook(recorder(name), with_kwargs=True) for name in kinds]
    try:
        with torch.inference_mode():
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return shapes
