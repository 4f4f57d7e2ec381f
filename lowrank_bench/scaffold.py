"""A new method to start from: a file with a working method, and the test that holds it to every promise."""

from __future__ import annotations

import keyword
import re
from importlib.util import find_spec
from pathlib import Path
from string import Template

from lowrank_bench.compression.registry import methods
from lowrank_bench.errors import InvalidInput

METHOD = Template('''"""$name: what it does, in a line (paper, year)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lowrank_bench.compression.chain import Chain, Factor, KernelShape
from lowrank_bench.compression.method import LayerMethod, grid
from lowrank_bench.decomposition.matrix import truncated_svd


class $cls(LayerMethod):
    """Truncated SVD of the input-channel unfolding: 1x1 S -> R, then dh x dw R -> T."""

    name = "$name"
    version = 1  # raised by hand when results would change: older records then no longer count

    def candidates(self, shape: KernelShape) -> Sequence[tuple[int, ...]]:
        """Ranks worth trying for a kernel (T, S, dh, dw), cheapest first; the last is exact."""
        return [(rank,) for rank in grid(min(shape.S, shape.T * shape.dh * shape.dw))]

    def factorize(self, weight: Tensor, ranks: tuple[int, ...], statistics: Tensor | None = None) -> Chain:
        """The factors in the order in which they are applied, each with the kernel's axes that it spans."""
        T, S, dh, dw = weight.shape  # of one group, in float64
        u, s, vh = truncated_svd(weight.transpose(0, 1).flatten(1), ranks[0])  # (S, R), (R,), (R, T dh dw)
        entry = (u * s.sqrt()).T[:, :, None, None]
        core = (s.sqrt()[:, None] * vh).reshape(-1, T, dh, dw).transpose(0, 1)
        return Chain([Factor(entry), Factor(core, "hw")])

    def unfoldings(self, weight: Tensor) -> tuple[Tensor, ...]:
        """A matrix for each rank: its singular values tell a budget what the rank is worth."""
        return (weight.transpose(0, 1).flatten(1),)
''')

TEST = Template('''"""$name keeps what every method promises: exact at full rank or refused by name, and more."""

from pathlib import Path

import pytest

from lowrank_bench.compression.registry import add_methods_folder
from lowrank_bench.conformance import CHECKS

add_methods_folder(Path(__file__).parent)


@pytest.mark.parametrize("check", CHECKS)
def test_$name(check: str) -> None:
    CHECKS[check]("$name")
''')


def new_method(name: str, folder: Path | str = ".") -> list[Path]:
    """Write ``NAME.py`` and ``test_NAME.py`` into a folder, which is made where it does not exist; returns both paths.

    Raises InvalidInput, with a name that would do, for a name that is no identifier, that a method or another module
    has already, or that pytest takes for a test; and where a file exists or cannot be written. Nothing is overwritten.
    """
    folder = Path(folder)
    _check(name)
    files = {folder / f"{name}.py": METHOD, folder / f"test_{name}.py": TEST}
    for path in files:
        if path.exists():
            raise InvalidInput(f"{path} exists: choose another name or --dir, or remove it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, template in files.items():
            with path.open("x", encoding="utf-8") as file:
                file.write(template.substitute(name=name, cls=_class_name(name)))
    except OSError as error:
        raise InvalidInput(f"{folder} cannot be written ({error.strerror}): choose another --dir") from None
    return list(files)


def _check(name: str) -> None:
    if reason := _unfit(name) or _taken(name):
        raise InvalidInput(f"method name {name!r} {reason}: take another, such as {_suggestion(name)!r}")


def _unfit(name: str) -> str | None:
    if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
        return "is not a public Python identifier"
    cls = _class_name(name)
    if keyword.iskeyword(cls) or re.search(rf"^from .* import .*\b{cls}\b", METHOD.template, re.MULTILINE):
        return f"makes a class {cls!r}, which is a name that the file needs"
    tests = name.startswith("test_") or name.endswith("_test") or name == "conftest"
    return "would be taken by pytest for its own" if tests else None


def _taken(name: str) -> str | None:
    if name in methods():
        return f"is taken by {methods()[name].__module__}"
    return "is an installed module, which a file of that name would hide" if find_spec(name) else None


def _suggestion(name: str) -> str:
    """The nearest name that is free."""
    words = re.findall(
        r"[a-z0-9]+",
        re.sub(r"^(test_)+|(_test)+$|^conftest$", "", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()),
    )
    base = "_".join(words) or "method"
    candidates = [base, f"my_{base}", *(f"my_{base}_{number}" for number in range(2, 100))]
    return next(candidate for candidate in candidates if not _unfit(candidate) and not _taken(candidate))


def _class_name(name: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in name.split("_"))
