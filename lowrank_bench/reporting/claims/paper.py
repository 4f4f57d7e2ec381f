"""A paper as data: the sweeps that repeat its experiments, and what it claims of them. One TOML file each."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from lowrank_bench.errors import InvalidSweep, LowRankBenchError, UnknownName
from lowrank_bench.running.sweep import Sweep, parse_toml
from lowrank_bench.running.sweep_tables import MethodChoice, Table
from lowrank_bench.shipped import PAPERS, paper_names
from lowrank_bench.trial import Budget, NetworkRanks, Trial

QUICK_SECONDS, QUICK_PRECISION, QUICK_RECIPE = 1.5, 0.05, "short"

# fmt: off
Metric = Literal[
    "speedup", "realised", "practical", "loss", "loss_as_it_came", "loss_ratio", "params_ratio", "macs_ratio",
    "layer_params_ratio", "layer_macs_ratio", "weight_error", "weight_error_ratio",
]
# fmt: on
TIMED = {"speedup", "realised", "practical"}
IN_POINTS = {"loss", "loss_as_it_came"}
COMPARED = {"loss_ratio", "weight_error_ratio"}
OF_LAYERS = {"layer_params_ratio", "layer_macs_ratio", "weight_error", "weight_error_ratio"}


class Quick(Table):
    """What of an experiment remains with ``--quick``; what is not given remains whole."""

    models: list[str] | None = None
    methods: list[MethodChoice | str] | None = None
    budgets: list[Budget] | None = None
    ranks: list[NetworkRanks] | None = None
    runtimes: list[str] | None = None


class Experiment(Sweep):
    """A sweep as in any sweep file, and its short form; without ``quick`` it is left out of ``--quick``. ``fits``: the
    layer whose errors at all ranks the page lists, with what they cost in accuracy.
    """

    fits: str | None = None
    quick: Quick | None = None

    def shortened(self) -> Experiment | None:
        """The first seed, one process of 1.5 s for each time, recipe "short" for every recipe that tunes."""
        if self.quick is None:
            return None
        table = self.sweep.model_dump() | self.quick.model_dump(exclude_none=True, exclude={"runtimes"})
        table |= {"seeds": self.sweep.seeds[:1], "recipe": "none" if self.sweep.recipe == "none" else QUICK_RECIPE}
        measure = None
        if self.measure is not None:
            measure = self.measure.model_dump() | {
                "runtimes": self.quick.runtimes or self.measure.runtimes[:1],
                "max_seconds": min(QUICK_SECONDS, self.measure.max_seconds),
                "precision": max(QUICK_PRECISION, self.measure.precision),
                "processes": 1,
                "seeds": [],
            }
        return Experiment.model_validate({"sweep": table, "measure": measure, "fits": self.fits})


class Models(Table):
    """Which of an experiment's models are meant: those that agree in what is given. ``options``: all that are not the
    method's defaults. ``runtime``: None means those whose dense time is within 20 % of the fastest one's.
    """

    experiment: str
    method: str
    model: str | None = None
    options: dict[str, Any] | None = None
    budget: Budget | None = None
    ranks: NetworkRanks | None = None
    runtime: str | None = None

    def of(self, trials: list[Trial]) -> list[Trial]:
        """Those among an experiment's trials."""
        names = ("model", "method", "options", "budget", "ranks")
        wanted = {name: value for name in names if (value := getattr(self, name)) is not None}
        return [trial for trial in trials if all(getattr(trial, name) == value for name, value in wanted.items())]


class Check(Table):
    """A number of ours, and at most one condition for it; without one it is only shown.

    ``at_least`` and ``at_most`` ask it of the whole interval; ``not_below`` and ``not_above`` only that the interval
    does not rule it out, as befits a claim of equality. "loss": points of top-1 against the dense control, or against
    the claim's other models, "loss_as_it_came": against the dense network before the control's tuning, and
    "loss_ratio" those against the control over theirs; "realised": speedup over the ratio of MACs; "practical": fastest
    dense over fastest compressed runtime; "weight_error": relative error of ``layer``, and "weight_error_ratio": that
    over the other models'. Ratios of parameters and MACs are dense over compressed, of the network or of one ``layer``.
    """

    metric: Metric
    at_least: float | None = None
    at_most: float | None = None
    not_below: float | None = None
    not_above: float | None = None
    layer: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.conditions) > 1:
            raise ValueError("give at most one of at_least, at_most, not_below and not_above")
        if (self.layer is not None) != (self.metric in OF_LAYERS):
            raise ValueError(f"a layer belongs to {', '.join(sorted(OF_LAYERS))} and to nothing else")
        return self

    @property
    def conditions(self) -> dict[str, float]:
        """The one condition by its name; empty where there is none."""
        names = ("at_least", "at_most", "not_below", "not_above")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    @property
    def of_equality(self) -> bool:
        """Whether its condition only asks not to be ruled out."""
        return self.not_below is not None or self.not_above is not None


class Claim(Table):
    """What a paper says (``claim``), its number as it stands there (``paper``) and where; by which of our models and
    numbers it is judged; and what differs between its experiment and ours. ``every``: it is a claim about all of these
    models, in every runtime, not about the best of them. ``ours``: not a claim of the paper's, but of a model or a
    comparison that it does not have. ``from_memory``: no source at hand confirms the paper's number.
    """

    claim: str
    paper: str
    where: str
    models: Models
    against: Models | None = None
    checks: list[Check] = Field(min_length=1)
    differs: str
    every: bool = False
    ours: bool = False
    from_memory: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not any(check.conditions for check in self.checks):
            raise ValueError("no check has a condition: nothing would be judged")
        if self.against is None and any(check.metric in COMPARED for check in self.checks):
            raise ValueError(f"{', '.join(sorted(COMPARED))} needs `against`, the models to compare with")
        if self.against is not None and not any(check.metric in {"loss", *COMPARED} for check in self.checks):
            raise ValueError("against would do nothing: no check counts from other models")
        return self

    @property
    def timed(self) -> bool:
        """Whether it takes a clock to judge it."""
        return any(check.metric in TIMED for check in self.checks)


class Planned(NamedTuple):
    """An experiment and the trials that it stands for."""

    sweep: Sweep
    trials: list[Trial]


class Paper(Table):
    """A paper's experiments and claims. ``name``: such as lebedev2015; ``ours``: what this suite claims itself."""

    name: str
    title: str
    cite: str
    ours: bool = False
    experiments: dict[str, Experiment]
    claims: list[Claim] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _spelt_out(cls, paper: dict[str, Any]) -> dict[str, Any]:
        """A claim with ``each``, a list of texts by name, stands for as many claims: "{name}" in it is each one's."""
        if not isinstance(claims := paper.get("claims"), list):
            return paper
        return paper | {"claims": [one for claim in claims for one in _one_of_each(claim)]}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for claim in self.claims:
            for models in filter(None, (claim.models, claim.against)):
                if models.experiment not in self.experiments:
                    raise ValueError(f"claim {claim.claim!r}: there is no experiment {models.experiment!r}")
            if not claim.timed:
                continue
            if (measure := self.experiments[claim.models.experiment].measure) is None:
                raise ValueError(f"claim {claim.claim!r}: its experiment has no [measure]")
            if "all" in measure.threads:
                raise ValueError(f"claim {claim.claim!r}: 'all' threads are others on each machine: give their number")
        return self

    def plans(self, quick: bool = False) -> dict[str, Planned]:
        """The experiments by name; with ``quick`` those that have a short form, in it. Raises InvalidSweep."""
        chosen = {name: e.shortened() if quick else e for name, e in self.experiments.items()}
        try:
            return {name: Planned(sweep, sweep.trials()) for name, sweep in chosen.items() if sweep is not None}
        except LowRankBenchError as error:
            raise InvalidSweep(f"{self.name}: {error}") from None


def _one_of_each(claim: Any) -> list[Any]:
    """A claim's table, once for each of its ``each``."""
    if not isinstance(claim, dict) or "each" not in claim:
        return [claim]
    shared = {name: value for name, value in claim.items() if name != "each"}
    return [_filled(shared, texts) for texts in claim["each"]]


def _filled(value: Any, texts: dict[str, str]) -> Any:
    """The value with every "{name}" within it replaced."""
    if isinstance(value, dict):
        return {name: _filled(inner, texts) for name, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, texts) for inner in value]
    if not isinstance(value, str):
        return value
    try:
        return value.format(**texts)
    except (LookupError, ValueError):
        raise ValueError(f"{value!r} has names that `each` does not give: {', '.join(texts)}") from None


def load_paper(name: str) -> Paper:
    """Read a paper that comes with the package. Raises UnknownName with the nearest."""
    if name not in paper_names():
        raise UnknownName("paper", name, paper_names())
    return parse_paper(name, (PAPERS / f"{name}.toml").read_text(encoding="utf-8"))


def parse_paper(name: str, text: str) -> Paper:
    """A paper from the text of its file. Raises InvalidSweep naming file, field, value and remedy."""
    return parse_toml(Paper, text, name, name=name)
