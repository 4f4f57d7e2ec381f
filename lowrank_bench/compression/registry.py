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
from typing import Any, NamedTuple

from lowrank_bench.compression.method import Method
from lowrank_bench.errors import InvalidInput, UnknownName

BUILT_IN = "lowrank_bench.methods"
GROUP = "lowrank_bench.methods"

_folders: list[Path] = []
_failures: dict[tuple[Path, int], BaseException] = {}
"""Of files of methods folders, by the time of their last change: what importing them raised."""


class _NameTaken(ValueError):
    """Two methods of one name; the second is not admitted."""

    def __init__(self, name: str, owner: type[Method]) -> None:
        super().__init__(f"the name {name!r} is already taken by {owner.__module__}")
        self.name = name


class _Scanned(NamedTuple):
    """``failed``: where a plug-in is that cannot be used, and why. ``claimed``: names of methods that a file in a
    methods folder has as well, and that file.
    """

    found: dict[str, type[Method]]
    failed: dict[str, str]
    claimed: dict[str, str]


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
    return dict(sorted(_scan().found.items()))


def broken() -> dict[str, str]:
    """Every plug-in that could not be used: {where: why}."""
    return _scan().failed


def method_class(name: str | type[Method]) -> type[Method]:
    """The class of that name; a class stands for itself. Raises UnknownName with the nearest one, and InvalidInput for
    a name that a methods folder claims as well and for what is no method.
    """
    if isinstance(name, type):
        try:
            return _fit(name)
        except TypeError as error:
            raise InvalidInput(f"method = {name.__name__}: {error}") from None
    if not isinstance(name, str):
        raise InvalidInput(f"method = {name!r}: the name of a method or its class is wanted, and its options beside it")
    scanned = _scan()
    if name not in scanned.found:
        known = [*scanned.found, *(f"{where} (broken: {why})" for where, why in scanned.failed.items())]
        raise UnknownName("method", name, known)
    if where := scanned.claimed.get(name):
        owner = scanned.found[name].__module__
        raise InvalidInput(f"method {name!r} is the name of {owner} and of {where}: give the latter another name")
    return scanned.found[name]


def _scan() -> _Scanned:
    scanned = _Scanned({}, {}, {})
    for where, load, named in _sources():
        try:
            for cls in _classes(load()):
                _admit(cls, scanned.found)
        except (Exception, SystemExit) as error:  # whatever a plug-in raises on import is its own failure, and is shown
            scanned.failed[where] = f"{type(error).__name__}: {error}"
            if named and isinstance(error, _NameTaken):
                scanned.claimed[error.name] = where
    return scanned


def _sources() -> Iterator[tuple[str, Callable[[], Any], bool]]:
    """Where plug-ins are, how to load them, and whether the user named the place."""
    package = importlib.import_module(BUILT_IN)
    for module in pkgutil.iter_modules(package.__path__):
        name = f"{BUILT_IN}.{module.name}"
        yield name, partial(importlib.import_module, name), False
    for point in entry_points(group=GROUP):
        yield f"entry point {point.name}", point.load, False
    for folder in _folders:
        for path in sorted(path for path in folder.glob("*.py") if not path.name.startswith("test_")):
            yield path.name, partial(_import_file, path), True


def _import_file(path: Path) -> ModuleType:
    folder = hashlib.sha256(str(path.parent).encode()).hexdigest()[:8]  # two folders may hold files of one name
    name = f"lowrank_bench_user_methods.{folder}.{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    state = path, path.stat().st_mtime_ns
    if state in _failures:  # what runs to an error, such as a script, runs once
        raise _failures[state]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.append(str(path.parent))  # for what it imports from beside it
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        _failures[state] = error
        raise
    finally:
        sys.path.remove(str(path.parent))
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


def _admit(cls: type, found: dict[str, type[Method]]) -> None:
    method = _fit(cls)
    if found.setdefault(method.name, method) is not method:
        raise _NameTaken(method.name, found[method.name])


def _fit(cls: type) -> type[Method]:
    """The class itself, where it can be used as a method. Raises TypeError."""
    if not issubclass(cls, Method):
        raise TypeError(f"{cls.__name__} does not derive from lowrank_bench.compression.method.Method")
    for attribute, kind in (("name", str), ("version", int)):
        if not isinstance(getattr(cls, attribute, None), kind):
            raise TypeError(f"{cls.__name__} does not set {attribute!r}, of type {kind.__name__}")
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(cls.__abstractmethods__))
        raise TypeError(f"{cls.__name__} does not implement {missing}: look for a misspelt name")
    return cls
