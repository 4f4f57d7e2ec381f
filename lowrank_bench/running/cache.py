"""What a trial has finished so far, on disk: an interrupted one goes on after its last finished stage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lowrank_bench.atomic import drafts, write_tensors
from lowrank_bench.compression.history import Epoch, History
from lowrank_bench.compression.model import Compressed, load
from lowrank_bench.errors import LowRankBenchError
from lowrank_bench.running.stopwatch import Stopwatch

T = TypeVar("T")
NOTE, TENSORS = "finished.json", "tensors.safetensors"


class _Note(BaseModel):
    """Written last: where it stands, the stage is whole."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    seconds: dict[str, float]
    epochs: list[Epoch] = []


class StageCache:
    """The finished stages of one trial, a folder for each. A damaged one is done again."""

    def __init__(self, folder: Path, dense: nn.Module, watch: Stopwatch) -> None:
        """``dense``: the model from which compressed ones are rebuilt; ``watch``: where the stages are timed, and where
        the seconds of those that were finished before are added.
        """
        self.folder, self.dense, self.watch = folder, dense, watch

    def model(self, name: str, work: Callable[[], tuple[Compressed, History]]) -> tuple[Compressed, History]:
        """A compressed model and how it was trained. Raises NotWritten and what ``work`` raises."""
        return self._stage(
            name,
            work,
            save=lambda made, folder: made[0].save(folder),
            load=lambda folder, note: (load(folder, self.dense), History(tuple(note.epochs))),
            epochs=lambda made: made[1].epochs,
        )

    def tensors(self, name: str, work: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Tensors by name, such as predictions. Raises NotWritten and what ``work`` raises."""
        return self._stage(name, work, save=_save, load=lambda folder, _: load_file(folder / TENSORS))

    def _stage(
        self,
        name: str,
        work: Callable[[], T],
        save: Callable[[T, Path], None],
        load: Callable[[Path, _Note], T],
        epochs: Callable[[T], tuple[Epoch, ...]] = lambda made: (),
    ) -> T:
        folder = self.folder / name
        try:
            note = _Note.model_validate_json((folder / NOTE).read_bytes())
            made = load(folder, note)
        except (OSError, ValidationError, SafetensorError, LowRankBenchError):
            pass  # not finished, or damaged
        else:
            for stage, seconds in note.seconds.items():
                self.watch.add(stage, seconds)
            return made
        before = dict(self.watch.seconds)
        made = work()
        spent = {stage: seconds - before.get(stage, 0.0) for stage, seconds in self.watch.seconds.items()}
        save(made, folder)
        with drafts(folder / NOTE) as (draft,):
            note = _Note(seconds={stage: s for stage, s in spent.items() if s > 0}, epochs=list(epochs(made)))
            draft.write_text(note.model_dump_json())
        return made


def _save(tensors: dict[str, Tensor], folder: Path) -> None:
    with drafts(folder / TENSORS) as (draft,):
        write_tensors(tensors, draft)
