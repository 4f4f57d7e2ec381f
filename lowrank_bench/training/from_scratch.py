"""Train a factored network from random values, with batch norm as in the papers, and fold that batch norm away."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import AfterValidator, model_validator
from torch import Tensor, nn

from lowrank_bench.compression.cost import count, trace
from lowrank_bench.compression.folding import fold_norm
from lowrank_bench.compression.layerwise import compress_layers, planned
from lowrank_bench.compression.method import Job, LayerMethod
from lowrank_bench.compression.model import Compressed
from lowrank_bench.compression.modules import Factored, RebuiltLinear
from lowrank_bench.compression.norms import following_norms
from lowrank_bench.compression.options import LayerOptions, Options
from lowrank_bench.compression.surgery import swap
from lowrank_bench.errors import InvalidInput, UnsupportedLayer
from lowrank_bench.recipe import Recipe
from lowrank_bench.training.jobs import train_for
from lowrank_bench.training.recipes import get_recipe


def _check_scratch_recipe(name: str | None) -> str | None:
    recipe = get_recipe(name or "none")
    if recipe.frozen_factors or recipe.layer_by_layer or recipe.distillation or recipe.side_by_side:
        raise ValueError(
            f"recipe {recipe.name!r} does not train every value by labels alone: name one that does, such as 'standard'"
        )
    return name


ScratchRecipe = Annotated[str | None, AfterValidator(_check_scratch_recipe)]
"""The option of that name: a recipe that trains from random values, without the dense network."""


def scratch_version(name: str | None) -> dict[str, int]:
    """The declared version of the recipe that a network is trained by from scratch, where the options name it."""
    return {} if name is None else {"scratch_recipe": get_recipe(name).version}


class StartOptions(Options):
    """``start``: "dense" factors the trained network; "scratch" takes its structure, with ranks that meet the budget,
    and trains that from random values by ``scratch_recipe``, by default the one that trained it. The ranks are chosen
    by the trained kernels unless ``allocation`` is "uniform".
    """

    start: Literal["dense", "scratch"] = "dense"
    scratch_recipe: ScratchRecipe = None

    dense_only: ClassVar[set[str]] = set()
    """Other options of the method that would do nothing from scratch."""

    @model_validator(mode="after")
    def _nothing_idle(self) -> StartOptions:
        idle = {"scratch_recipe"} if self.start == "dense" else self.dense_only
        if given := sorted(self.model_fields_set & idle):
            raise ValueError(f"{', '.join(given)} would do nothing with start={self.start!r}: leave it out")
        return self


class StartLayerOptions(LayerOptions, StartOptions):
    """``start`` and ``scratch_recipe``: see StartOptions."""

    dense_only: ClassVar[set[str]] = {"metric", "sequential", "centred"}

    @model_validator(mode="after")
    def _nothing_to_measure(self) -> StartLayerOptions:
        if self.start == "scratch" and self.allocation == "sensitivity":
            raise ValueError(
                "allocation='sensitivity' measures factors of trained kernels, which start='scratch' does not have: "
                "take 'uniform' or 'price'"
            )
        return self


class StartMethod(LayerMethod):
    """A layer-wise method whose networks can be trained from scratch instead."""

    Options: ClassVar[type[LayerOptions]] = StartLayerOptions
    options: StartLayerOptions

    @property
    def versions(self) -> dict[str, int]:
        """Its own, and that of the recipe from scratch."""
        return super().versions | scratch_version(self.options.scratch_recipe)

    def compress(self, model: nn.Module, job: Job) -> Compressed:
        """By factoring every layer, or trained from scratch."""
        if self.options.start == "scratch":
            return compress_from_scratch(self, model, job, self.options.scratch_recipe)
        return super().compress(model, job)

    def check_alone(self) -> None:
        """Raise UnsupportedLayer from scratch too, which is for whole networks."""
        super().check_alone()
        if self.options.start == "scratch":
            raise UnsupportedLayer(
                f"{self.name} with start='scratch' trains a whole network: use lowrank_bench.compress"
            )


class Normed(nn.Module):
    """A factored layer with one batch norm behind it and none inside (Tai et al. 2016; Garipov et al. 2016)."""

    def __init__(self, layer: Factored) -> None:
        super().__init__()
        self.layer = layer
        linear = any(isinstance(stage, nn.Linear | RebuiltLinear) for stage in layer)
        norm = nn.BatchNorm1d if linear else nn.BatchNorm2d
        self.norm = norm(layer.shape.T * layer.groups, dtype=next(layer.parameters()).dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(N, S, H, W) -> (N, T, H', W'), or (..., S) -> (..., T) with every row normalised alike."""
        y: Tensor = self.layer(x)
        rows = y.flatten(0, -2) if isinstance(self.norm, nn.BatchNorm1d) else y
        normed: Tensor = self.norm(rows)
        return normed.reshape(y.shape)


def recipe_from_scratch(job: Job, name: str | None) -> Recipe:
    """The recipe of that name, or else the one that trained the job's model. Raises InvalidInput where that is not
    known, and without the data that it needs.
    """
    if (name := name or job.trained_by) is None:
        raise InvalidInput(
            "what trained this network is not known, so nor is how to train another from scratch: give the option "
            "scratch_recipe, such as 'standard'"
        )
    recipe = get_recipe(name)
    if recipe.epochs and job.data is None:
        raise InvalidInput(
            f"training from scratch takes the {recipe.epochs} epochs of recipe {recipe.name!r}: give data, batches of "
            "(images, labels)"
        )
    return recipe


def compress_from_scratch(method: LayerMethod, model: nn.Module, job: Job, recipe_name: str | None) -> Compressed:
    """A network of the structure and ranks that ``method`` gives the model, trained from scratch by that recipe; see
    recipe_from_scratch.

    Ordinary layers start as PyTorch resets them, factors by He et al. 2015 (see draw_chain). While it trains, each
    factored layer has one batch norm behind it; at the end that is folded into the layer, exactly. None is put behind a
    layer without a bias, which has no place for the shift (such layers have a norm behind them as a rule), nor where a
    norm follows or the network ends. A plan's notes hold ``scratch_epochs`` and ``folded_norm``, 1 or 0. Where the
    last stage ties its output channels, the fold adds one value a channel to the layer: see scale_outputs.

    Raises InvalidInput without data, UnsupportedLayer for a network with parameters that nothing resets and under a
    recipe that factors the dense network once more, layer by layer, or runs its layers beside the factored ones; and
    what compress_layers raises. For speed alone the network stays untrained, and no recipe is needed.
    """
    _check_tuning(job.recipe)
    recipe = get_recipe("none") if job.speed_only else recipe_from_scratch(job, recipe_name)
    with torch.random.fork_rng():
        torch.manual_seed(method.seed)
        compressed = compress_layers(method, model, job, draw=True)
        network = compressed.model
        _reset(network)
    normed = _add_norms(network, list(compressed.plan.layers), job.input_size)
    history = train_for(job, network, recipe, seed=method.seed)
    sites = trace(model, job.input_size)
    layers = dict(compressed.plan.layers)
    for name, layer in layers.items():
        notes = layer.notes | {"scratch_epochs": recipe.epochs, "folded_norm": int(name in normed)}
        if name in normed:
            folded = fold_norm(normed[name].layer, normed[name].norm, method.target_geometry(sites[name].geometry))
            swap(network, name, folded)
            layer = planned(sites[name], folded.chain(), layer.ranks, None, layer.ungrouped)
        layers[name] = layer.model_copy(update={"notes": notes})
    plan = compressed.plan.model_copy(update={"layers": layers})
    return replace(compressed, plan=plan, cost=count(network, job.input_size), history=history)


def _check_tuning(name: str | None) -> None:
    tuned = get_recipe(name or "none")
    if tuned.layer_by_layer or tuned.side_by_side:
        does = "factors that layer by layer" if tuned.layer_by_layer else "tunes towards its layers"
        raise UnsupportedLayer(f"start='scratch' takes no values from the dense network, and recipe {name!r} {does}")


def _reset(module: nn.Module, name: str = "") -> None:
    """Forget what was learnt, but for the factored layers, which were drawn."""
    if isinstance(module, Factored):
        return
    if callable(reset := getattr(module, "reset_parameters", None)):
        reset()
    elif any(True for _ in module.parameters(recurse=False)):
        raise UnsupportedLayer(
            f"{name or 'the model'} ({type(module).__name__}) holds parameters and has no reset_parameters(): this "
            "network cannot be trained from scratch"
        )
    for child_name, child in module.named_children():
        _reset(child, f"{name}.{child_name}" if name else child_name)


def _add_norms(network: nn.Module, names: list[str], input_size: tuple[int, int, int]) -> dict[str, Normed]:
    layers = {name: layer for name in names if isinstance(layer := network.get_submodule(name), Factored)}
    settled = following_norms(network, input_size, layers)
    normed = {
        name: Normed(layer) for name, layer in layers.items() if name not in settled and layer.output_bias() is not None
    }
    for name, layer in normed.items():
        swap(network, name, layer)
    return normed
