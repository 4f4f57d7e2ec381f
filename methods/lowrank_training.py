"""Dense training towards low rank, then truncation: nuclear norm, trained rank pruning, or the LC algorithm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field, PositiveFloat, model_validator
from torch import Tensor, nn

from lowrank_bench.compression import method
from lowrank_bench.compression.compose import compose
from lowrank_bench.compression.layerwise import compress_layers
from lowrank_bench.compression.method import Job, LayerMethod, Method
from lowrank_bench.compression.model import Compressed
from lowrank_bench.compression.passes import copy_of
from lowrank_bench.compression.registry import method_class
from lowrank_bench.compression.surgery import named_layer
from lowrank_bench.errors import InvalidInput, InvalidOptions, UnsupportedLayer
from lowrank_bench.training.from_scratch import StartOptions, compress_from_scratch, scratch_version
from lowrank_bench.training.jobs import train_for
from lowrank_bench.training.loop import Regularizer
from lowrank_bench.training.recipes import Recipe, get_recipe
from lowrank_bench.training.regularizers import LearningCompression, NuclearNorm, RankPruning, UnfoldedKernel

SCHEMES = {"channel": "channel_svd", "spatial": "jaderberg"}

OPTIONS_OF = {"nuclear": {"strength"}, "trp": {"energy", "subgradient"}, "lc": {"mu"}}


class LowRankTrainingOptions(StartOptions):
    """``scheme``: the factors, channel (channel_svd) or spatial (jaderberg). ``every``: steps from one proximal step,
    cut or C step to the next. The others belong to one regulariser each: see lowrank_bench.training.regularizers.
    ``start`` and ``scratch_recipe``: see StartOptions; nothing is regularised from scratch.
    TRP's published energy of 0.9 goes with SGD at rate 0.1; AdamW's small steps do not win back so much at each cut.
    """

    regularizer: Literal["nuclear", "trp", "lc"] = "trp"
    scheme: Literal["channel", "spatial"] = "spatial"
    every: int = Field(default=5, ge=1)
    strength: float = Field(default=0.1, gt=0)
    energy: float = Field(default=0.98, gt=0, le=1)
    subgradient: float = Field(default=0.0, ge=0)
    mu: tuple[PositiveFloat, PositiveFloat] = (1.0, 1000.0)

    dense_only: ClassVar[set[str]] = {"regularizer", "every"}.union(*OPTIONS_OF.values())

    @model_validator(mode="after")
    def _belong(self) -> LowRankTrainingOptions:
        others = set[str]().union(*OPTIONS_OF.values()) - OPTIONS_OF[self.regularizer]
        if idle := sorted(self.model_fields_set & others):
            raise ValueError(f"{', '.join(idle)} would do nothing with regularizer={self.regularizer!r}: leave it out")
        return self


class LowRankTraining(Method):
    """Regularised training of the dense network towards low rank, then truncated SVD; or training of the truncated
    structure from scratch.

    ``regularizer``: "nuclear" (Alvarez & Salzmann 2017), "trp" (trained rank pruning, Xu et al. 2020) or "lc"
    (Idelbayev & Carreira-Perpinan 2020). A dense copy is trained by the job's recipe while its kernels are pulled
    towards low rank, then cut to the common budget by ``scheme``. LC learns the ranks: each C step shares the budget
    out anew, and the price that the common allocation finds stands for lambda. Not so of a latency, which does not
    depend on the values and takes up to a minute to meet: its ranks are those found before training. Only layers that
    the scheme would cut before training are regularised; what the scheme refuses stays dense (spatial: linear layers).

    ``start="scratch"`` trains the factors of ``scheme`` from random values by ``scratch_recipe``, with one batch norm
    behind each pair and none inside it (Tai et al. 2016).

    Not for free: this training comes before the common fine-tuning, as that of ``narrow`` does, and factored networks
    have none such. It is counted in the time to decompose, and the plan notes its epochs; a fair control is fine-tuned
    for as many more.
    """

    name, version = "lowrank_training", 1
    Options: ClassVar[type[method.Options]] = LowRankTrainingOptions
    options: LowRankTrainingOptions

    @property
    def versions(self) -> dict[str, int]:
        """Its own, that of the method whose factors and ranks it takes, and that of the recipe from scratch."""
        scheme = {"scheme": method_class(SCHEMES[self.options.scheme]).version}
        return super().versions | scheme | scratch_version(self.options.scratch_recipe)

    def compress(self, model: nn.Module, job: Job) -> Compressed:
        """Train, then cut; plain truncation with a recipe of no epochs. Or train the cut structure from scratch. Raises
        InvalidInput without data or recipe, UnsupportedLayer for a recipe that goes layer by layer or takes no labels,
        and InvalidOptions where the recipe ends before the first step of the regulariser.
        """
        scheme = method_class(SCHEMES[self.options.scheme])(seed=self.seed)
        assert isinstance(scheme, LayerMethod)  # both are
        if self.options.start == "scratch":
            return self._signed(compress_from_scratch(scheme, model, job, self.options.scratch_recipe))
        if job.recipe is None:
            raise InvalidInput(f"{self.name} trains: name a recipe, e.g. recipe='short' (recipe='none' only truncates)")
        recipe = get_recipe(job.recipe)
        self._check_recipe(recipe)
        if recipe.epochs and job.data is None:
            raise InvalidInput(
                f"{self.name} trains for the {recipe.epochs} epochs of recipe {recipe.name!r}: give data, batches of "
                "(images, labels), or recipe='none', which only truncates"
            )
        compressed = compress_layers(scheme, model, job)  # before training, so that a bad budget or rank costs no time
        if recipe.epochs:
            trained, cut, skipped = copy_of(model), job, dict[str, str]()
            if self.options.regularizer == "lc" and job.budget is not None and job.budget.metric == "latency":
                measured = {name: layer.ranks for name, layer in compressed.plan.layers.items()}
                cut, skipped = replace(job, budget=None, ranks={**measured}), compressed.skipped
            regularizer = self._regularizer(scheme, trained, list(compressed.plan.layers), cut, recipe)
            history = train_for(job, trained, recipe, seed=self.seed, regularizer=regularizer, teacher=model)
            compressed = replace(
                _noted(compress_layers(scheme, trained, cut), recipe.epochs, skipped),
                history=history,
            )
        return self._signed(compressed)

    def _check_recipe(self, recipe: Recipe) -> None:
        if recipe.layer_by_layer or recipe.unlabelled:
            does = "tunes one layer after the other" if recipe.layer_by_layer else "takes no labels"
            raise UnsupportedLayer(
                f"method {self.name!r} trains the whole dense network by labels, and recipe {recipe.name!r} {does}: "
                "choose another recipe, such as 'standard'"
            )
        steps, every = recipe.epochs * recipe.steps_per_epoch, self.options.every
        if 0 < steps < every:
            raise InvalidOptions(
                f"options of method {self.name!r}: every = {every}: recipe {recipe.name!r} has {steps} steps, so that "
                f"regularizer {self.options.regularizer!r} would never take one of its own: {steps} at most is wanted"
            )

    def _regularizer(
        self, scheme: LayerMethod, model: nn.Module, names: list[str], job: Job, recipe: Recipe
    ) -> Regularizer:
        layers = {name: named_layer(model, name) for name in names}
        options = self.options
        if options.regularizer == "lc":
            weights = {name: layer.weight for name, layer in layers.items()}

            def cut(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
                return _cut(scheme, model, job, values)

            return LearningCompression(weights, cut, options.mu, options.every, recipe.epochs * recipe.steps_per_epoch)
        kernels = [
            UnfoldedKernel(layer.weight, getattr(layer, "groups", 1), lambda kernel: _unfolded(scheme, kernel))
            for layer in layers.values()
        ]
        if options.regularizer == "nuclear":
            return NuclearNorm(kernels, recipe, options.strength, options.every)
        return RankPruning(kernels, options.energy, options.every, options.subgradient)

    def _signed(self, compressed: Compressed) -> Compressed:
        """The plan under this method's name."""
        options = self.options.model_dump(mode="json")
        update = {"method": self.name, "version": self.version, "options": options}
        return replace(compressed, plan=compressed.plan.model_copy(update=update))


def _unfolded(scheme: LayerMethod, kernel: Tensor) -> Tensor:
    (matrix,) = scheme.unfoldings(kernel)
    assert matrix is not None  # both schemes cut their one rank
    return matrix


def _noted(compressed: Compressed, epochs: int, skipped: Mapping[str, str]) -> Compressed:
    """The epochs in the plan's notes. An error is one of truncation alone: the dense kernel was trained, too.
    ``skipped``: reasons from before the training, which hold where they are given.
    """
    layers = {
        name: layer.model_copy(
            update={
                "error": None,
                "notes": layer.notes | {"truncation_error": layer.error, "regularised_epochs": epochs},
            }
        )
        for name, layer in compressed.plan.layers.items()
    }
    update = {"layers": layers, "skipped": compressed.skipped | dict(skipped)}
    return replace(compressed, plan=compressed.plan.model_copy(update=update))


def _cut(scheme: LayerMethod, model: nn.Module, job: Job, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The C step: the values that the layers have once a model that holds ``values`` is compressed."""
    draft = copy_of(model).cpu()
    for name, value in values.items():
        named_layer(draft, name).weight.data.copy_(value)
    compressed = compress_layers(scheme, draft, job)
    return {
        name: compose(compressed.model.get_submodule(name)).reshape(value.shape).to(value)
        if name in compressed.plan.layers
        else value
        for name, value in values.items()
    }
