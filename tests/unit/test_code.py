"""Which source made a stage: that of a plug-in is all that it is made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from lowrank_bench.compression import registry
from lowrank_bench.running.code import code_fingerprint, source_of

METHOD = """
from lowrank_bench.methods.tucker import Tucker
from {where}scale import SCALE

class Mine(Tucker):
    name, version = "mine", 1
"""


def told(folder: Path, place: str) -> str:
    """What is said of a plug-in at that place, which is not run for it."""
    method = type("Mine", (), {"__module__": "mine"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("inspect.getfile", lambda cls: str(folder / place))
        return source_of(method)  # type: ignore[arg-type]


@pytest.mark.parametrize(("place", "beside"), [("mine.py", "scale.py"), ("package/mine.py", "package/scale.py")])
def test_what_a_plug_in_imports_from_beside_it_counts(tmp_path: Path, place: str, beside: str) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    if "/" in place:
        (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / place).write_text(METHOD.format(where="." if "/" in place else ""))
    (tmp_path / beside).write_text("SCALE = 1")
    (tmp_path / "other.py").write_text("")
    before = told(tmp_path, place)
    (tmp_path / "other.py").write_text("SCALE = 2")
    assert told(tmp_path, place) == before
    (tmp_path / beside).write_text("SCALE = 2")
    assert told(tmp_path, place) != before


def test_of_what_is_installed_its_own_package_counts_alone(tmp_path: Path) -> None:
    installed = tmp_path / "site-packages"
    (installed / "package").mkdir(parents=True)
    (installed / "package" / "__init__.py").touch()
    (installed / "package" / "mine.py").write_text("import other")
    (installed / "other.py").write_text("")
    before = told(installed, "package/mine.py")
    (installed / "other.py").write_text("SCALE = 2")
    assert told(installed, "package/mine.py") == before
    (installed / "package" / "scale.py").write_text("")
    (installed / "package" / "__init__.py").write_text("SCALE = 2")
    assert told(installed, "package/mine.py") != before


def test_the_package_s_own_methods_are_within_its_fingerprint() -> None:
    methods = [method for method in registry.methods().values() if method.__module__.startswith(registry.BUILT_IN)]
    assert len({source_of(method) for method in methods}) == 1
    assert len(code_fingerprint()) == len(source_of(methods[0])) == 12
