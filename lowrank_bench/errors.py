"""Every exception that a user's mistake can raise, under one base class.

Each message names the value, the place where it stood and the remedy; the command line prints it without a traceback
and exits with status 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError  # a tenth of a second, which every run of pytest would pay

__all__ = [
    "DataMissing",
    "Diverged",
    "ExportFailed",
    "InvalidBudget",
    "InvalidChain",
    "InvalidData",
    "InvalidInput",
    "InvalidOptions",
    "InvalidPlan",
    "InvalidRanks",
    "InvalidRecord",
    "InvalidSweep",
    "InvalidWeights",
    "LowRankBenchError",
    "MeasurementFailed",
    "NonConforming",
    "NotWritten",
    "RuntimeMissing",
    "UnknownName",
    "UnsupportedLayer",
]

NO_MEMORY = ("can't allocate memory", "could not create a memory object", "bad allocation")
"""Of torch's CPU allocator, of oneDNN, and of C++ libraries."""


class LowRankBenchError(Exception):
    """Base of everything that is raised for a user's mistake."""


class UnsupportedLayer(LowRankBenchError):
    """A method does not work on this layer; the message says which layer, and why."""


class InvalidRanks(LowRankBenchError):
    """Ranks out of range, of the wrong length, or of an unknown rule; the message names the valid range."""


class InvalidBudget(LowRankBenchError):
    """A budget that is malformed or out of reach; the message names the largest reachable ratio."""


class InvalidOptions(LowRankBenchError):
    """Options that a method, recipe or task does not have or accept."""


class InvalidWeights(LowRankBenchError):
    """Weights that are not finite, or that do not fit the model."""


class InvalidInput(LowRankBenchError):
    """An argument out of its range, such as a negative number of threads."""


class InvalidSweep(LowRankBenchError):
    """A sweep file that cannot be read or understood; the message names file, field, value and remedy."""


class InvalidRecord(LowRankBenchError):
    """A record folder that does not exist, cannot be written, or holds nothing readable."""


class NotWritten(InvalidRecord):
    """A file that cannot be written: the disk is full, or its folder read-only. Nothing half written is left."""


class InvalidPlan(LowRankBenchError):
    """A saved plan that is damaged, or that does not fit the model it is loaded into."""


class ExportFailed(LowRankBenchError):
    """A runtime could not take the model, or its output differs from eager's."""


class MeasurementFailed(LowRankBenchError):
    """A child that was to measure something crashed, hung or failed; the message says how it ended."""


class RuntimeMissing(LowRankBenchError):
    """A runtime whose package is not installed; the message says how to install it."""


class DataMissing(LowRankBenchError):
    """A data set or checkpoint that is not on this machine; the message says how to get it."""


class InvalidData(LowRankBenchError):
    """Images or labels that cannot be read, or that do not fit together; the message names the file."""


class InvalidChain(LowRankBenchError):
    """A plug-in's chain whose factors do not fit together, or do not fit the layer."""


class NonConforming(LowRankBenchError):
    """A method that breaks a promise which every method makes; the message says which, and by how much."""


class Diverged(LowRankBenchError):
    """Training or a decomposition produced a value that is not finite."""


MANY, NEAR = 100, 20  # of more names than these only so many near ones are told


class UnknownName(LowRankBenchError):
    """A method, task, model, runtime, recipe or sweep that does not exist; the message suggests the nearest name."""

    def __init__(self, kind: str, name: object, known: Iterable[str]) -> None:
        super().__init__(f"unknown {kind} {name!r}: {_hint(str(name), sorted(known))}")

    def __reduce__(self) -> tuple[object, ...]:
        return UnknownName.__new__, (type(self), *self.args)  # the message is made: other processes get it as it is


def _hint(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    told = known if len(known) <= MANY else sorted(get_close_matches(name, known, n=NEAR, cutoff=0.3))
    rest = f", and {len(known) - len(told)} more" if len(told) < len(known) else ""
    return (f"did you mean {near[0]!r}? " if near else "") + f"known are {', '.join(told) or 'none'}{rest}"


def explain(error: ValidationError, place: str, kind: type[BaseModel] | None = None) -> str:
    """One line per mistake that pydantic found: place, field, value, and what would be right; ``kind``: of what was
    read, for the names that its fields have.
    """
    lines = []
    for mistake in error.errors(include_url=False):
        field = ".".join(str(part) for part in mistake["loc"]) or "value"
        if mistake["type"] == "missing":
            lines.append(f"{place}: {field} is missing")
            continue
        given = repr(mistake["input"])
        given = given if len(given) <= 80 else given[:77] + "..."
        told = mistake["msg"]
        if mistake["type"] == "extra_forbidden" and kind is not None:
            told = "unknown: " + _hint(str(mistake["loc"][-1]), _fields_at(kind, mistake["loc"][:-1]))
        lines.append(f"{place}: {field} = {given}: {told}")
    return "\n".join(lines)


def _fields_at(kind: type[BaseModel], location: Iterable[int | str]) -> list[str]:
    """Names of the fields that what stands at a place within a ``kind`` may have."""
    for part in location:
        if (info := kind.model_fields.get(str(part))) is not None:
            kind = next((inner for inner in _within(info.annotation) if hasattr(inner, "model_fields")), kind)
    return sorted(kind.model_fields)


def _within(annotation: Any) -> Iterator[Any]:
    """An annotation, such as list[Budget], and all that stands within its brackets."""
    yield annotation
    for inner in get_args(annotation):
        yield from _within(inner)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out: torch's CPU allocator and oneDNN raise a bare RuntimeError."""
    named = any(cls.__name__ == "OutOfMemoryError" for cls in type(error).__mro__)  # torch's, without importing torch
    return named or isinstance(error, MemoryError) or any(words in str(error) for words in NO_MEMORY)
