"""From a sweep (TOML) to the trials and measurements that it stands for: every list multiplies."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from lowrank_bench.compression import layerwise
from lowrank_bench.compression.registry import method_class
from lowrank_bench.errors import DataMissing, InvalidSweep, LowRankBenchError, UnknownName, explain
from lowrank_bench.measurement.cores import usable_cores
from lowrank_bench.measurement.environment import fingerprint
from lowrank_bench.measurement.runtimes import RUNTIMES
from lowrank_bench.running.sweep_tables import MeasureTable, MethodChoice, Table, TrialTable
from lowrank_bench.running.targets import check_latency, check_ranks
from lowrank_bench.shipped import SWEEPS, sweep_names
from lowrank_bench.tasks.catalog import get_task, spelled_task
from lowrank_bench.tasks.open_task import spelled
from lowrank_bench.tasks.task import Task
from lowrank_bench.training.recipes import get_recipe
from lowrank_bench.trial import (
    BROUGHT,
    CONTROL,
    MACHINE,
    Budget,
    Measurement,
    NetworkRanks,
    Trial,
    machine_version,
)

Parsed = TypeVar("Parsed", bound=BaseModel)


class Sweep(Table):
    """A validated sweep."""

    sweep: TrialTable
    measure: MeasureTable | None = None

    def trials(self, machine: str | None = None) -> list[Trial]:
        """The dense control of each model and seed first, then every method at every target, for ``machine``, by
        default this one, which a budget in latency names. Raises what names and options that do not exist raise.
        """
        table = self.sweep
        task, recipe = get_task(table.task), get_recipe(table.recipe)
        if recipe.epochs and not task.scored:
            raise InvalidSweep(
                f"sweep.recipe = {table.recipe!r}: task {task.name!r} has no images to tune on: use 'none'"
            )
        stages = {"task": task.version, "recipe": recipe.version, "compression": layerwise.VERSION}
        for given in table.ranks:
            check_ranks(given)
        models = [*dict.fromkeys(map(spelled, table.models))]
        brought = {model: _brought(task, model) for model in models}
        here = {}
        if any(map(_timed, table.budgets)):
            here = {MACHINE: machine_version(machine or fingerprint().machine)}
        trials = []
        for model, seed, method in product(models, table.seeds, [MethodChoice(name=CONTROL), *table.methods]):
            cls = method_class(method.name)
            made = cls(**method.options)
            options = made.options.model_dump(mode="json", exclude_defaults=True)
            for budget, ranks in self._targets(method.name):
                trials.append(
                    Trial(
                        task=spelled_task(table.task),
                        model=model,
                        method=method.name,
                        options=options,
                        budget=budget,
                        ranks=ranks,
                        recipe=table.recipe,
                        seed=seed,
                        versions={**made.versions, **stages, **brought[model]} | (here if _timed(budget) else {}),
                    )
                )
        return list({trial.key: trial for trial in trials}.values())

    def measurements(self, trials: Iterable[Trial], machine: str, cores: int) -> list[Measurement]:
        """Every trial in every setting on a machine of so many cores. Raises UnknownName or InvalidSweep for a setting
        that cannot be.
        """
        table = self.measure
        if table is None:
            return []
        if odd := sorted(set(table.seeds) - set(self.sweep.seeds)):
            raise InvalidSweep(
                f"measure.seeds = {table.seeds}: {odd} are not among sweep.seeds = {self.sweep.seeds}, so nothing of "
                "them would be timed"
            )
        threads = list(dict.fromkeys(cores if count == "all" else count for count in table.threads))
        if max(threads) > cores:
            raise InvalidSweep(
                f"measure.threads = {max(threads)}: this machine has {cores} cores; use at most that, or 'all'"
            )
        for runtime in table.runtimes:
            if runtime not in RUNTIMES:
                raise UnknownName("runtime", runtime, RUNTIMES)
        version = get_task(self.sweep.task).timing_version
        measurements = [
            Measurement(
                trial=trial.key,
                machine=machine,
                runtime=runtime,
                threads=count,
                batch=batch,
                precision=table.precision,
                max_seconds=table.max_seconds,
                processes=table.processes,
                version=version,
            )
            for count, batch, runtime, trial in product(threads, table.batches, table.runtimes, trials)
            if not table.seeds or trial.seed in table.seeds
        ]
        return list({measurement.key: measurement for measurement in measurements}.values())

    def _targets(self, method: str) -> list[tuple[Budget | None, NetworkRanks | None]]:
        if method == CONTROL:
            return [(None, None)]
        targets = [*product(self.sweep.budgets, [None]), *product([None], self.sweep.ranks)]
        if not targets:
            raise InvalidSweep(
                "sweep.budgets is empty, and so is sweep.ranks: give one, such as budgets = [{macs = 4}]"
            )
        return targets


def _brought(task: Task, model: str) -> dict[str, int]:
    """Nothing where its data are missing: whoever runs it says so."""
    with suppress(DataMissing):
        task.check_model(model)
        if number := task.brought(model):
            return {BROUGHT: number}
    return {}


def _timed(budget: Budget | None) -> bool:
    return budget is not None and budget.metric == "latency"


def plan(
    source: str, machine: str, cores: int | None = None, weights: Path | None = None
) -> tuple[list[Trial], list[Measurement]]:
    """All trials and measurements of a sweep file or shipped sweep, on a machine of so many cores, by default as many
    as this one; ``weights``: of its only model. Raises InvalidSweep naming file, field, value and remedy.
    """
    sweep = load_sweep(source)
    if weights is not None:
        sweep = _with_weights(sweep, weights, source)
    try:
        cores = cores or usable_cores()
        check_latency(sweep.sweep.budgets, cores)
        trials = sweep.trials(machine)
        return trials, sweep.measurements(trials, machine, cores)
    except LowRankBenchError as error:
        raise InvalidSweep(f"{source}: {error}") from None


def load_sweep(source: str) -> Sweep:
    """Read a sweep file, or a shipped sweep by its name. Raises InvalidSweep naming file, field, value and remedy."""
    if source in sweep_names():
        text, place = (SWEEPS / f"{source}.toml").read_text(encoding="utf-8"), source
    else:
        place, path = source, Path(source)
        try:
            if not path.is_file():
                raise UnknownName("sweep (no such file, nor shipped sweep)", source, sweep_names())
            text = path.read_text(encoding="utf-8-sig")  # some editors begin it with a mark
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidSweep(f"{place} cannot be read: {error}") from None
    return parse_toml(Sweep, text, place)


def parse_toml(kind: type[Parsed], text: str, place: str, **given: str) -> Parsed:
    """What a TOML text describes; ``given``: fields that it need not tell. Raises InvalidSweep naming place, field,
    value and remedy.
    """
    try:
        return kind.model_validate({**given, **tomllib.loads(text)})
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidSweep(f"{place} is not valid TOML: {error}") from None
    except ValidationError as error:
        raise InvalidSweep(explain(error, place, kind)) from None
    except LowRankBenchError as error:
        raise InvalidSweep(f"{place}: {error}") from None


def _with_weights(sweep: Sweep, weights: Path, place: str) -> Sweep:
    models = sweep.sweep.models
    if len(models) != 1 or "@" in models[0]:
        raise InvalidSweep(
            f"{place}: --weights {weights} is for a sweep of one model that names no file, and sweep.models = "
            f"{models}: write them as MODEL@FILE there"
        )
    table = sweep.sweep.model_copy(update={"models": [f"{models[0]}@{weights}"]})
    return sweep.model_copy(update={"sweep": table})
