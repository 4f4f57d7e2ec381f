"""Tune a compressed network by a recipe: all layers at once or one after the other, factors trained or frozen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

from torch import nn

from lowrank_bench.compression.cost import trace
from lowrank_bench.compression.history import Epoch, History
from lowrank_bench.compression.layerwise import factor_layer
from lowrank_bench.compression.method import Batches, Job, LayerMethod, Method
from lowrank_bench.compression.model import Compressed
from lowrank_bench.compression.modules import Factored
from lowrank_bench.compression.norms import weighing_norms
from lowrank_bench.compression.passes import copy_of
from lowrank_bench.compression.targets import Targets
from lowrank_bench.errors import UnsupportedLayer
from lowrank_bench.recipe import Recipe
from lowrank_bench.training.loop import Progress, Regularizer, train
from lowrank_bench.training.side_by_side import side_by_side
from lowrank_bench.trial import CONTROL


def check_recipe(method: Method, recipe: Recipe) -> None:
    """Raise UnsupportedLayer where a recipe goes layer by layer and the method does not; the dense control may."""
    if recipe.layer_by_layer and not isinstance(method, LayerMethod) and method.name != CONTROL:
        raise UnsupportedLayer(
            f"recipe {recipe.name!r} tunes between the factorings of single layers, and method {method.name!r} "
            "does not work layer by layer: choose another recipe"
        )


def tune(
    compressed: Compressed,
    dense: nn.Module,
    method: Method,
    job: Job,
    batches: Batches,
    recipe: Recipe,
    *,
    seed: int = 0,
    validate: Callable[[nn.Module], float] | None = None,
    progress: Progress | None = None,
    settle: Callable[[nn.Module], object] = lambda model: None,
    resume: Path | None = None,
) -> tuple[Compressed, History]:
    """Tune what ``method`` made of ``dense`` for ``job``; ``validate`` and ``progress`` as in ``train``.
    ``compressed.model`` is trained in place, unless the recipe goes layer by layer. A recipe with distillation learns
    from ``dense``, and one with ``side_by_side`` runs its layers beside the factored ones, see training.side_by_side.
    ``resume``: as in ``train``; tuning layer by layer keeps a file of that name and a number for every layer.

    Layer by layer, after Lebedev et al. 2015, the layers are factored again one at a time, in network order, each from
    the kernel that it has in the network tuned so far, at the ranks chosen for the dense one; the plan's errors are
    against those kernels. Tuning follows each layer but the last of several, as in the paper's two experiments: CharNet
    is tuned between its two layers and not after the second, AlexNet after its only one. ``settle``, such as to
    recalibrate batch norm, is called on the model after each factoring, and with "slices", where only the dense network
    runs, before each judgement and at the end.

    The dense control, with no factored layer, is trained for as many steps, whatever the recipe; but with "slices", of
    which it has none, it stays as it is. Raises UnsupportedLayer as check_recipe does, and what ``train`` raises.
    """
    check_recipe(method, recipe)
    passes = count()  # no round of tuning sees the same pass over the data as another
    steps = recipe.epochs * recipe.steps_per_epoch

    def run(model: nn.Module, part: Recipe, done: int, kept: Path | None, beside: Sequence[str] = ()) -> History:
        def report(step: int, _steps: int, loss: float) -> None:
            if progress is not None:
                progress(done + step, steps, loss)

        def settled() -> nn.Module:
            if part.unlabelled:
                settle(model)
            return model

        with _frozen(model, recipe), _beside(model, dense, part, beside) as (network, regularizer):
            history = train(
                network,
                lambda _pass: batches(next(passes)),
                part,
                seed=seed,
                validate=None if validate is None else lambda _network: validate(settled()),
                progress=report,
                regularizer=regularizer,
                teacher=dense,
                resume=kept,
            )
        settled()
        return history

    if not (recipe.layer_by_layer and isinstance(method, LayerMethod) and compressed.plan.layers):
        factored = [*compressed.plan.layers]
        if recipe.side_by_side == "slices" and not factored:
            return compressed, History()
        return compressed, run(compressed.model, recipe, 0, resume, factored)
    model, sites = copy_of(dense), trace(dense, job.input_size)
    layers, epochs, kept, done = dict(compressed.plan.layers), list[Epoch](), 0, 0
    tuned_after = list(layers)[:-1] or list(layers)
    rounds = dict(zip(tuned_after, recipe.shared(len(tuned_after)), strict=True))
    norms = weighing_norms(method, dense, job, {name: sites[name] for name in compressed.plan.layers})
    for number, (name, layer) in enumerate(compressed.plan.layers.items()):
        geometry = method.target_geometry(sites[name].geometry)
        target = Targets(method.options, model, job, {name: geometry}).of(name, model)
        layers[name] = factor_layer(method, model, name, sites[name], layer.ranks, target, norms.get(name))
        settle(model)
        if name in rounds:
            file = None if resume is None else resume.with_name(f"{resume.stem}-{number}{resume.suffix}")
            history = run(model, rounds[name], done, file)
            epochs, kept = [*epochs, *history.epochs], kept + history.kept
            done += rounds[name].epochs * rounds[name].steps_per_epoch
    plan = compressed.plan.model_copy(update={"layers": layers})
    return replace(compressed, model=model, plan=plan), History(tuple(epochs), kept)


@contextmanager
def _beside(
    model: nn.Module, dense: nn.Module, recipe: Recipe, names: Sequence[str]
) -> Iterator[tuple[nn.Module, Regularizer | None]]:
    """The network to train, and what acts on it, as the recipe wants it for the factored layers of these names."""
    if recipe.side_by_side is None or not names:
        yield model, None
        return
    steps = recipe.epochs * recipe.steps_per_epoch
    with side_by_side(recipe.side_by_side, model, dense, names, steps) as pair:
        yield pair


@contextmanager
def _frozen(model: nn.Module, recipe: Recipe) -> Iterator[None]:
    """Hold the parameters of factored layers where the recipe wants it; afterwards they require gradients again."""
    factored = [layer for layer in model.modules() if isinstance(layer, Factored)] if recipe.frozen_factors else []
    held = [parameter for layer in factored for parameter in layer.parameters() if parameter.requires_grad]
    for parameter in held:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in held:
            parameter.requires_grad_(True)
