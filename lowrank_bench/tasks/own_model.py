"""A network that the user's own code makes: ``mypackage.module:factory``, a function without arguments or a class."""

from __future__ import annotations

import importlib
import importlib.util
import random
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lowrank_bench.errors import InvalidInput, UnknownName, is_out_of_memory
from lowrank_bench.tasks.own_imports import imported_files, python_files

SEED = 0
OURS = "lowrank_bench"
"""Its code has declared versions; that of a module with networks stands for itself."""


def make_own_model(name: str) -> nn.Module:
    """Import the module, from what is installed or from the current folder, and call its factory; random weights are
    the same at every call.

    Raises InvalidInput where the module cannot be imported or what is called fails or gives no nn.Module or one that
    is not in float32, and UnknownName, with the nearest, for a name that the module does not have.
    """
    factory = find_factory(name)
    with _seeded():
        try:
            model = factory()
        except (Exception, SystemExit) as error:  # whatever the user's code raises
            if is_out_of_memory(error):
                raise
            raise InvalidInput(f"model {name!r}: its factory failed, {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise InvalidInput(f"model {name!r}: its factory gives a {type(model).__name__}, a torch.nn.Module is wanted")
    for parameter, weights in model.named_parameters():
        if weights.is_floating_point() and weights.dtype is not torch.float32:
            raise InvalidInput(
                f"model {name!r}: its {parameter} is {weights.dtype}, and a sweep's networks are trained, judged and "
                "handed to runtimes in torch.float32: let its factory end in .float()"
            )
    return model


@contextmanager
def _seeded() -> Iterator[None]:
    """The random numbers of torch, numpy and Python within are the same ones at every time."""
    ours, numpys = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            torch.manual_seed(SEED)
            np.random.seed(SEED)
            random.seed(SEED)
            yield
    finally:
        random.setstate(ours)
        np.random.set_state(numpys)


def find_factory(name: str) -> Callable[[], Any]:
    """What the name stands for. Raises InvalidInput and UnknownName as ``make_own_model`` does."""
    module_name, _, factory_name = name.partition(":")
    _look_in_current_folder()
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        raise InvalidInput(
            f"model {name!r}: {module_name} cannot be imported from what is installed nor from {Path.cwd()}, "
            f"{type(error).__name__}: {error}"
        ) from error
    factory = getattr(module, factory_name, None)
    if not callable(factory):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UnknownName(f"function or class of {module_name}", factory_name, known)
    made: Callable[[], Any] = factory
    return made


def source_checksum(name: str) -> int:
    """Checksum of the code that may make the network: all Python files of the outermost package that the name's module
    is in, or its own; and those beside and below that these import, see imported_files; 0 where it has no file. Raises
    InvalidInput for a file that cannot be read.
    """
    _look_in_current_folder()
    said = 0
    try:
        for file in _source_files(name.partition(":")[0]):
            said = zlib.crc32(file.read_bytes(), said)
    except OSError as error:
        raise InvalidInput(
            f"model {name!r}: {error.filename} cannot be read ({error.strerror}): let this user read it, or remove it"
        ) from None
    return said


def _source_files(module: str) -> list[Path]:
    outermost = module.partition(".")[0]
    found = importlib.util.find_spec(module if outermost == OURS else outermost)
    if found is None:
        return []
    if found.submodule_search_locations is not None:
        places = [Path(place) for place in found.submodule_search_locations]
        files = [file for place in places for file in python_files(place)]
        folder = places[0].parent if places else Path()
    else:
        alone = Path(found.origin or "")
        files, folder = [alone] if alone.is_file() else [], alone.parent
    return sorted(files) if outermost == OURS else imported_files(files, folder)


def _look_in_current_folder() -> None:
    """Last of all: a folder's lowrank_bench or torch must not hide the installed ones."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
