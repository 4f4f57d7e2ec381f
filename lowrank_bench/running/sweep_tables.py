"""The tables of a sweep file, as they are written."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from lowrank_bench.seeds import Seed
from lowrank_bench.trial import Budget, NetworkRanks, Number, Positive, as_one

Threads = Annotated[Positive | Literal["all"], as_one("a number of at least 1, or 'all',")]


class Table(BaseModel):
    """What stands in a file that people write: a name that means nothing there is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class MethodChoice(Table):
    """A method and its options; in TOML a bare name will do."""

    name: str
    options: dict[str, Any] = {}

    @field_validator("options")
    @classmethod
    def _no_arguments(cls, value: dict[str, Any]) -> dict[str, Any]:
        if taken := value.keys() & {"self", "seed"}:
            raise ValueError(f"{min(taken)!r} is no option of any method; seeds stand in sweep.seeds")
        return value


class TrialTable(Table):
    """``[sweep]``: which compressed models to make."""

    task: str
    models: list[str] = Field(min_length=1)
    methods: list[MethodChoice] = Field(min_length=1)
    budgets: list[Budget] = []
    ranks: list[NetworkRanks] = []
    seeds: list[Seed] = Field(default=[0], min_length=1)
    recipe: str

    @field_validator("methods", mode="before")
    @classmethod
    def _bare_names(cls, value: Any) -> Any:
        return (
            [{"name": item} if isinstance(item, str) else item for item in value] if isinstance(value, list) else value
        )


class MeasureTable(Table):
    """``[measure]``: in which settings to time them."""

    runtimes: list[str] = Field(min_length=1)
    threads: list[Threads] = Field(default=[1], min_length=1)
    batches: list[Positive] = Field(default=[1], min_length=1)
    precision: Number = Field(default=0.01, gt=0, lt=1)
    max_seconds: Number = Field(default=60, gt=0)
    processes: Positive = 1
    seeds: list[Seed] = Field(
        default=[], description="time these seeds' models only: time depends on shapes, not values"
    )
