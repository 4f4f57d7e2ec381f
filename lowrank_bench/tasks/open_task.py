"""Tasks that take any network: their own, those of timm and torchvision, and the user's, with weights from a file."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import ClassVar

from torch import nn

from lowrank_bench.errors import DataMissing, InvalidInput
from lowrank_bench.tasks.checkpoint import load_checkpoint, state_checksum, weights_checksum
from lowrank_bench.tasks.own_model import find_factory, make_own_model, source_checksum
from lowrank_bench.tasks.places import spelled_path
from lowrank_bench.tasks.task import Task
from lowrank_bench.tasks.zoo import HEADS, Wanted, build_zoo_model, check_zoo_model, in_zoo

ANY_MODEL = ("timm:NAME", "torchvision:NAME", "PACKAGE.MODULE:FACTORY")
FORMS = ", ".join(ANY_MODEL)


class OpenTask(Task):
    """A task whose models are its own baselines and any other network, ``NAME`` or ``NAME@FILE``.

    NAME is ``timm:...``, ``torchvision:...`` or ``PACKAGE.MODULE:FACTORY``, a function of the user's. FILE holds its
    weights, in safetensors. Without it a network of the zoos has its library's pretrained weights, and the user's those
    that the factory gave it.
    """

    models: ClassVar[tuple[str, ...]] = ANY_MODEL

    def check_model(self, model: str) -> None:
        """Raise UnknownName for what neither the task nor the zoo has, InvalidInput for what cannot be imported, and
        DataMissing for a file that is not there.
        """
        name, weights = split_model(model)
        if weights is not None and not weights.is_file():
            raise DataMissing(f"model {model!r}: there is no file {weights}: name one that is there")
        if name in self.baselines:
            return
        if in_zoo(name):
            check_zoo_model(name)
        elif is_code(name):
            find_factory(name)
        else:
            super().check_model(name)

    def brought(self, model: str) -> int:
        """Checksum of the weights and of the user's own module, of the weights that its factory gives where images are
        judged; of the task's own network that of the weights trained on this machine, and of their recipe.
        """
        name, weights = split_model(model)
        said = b""
        if name in self.baselines:
            trained = self.baselines[name].path(self.name, self.version, name)
            if weights is None and trained.is_file():  # another processor or torch may have given others
                weights = trained
            said += self.baselines[name].hash(self.name, self.version, name).encode()
        elif not in_zoo(name):
            said += str(source_checksum(name)).encode()
            if weights is None and self.scored:
                said += str(state_checksum(make_own_model(name).state_dict())).encode()
        if weights is not None:
            said += str(weights_checksum(weights)).encode()
        return zlib.crc32(said) if said else 0

    def build(self, model: str) -> nn.Module:
        """Build it, untrained unless the user's factory trains it, for this task's images and classes."""
        name, _ = split_model(model)
        return self._build(name).train()

    def load(self, model: str) -> nn.Module:
        """Load it with the weights named, its own, or the pretrained ones. Raises what ``check_model`` raises, and
        InvalidWeights and DataMissing.
        """
        name, weights = split_model(model)
        if weights is not None:
            return load_checkpoint(self._build(name, filled=True), weights, spare=HEADS if in_zoo(name) else ())
        if name in self.baselines:
            path = self.baselines[name].path(self.name, self.version, name)
            return load_checkpoint(self._build(name), path, f"make it with `lowrank-bench train {name}`")
        if in_zoo(name):
            return build_zoo_model(name, Wanted(channels=self._channels, pretrained=self.scored))
        return self._build(name).cpu().float().eval()

    def classes_remedy(self, model: str) -> str:
        """See Task.classes_remedy; a file fills a network of the user's and changes nothing of it."""
        name, _ = split_model(model)
        return "let its factory give one output for each class" if is_code(name) else super().classes_remedy(model)

    @property
    def _channels(self) -> int | None:
        """None where the zoo's own, red, green and blue, will do."""
        return None if self.input_size[0] == 3 else self.input_size[0]

    def _build(self, name: str, *, filled: bool = False) -> nn.Module:
        self.check_model(name)
        if name in self.baselines:
            return self.baselines[name].build()
        if in_zoo(name):
            return build_zoo_model(name, Wanted(self.classes or None, self._channels, filled=filled))
        return make_own_model(name)


def is_code(name: str) -> bool:
    """Whether a network's name stands for code of the user's, PACKAGE.MODULE:FACTORY."""
    return ":" in name and not in_zoo(name)


def split_model(model: str) -> tuple[str, Path | None]:
    """The network's name and the file of its weights, None where none is named. Raises InvalidInput for no name."""
    name, at, file = model.partition("@")
    if not name or (at and not file):
        raise InvalidInput(f"model {model!r}: {FORMS} is wanted, each alone or with @FILE")
    return name, Path(file) if file else None


def spelled(model: str) -> str:
    """The model with its file as every spelling of that file comes out, see spelled_path. Raises InvalidInput as
    split_model does.
    """
    name, file = split_model(model)
    return name if file is None else f"{name}@{spelled_path(file)}"
