"""What to do: a Budget to meet, a Trial (which compressed model), a Measurement (how fast it is, and where)."""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    StrictInt,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from lowrank_bench.errors import InvalidBudget, explain

CONTROL = "identity"
"""The method that leaves the model dense: its speedup is the noise, and every loss is counted from its accuracy."""

MACHINE = "machine"
"""Among the versions of a trial whose budget is met by timing: its ranks belong to the machine that was timed."""
BROUGHT = "brought"
"""Among the versions of a trial the checksum of what the user brought: weights, code, images."""
SHARED = ("task", "recipe", "compression", BROUGHT)
"""Among the versions of a trial those of stages that its dense control goes through too: the task, the recipe, what
leads a network through compression, and the weights or the code that a user brought. The others are the method's own,
under names of its choice.
"""


def as_one(wanted: str) -> WrapValidator:
    """For a union: what is of none of its kinds is refused once, saying what is ``wanted``, not once for every kind."""

    def validate(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise PydanticCustomError("union", "{wanted} is wanted", {"wanted": wanted}) from None

    return WrapValidator(validate)


def _no_lookalike(value: Any) -> Any:
    if isinstance(value, bool | str):
        raise PydanticCustomError("number", "a number is wanted")
    return value


Number = Annotated[float, BeforeValidator(_no_lookalike)]
"""Of any kind of number, but neither true nor "2"."""
Whole = Annotated[int, Field(ge=0, lt=2**63)]
"""What a table's integers hold."""
Positive = Annotated[int, Field(strict=True, ge=1, lt=2**63)]
Metric = Literal["params", "macs", "latency"]
Scope = Literal["all", "convs"]
Ranks = StrictInt | str | tuple[StrictInt, ...]
"""Of one layer: a rank, several, or a rule that finds them."""
NetworkRanks = Annotated[
    Ranks | dict[str, Ranks], as_one("a rank, a list of ranks, a rule such as 'evbmf', or {layer = any of these}")
]
"""Of a network: the same for all its layers, or layer by layer."""


def machine_version(machine: str) -> int:
    """The number under MACHINE that stands for a machine."""
    return zlib.crc32(machine.encode())


class Noun(BaseModel):
    """A frozen, validated value with a key: the sha256 of its canonical JSON (first 16 hexadecimal digits)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @property
    def key(self) -> str:
        """Sixteen hexadecimal digits that name this value across processes, machines and time."""
        canonical = json.dumps(
            self.model_dump(mode="json", exclude_defaults=True), sort_keys=True, separators=(",", ":")
        )
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


class Budget(Noun):
    """A target ratio, dense over compressed, in exactly one metric.

    ``Budget(macs=4)``, ``Budget(params=8)`` or ``Budget(latency=2, runtime="onnxruntime", threads=1, batch=1)``.
    ``scope="all"`` takes the ratio over the whole model, ``"convs"`` over its convolutions. Raises InvalidBudget.
    """

    macs: Number | None = None
    params: Number | None = None
    latency: Number | None = None
    runtime: str | None = None
    threads: Annotated[int, BeforeValidator(_no_lookalike), Field(ge=1)] | None = None
    batch: Annotated[int, BeforeValidator(_no_lookalike), Field(ge=1)] | None = None
    scope: Scope = "all"

    @model_validator(mode="wrap")
    @classmethod
    def _named_errors(cls, data: Any, handler: ModelWrapValidatorHandler[Budget]) -> Budget:
        try:
            budget = handler(data)
        except ValidationError as error:
            raise InvalidBudget(explain(error, "budget", Budget)) from None
        targets = {m: r for m in ("macs", "params", "latency") if (r := getattr(budget, m)) is not None}
        if len(targets) != 1:
            raise InvalidBudget(f"budget {data!r}: give exactly one of macs, params and latency, e.g. Budget(macs=4)")
        metric, ratio = next(iter(targets.items()))
        if not (math.isfinite(ratio) and ratio >= 1):
            raise InvalidBudget(
                f"budget {metric} = {ratio!r}: a finite ratio of at least 1, dense over compressed, is wanted"
            )
        setting = (budget.runtime, budget.threads, budget.batch)
        if metric == "latency" and None in setting:
            raise InvalidBudget(
                "a latency budget also needs runtime, threads and batch, e.g. Budget(latency=2, runtime='eager-nhwc', "
                "threads=1, batch=1)"
            )
        if metric != "latency" and setting != (None, None, None):
            raise InvalidBudget(
                f"budget {metric} = {ratio:g}: runtime, threads and batch belong to latency budgets only"
            )
        return budget

    @property
    def metric(self) -> Metric:
        """The metric in which the ratio is taken."""
        return "macs" if self.macs is not None else "params" if self.params is not None else "latency"

    @property
    def ratio(self) -> float:
        """The target, dense over compressed."""
        return float(getattr(self, self.metric))

    def __str__(self) -> str:
        """Such as ``macs/4``, the form that the tables print."""
        text = f"{self.metric}/{self.ratio:g}"
        if self.metric == "latency":
            text += f"@{self.runtime},{self.threads}t,b{self.batch}"
        return text if self.scope == "all" else f"{text} ({self.scope})"


def target_text(budget: Budget | None, ranks: Ranks | Mapping[str, Ranks] | None) -> str:
    """A budget or ranks in the form that the tables print, such as ``macs/4`` or ``ranks conv2=64 conv3=64``; empty for
    neither.
    """
    if budget is not None:
        return str(budget)
    if isinstance(ranks, Mapping):
        return " ".join(["ranks", *(f"{layer}={of_layer}" for layer, of_layer in ranks.items())])
    return "" if ranks is None else f"ranks {ranks}"


def names_ranks(target: str) -> bool:
    """Whether what ``target_text`` gave stands for ranks."""
    return target.startswith("ranks ")


def is_met_by_timing(target: str) -> bool:
    """Whether what ``target_text`` gave is a budget in latency: then its ranks belong to the machine that was timed,
    and on another one it is another trial.
    """
    return target.startswith("latency/")


class Trial(Noun):
    """One compressed model to make: its result is the model and its quality. Exactly one of budget and ranks, or
    neither for the dense control.
    """

    task: str
    model: str
    method: str
    options: dict[str, Any] = {}
    budget: Budget | None = None
    ranks: NetworkRanks | None = None
    recipe: str
    seed: Whole = 0
    versions: Mapping[str, int] = Field(
        default={},
        description="declared version of the method and of each stage behind it; checksums of what the user brought, "
        "and of the machine where ranks belong to one",
    )

    @property
    def target(self) -> str:
        """The budget or the ranks, in the form that the tables print; empty for the dense control."""
        return target_text(self.budget, self.ranks)

    @property
    def options_text(self) -> str:
        """The options, such as ``epc=True spatial=joint``, in the form that the tables print."""
        return " ".join(f"{name}={value}" for name, value in sorted(self.options.items()))

    @property
    def control(self) -> tuple[str, str, str, int, frozenset[tuple[str, int]]]:
        """What this trial shares with its dense control: task, model, recipe, seed, and the versions of the stages that
        both go through.
        """
        shared = frozenset((stage, number) for stage, number in self.versions.items() if stage in SHARED)
        return self.task, self.model, self.recipe, self.seed, shared

    def __str__(self) -> str:
        """A line for people: model, method, target and seed."""
        method = f"{self.method} {self.options_text}".strip()
        return f"{self.model} {method} {self.target or 'dense'} seed {self.seed}"


class Measurement(Noun):
    """One paired timing to take: a trial's model against its dense one, on this machine, in one setting."""

    trial: str = Field(description="the trial's key")
    machine: str
    runtime: str
    threads: Positive
    batch: Positive
    precision: float = Field(gt=0, description="relative half-width of the interval at which a process stops")
    max_seconds: float = Field(gt=0, description="seconds after which a process stops all the same")
    processes: Positive = Field(default=1, description="fresh processes whose medians are pooled")
    version: int = 1

    @property
    def setting(self) -> str:
        """Such as ``onnxruntime 1t b64``."""
        return f"{self.runtime} {self.threads}t b{self.batch}"
