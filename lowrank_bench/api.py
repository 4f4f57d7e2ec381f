"""The few calls that a user's script needs, on one layer or one model."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from lowrank_bench.compression.calibration import first_images
from lowrank_bench.compression.geometry import Geometry, build
from lowrank_bench.compression.given_data import checked, epochs_of
from lowrank_bench.compression.history import History
from lowrank_bench.compression.method import Job, LayerMethod, Method
from lowrank_bench.compression.model import Compressed
from lowrank_bench.compression.modules import Factored
from lowrank_bench.compression.passes import check_module, copy_of, tensors_of
from lowrank_bench.compression.ranks import resolve_ranks
from lowrank_bench.compression.registry import method_class
from lowrank_bench.compression.surgery import check_finite, kernel_of
from lowrank_bench.errors import InvalidBudget, InvalidInput, InvalidOptions, InvalidRanks, UnsupportedLayer
from lowrank_bench.measurement.clock import Clock
from lowrank_bench.measurement.speedup import Speedup, Yardstick
from lowrank_bench.running.locks import say_waiting, timing_lock
from lowrank_bench.training.batches import rebatched
from lowrank_bench.training.recalibrate import RECALIBRATION_IMAGES, recalibrate
from lowrank_bench.training.recipes import Recipe, get_recipe
from lowrank_bench.training.tuning import check_recipe, tune
from lowrank_bench.trial import CONTROL, Budget, NetworkRanks, Ranks

Batches = Iterable[tuple[Tensor, Tensor]]
TOLD = 3  # reasons why layers were left as they are


def factorize(
    layer: nn.Conv2d | nn.Linear, method: str | type[Method], ranks: Ranks, *, seed: int = 0, **options: Any
) -> Factored:
    """Factor one layer: an ``nn.Sequential`` that takes its place, in its dtype and with its bias.

    ``method``: a name, or a class, which need not be registered. ``ranks``: "full" (exact), a tuple, or an integer,
    whose meaning is its own (cp: R; tucker: (r, r); jaderberg: K; channel_svd: R; tt_conv: every TT rank; denton: K
    per block). The algebra is done in float64. Raises UnknownName, InvalidOptions, InvalidRanks, InvalidWeights,
    InvalidInput for a layer that is not on the CPU, and UnsupportedLayer where the method does not take this layer or
    does not work layer by layer.
    """
    instance = method_class(method)(seed=seed, **options)
    if not isinstance(instance, LayerMethod):
        raise UnsupportedLayer(
            f"method {instance.name!r} does not work layer by layer: use lowrank_bench.compress on a whole model"
        )
    instance.check_alone()
    geometry = Geometry.of(layer)
    if reason := instance.refuse(geometry):
        raise UnsupportedLayer(reason)
    _check_on_cpu(layer, "layer")
    check_finite(layer.weight, "layer")
    target = instance.target_geometry(geometry)
    weight = kernel_of(layer, target.groups)
    chosen = resolve_ranks(instance, weight, target.groups, ranks, "layer")
    if chosen is None:
        raise InvalidRanks(f"{ranks}: rank 0, nothing in this kernel stands out from noise; leave the layer dense")
    with torch.inference_mode(False):  # its weights are to be trained
        return build(instance.factorize_layer(weight, target.groups, chosen), target, layer.bias, layer.weight.dtype)


def compress(
    model: nn.Module,
    method: str | type[Method],
    budget: Budget | None = None,
    ranks: NetworkRanks | None = None,
    options: Mapping[str, Any] | None = None,
    input_size: tuple[int, int, int] = (3, 224, 224),
    data: Batches | Callable[[int], Batches] | None = None,
    recipe: str | None = None,
    seed: int = 0,
    speed_only: bool = False,
) -> Compressed:
    """A compressed copy of a model, which itself is not changed: on the CPU, in eval mode, and as a sweep makes it,
    factored, with batch norms that know it, and tuned.

    Exactly one of ``budget`` and ``ranks`` ({layer: ranks}, "evbmf", "energy:0.9", or one rule for all).
    ``input_size``: (C, H, W) of one image. ``data``: batches of (images, labels) that can be read again and again, or a
    function epoch -> batches, images (N, C, H, W) in the model's dtype and labels (N,). Methods that calibrate or train
    do so on them, and where a layer was changed the running statistics of all batch norms are estimated anew on the
    first 2,048 images; without ``data`` they stay those of the dense model.

    ``recipe``: how the result is tuned, as ``training.tuning.tune`` says, on ``data``, and before that how a method
    trains that does so by the recipe; None or "none" tunes nothing. A step takes at most one batch of data and at most
    one of the recipe's, mostly 256 images, so that with batches as large an epoch is as long as the recipe says.
    None of ``data`` is held out: no accuracy is measured, every epoch is run whatever the recipe's patience, and the
    last one counts. ``history`` of what comes back has the epochs of the method's own training, then those of tuning.

    Where ranks leave every layer as it is, a warning says why.

    ``speed_only``: the model's weights mean nothing, as those of a network that is not trained: every layer gets one
    fraction of its cost, and the factors are drawn, not fitted, as on task ``speed``.

    A budget in latency is met by timing on this machine, which no run of lowrank-bench uses meanwhile. Raises
    InvalidInput, also for a recipe that trains without ``data``, InvalidBudget, InvalidRanks, InvalidData, Diverged,
    UnsupportedLayer and what ``factorize`` raises.
    """
    cls = method_class(method)
    check_module(model, "model")
    _check_on_cpu(model, "model")
    options = {} if options is None else options
    if not isinstance(options, Mapping):
        raise InvalidOptions(f"options = {options!r}: a mapping is wanted, such as {{'align': 16}}")
    if taken := options.keys() & {"self", "seed"}:
        raise InvalidOptions(f"options: {min(taken)!r} is no option of any method; a seed is given as seed=")
    if budget is not None and not isinstance(budget, Budget):
        raise InvalidBudget(f"budget = {budget!r}: a Budget is wanted, such as lowrank_bench.Budget(macs=4)")
    if (budget is None) == (ranks is None) and cls.name != CONTROL:
        raise InvalidInput("give exactly one of budget (e.g. Budget(macs=4)) and ranks (e.g. {'conv1': 16} or 'evbmf')")
    if cls.name == CONTROL and (budget is not None or ranks is not None):
        raise InvalidInput(f"method {CONTROL!r} is the dense network as it is: leave budget and ranks out")
    tuning = get_recipe(recipe or "none")
    if tuning.epochs and data is None:
        raise InvalidInput(
            f"the compressed model is tuned for the {tuning.epochs} epochs of recipe {recipe!r}: give data, batches of "
            "(images, labels), or leave recipe out"
        )
    batches = None
    if data is not None:
        dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.get_default_dtype())
        batches = checked(epochs_of(data), input_size, dtype)
    instance = cls(seed=seed, **options)
    check_recipe(instance, tuning)
    job = Job(input_size, budget, ranks, batches, recipe, speed_only=speed_only, timer=Clock(_alone))
    with torch.inference_mode(False), torch.enable_grad():  # some methods need gradients, and what is made is trained
        if any(value.is_inference() for value in tensors_of(model)):
            model = copy_of(model)  # which has ordinary tensors
        compressed = instance.compress(model, job)
        compressed.model.eval()
        if ranks is not None and not _changes(compressed):
            warnings.warn(f"{cls.name} left every layer as it is: {_reasons(compressed)}", stacklevel=2)
        return _finished(compressed, model, instance, job, tuning)


def measure_speedup(
    dense: nn.Module,
    compressed: nn.Module,
    input_size: tuple[int, int, int],
    batch: int = 1,
    runtime: str = "eager",
    threads: int = 1,
    precision: float = 0.01,
    max_seconds: float = 60.0,
    calibration: Tensor | None = None,
) -> Speedup:
    """Time both models in interleaved pairs on one random input of shape (batch, C, H, W), input_size = (C, H, W).
    Meanwhile no run of lowrank-bench uses this machine; what runs now is waited for.

    Both run in the same runtime, on the CPU, in eval and inference mode; neither is changed, and torch's global state
    is as before afterwards. Batch norm is timed as it stands: fold it on both sides or on neither. ``precision``:
    relative half-width of the interval at which timing stops; ``max_seconds`` bounds the timing, not the conversion.
    ``calibration``: images (M, C, H, W) from which a runtime that quantizes learns the ranges of activations.
    Raises InvalidInput, UnknownName, RuntimeMissing and ExportFailed.
    """
    check_module(dense, "dense model")
    check_module(compressed, "compressed model")
    for model, what in ((dense, "dense model"), (compressed, "compressed model")):
        if any(value.is_meta for value in tensors_of(model)):
            raise InvalidInput(f"the {what} is on device 'meta', without values: load its weights, to_empty() them")
    yardstick = Yardstick(dense, input_size, batch, runtime, threads, precision, max_seconds, calibration=calibration)
    with _alone():
        return yardstick.speedup(compressed)


def _alone() -> AbstractContextManager[None]:
    return timing_lock(waiting=say_waiting)


def _finished(compressed: Compressed, dense: nn.Module, method: Method, job: Job, recipe: Recipe) -> Compressed:
    """Recalibrated and tuned on the job's data, where there are any."""
    if (data := job.data) is None:
        return compressed

    def settle(model: nn.Module) -> None:
        recalibrate(model, first_images(data(0), job.input_size, RECALIBRATION_IMAGES))

    if _changes(compressed):
        settle(compressed.model)
    if not recipe.epochs:
        return compressed
    tuned, history = tune(
        compressed,
        copy_of(dense).eval(),
        method,
        job,
        lambda epoch: rebatched(data(epoch), recipe.batch_size),
        recipe,
        seed=method.seed,
        settle=settle,
    )
    made = compressed.history
    return replace(tuned, history=History(made.epochs + history.epochs, made.kept + history.kept))


def _changes(compressed: Compressed) -> bool:
    return bool(compressed.plan.layers or compressed.plan.widths)


def _reasons(compressed: Compressed) -> str:
    """Why layers stayed dense: the first ones' reasons."""
    reasons = [f"{layer}: {reason}" for layer, reason in compressed.plan.skipped.items()]
    rest = [f"and {len(reasons) - TOLD} more"] if len(reasons) > TOLD else []
    return "; ".join(reasons[:TOLD] + rest) or "there is none that it could factor"


def _check_on_cpu(module: nn.Module, what: str) -> None:
    for name, value in chain(module.named_parameters(), module.named_buffers()):
        if value.device.type != "cpu":
            raise InvalidInput(
                f"the {what} holds {name!r} on device {str(value.device)!r}, and is compressed on the CPU: give "
                f"{what}.cpu(), and move what comes back"
            )
