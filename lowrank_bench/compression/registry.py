"""Which methods there are: built-ins by scan, entry points ``lowrank_bench.methods``, and a user's --methods-dir.

A broken plug-in is listed with its reason and stops nobody else. Built-ins and entry points are what is installed; a
methods folder is the only other code that is ever imported, and only when the user names it.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from lowrank_bench.compression.method import Method
from lowrank_bench.errors import InvalidInput, UnknownName

BUILT_IN = "lowrank_bench.methods"
GROUP = "lowrank_bench.methods"

_folders: list[Path] = []


def add_methods_folder(folder: Path | str) -> None:
    """Also offer the methods of every ``*.py`` in a folder, but ``test_*.py``. Raises InvalidInput without one."""
    folder = Path(folder).resolve()
    if not folder.is_dir():
        raise InvalidInput(
            f"--methods-dir {str(folder)!r} is not a folder: name one that holds *.py files with methods"
        )
    if folder not in _folders:
        _folders.append(folder)


def methods() -> dict[str, type[Method]]:
    """Every method that works: {name: class}, by name."""
    return dict(sorted(_scan()[0].items()))


def broken() -> dict[str, str]:
    """Every plug-in that could not be used: {where: why}."""
    return _scan()[1]


def method_class(name: str | type[Method]) -> type[Method]:
    """The class of that name; a class stands for itself. Raises UnknownName with the nearest one."""
    if isinstance(name, type):
        return name
    found, failed = _scan()
    if name not in found:
        known = [*found, *(f"{where} (broken: {why})" for where, why in failed.items())]
        raise UnknownName("method", name, known)
    return found[name]


def _scan() -> tuple[dict[str, type[Method]], dict[str, str]]:
    found: dict[str, type[Method]] = {}
    failed: dict[str, str] = {}
    for where, load in _sources():
        try:
            for cls in _classes(load()):
                _admit(cls, found)
        except (Exception, SystemExit) as error:  # whatever a plug-in raises on import is its own failure, and is shown
            failed[where] = f"{type(error).__name__}: {error}"
    return found, failed


def _sources() -> Iterator[tuple[str, Callable[[], Any]]]:
    package = importlib.import_module(BUILT_IN)
    for module in pkgutil.iter_modules(package.__path__):
        yield f"{BUILT_IN}.{module.name}", partial(importlib.import_module, f"{BUILT_IN}.{module.name}")
    for point in entry_points(group=GROUP):
        yield f"entry point {point.name}", point.load
    for folder in _folders:
        for path in sorted(path for path in folder.glob("*.py") if not path.name.startswith("test_")):
            yield path.name, partial(_import_file, path)


def _import_file(path: Path) -> ModuleType:
    folder = hashlib.sha256(str(path.parent).encode()).hexdigest()[:8]  # two folders may hold files of one name
    name = f"lowrank_bench_user_methods.{folder}.{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _classes(source: Any) -> list[type[Method]]:
    """The methods that a module defines, or the one that an entry point names. An abstract class without a name of its
    own is a base of others.
    """
    if isinstance(source, type):
        return [source]
    return [
        c
        for c in vars(source).values()
        if isinstance(c, type)
        and issubclass(c, Method)
        and c.__module__ == source.__name__
        and not (inspect.isabstract(c) and "name" not in vars(c))
    ]


def _admit(cls: type[Method], found: dict[str, type[Method]]) -> None:
    if not issubclass(cls, Method):
        raise TypeError(f"{cls.__name__} does not derive from lowrank_bench.compression.method.Method")
    for attribute, kind in (("name", str), ("version", int)):
        if not isinstance(getattr(cls, attribute, None), kind):
            raise TypeError(f"{cls.__name__} does not set {attribute!r}, of type {kind.__name__}")
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(cls.__abstractmethods__))
        raise TypeError(f"{cls.__name__} does not implement {missing}: look for a misspelt name")
    if cls.name in found and found[cls.name] is not cls:
        raise ValueError(f"the name {cls.name!r} is already taken by {found[cls.name].__module__}")
    found[cls.name] = cls
