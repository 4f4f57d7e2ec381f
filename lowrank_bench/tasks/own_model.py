"""A network that the user's own code makes: ``mypackage.module:factory``, a function without arguments or a class."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lowrank_bench.errors import InvalidInput, UnknownName, is_out_of_memory
from lowrank_bench.tasks.own_imports import imported_files

SEED = 0
INSTALLED = ("site-packages", "dist-packages")
"""Folders in which the modules have nothing to do with one another."""
OURS = "lowrank_bench"
"""Its code has declared versions; that of a module with networks stands for itself."""


def make_own_model(name: str) -> nn.Module:
    """Import the module, from what is installed or from the current folder, and call its factory; random weights are
    the same at every call.

    Raises InvalidInput where the module cannot be imported or what is called fails or gives no nn.Module, and
    UnknownName, with the nearest, for a name that the module does not have.
    """
    factory = find_factory(name)
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        try:
            model = factory()
        except (Exception, SystemExit) as error:  # whatever the user's code raises
            if is_out_of_memory(error):
                raise
            raise InvalidInput(f"model {name!r}: its factory failed, {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise InvalidInput(f"model {name!r}: its factory gives a {type(model).__name__}, a torch.nn.Module is wanted")
    return model


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
    is in; of a module that is in none its own and those of its folder that it imports, see imported_files; 0 where it
    has no file.
    """
    _look_in_current_folder()
    said = 0
    for file in _source_files(name.partition(":")[0]):
        said = zlib.crc32(file.read_bytes(), said)
    return said


def _source_files(module: str) -> list[Path]:
    outermost = module.partition(".")[0]
    found = importlib.util.find_spec(module if outermost == OURS else outermost)
    if found is None:
        return []
    if found.submodule_search_locations is not None:
        return sorted(file for place in found.submodule_search_locations for file in Path(place).rglob("*.py"))
    alone = Path(found.origin or "")
    if not alone.is_file():
        return []
    return [alone] if outermost == OURS or alone.parent.name in INSTALLED else imported_files(alone)


def _look_in_current_folder() -> None:
    """Last of all: a folder's lowrank_bench or torch must not hide the installed ones."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
