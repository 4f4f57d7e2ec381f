"""`lowrank-bench new` writes a method that works, and refuses what would not."""

from __future__ import annotations

from pathlib import Path

import pytest

import lowrank_bench as lrb
from lowrank_bench.compression import registry
from lowrank_bench.scaffold import METHOD, TEST, new_method


@pytest.fixture(autouse=True)
def no_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_folders", [])


def test_the_skeleton_is_a_method_and_its_test_is_none(tmp_path: Path) -> None:
    paths = new_method("half_baked", tmp_path / "deep" / "down")
    assert [path.name for path in paths] == ["half_baked.py", "test_half_baked.py"]
    registry.add_methods_folder(paths[0].parent)
    assert registry.broken() == {}
    cls = registry.method_class("half_baked")
    assert cls.__name__ == "HalfBaked" and (cls.name, cls.version) == ("half_baked", 1)
    assert len(METHOD.template.splitlines()) <= 45 and len(TEST.template.splitlines()) <= 16


@pytest.mark.parametrize(
    ("name", "why", "suggested"),
    [
        ("my-method", "identifier", "'my_method'"),
        ("2nd try", "identifier", "'my_2nd_try'"),
        ("class", "identifier", "'my_class'"),
        ("", "identifier", "'method'"),
        ("_x", "identifier", "'x'"),
        ("test_this", "pytest", "'my_this'"),
        ("low_rank_test", "pytest", "'low_rank'"),
        ("conftest", "pytest", "'method'"),
        ("none", "'None'", "'my_none'"),
        ("factor", "'Factor'", "'my_factor'"),
        ("tucker", "taken by lowrank_bench.methods.tucker", "'my_tucker'"),
        ("torch", "would hide", "'my_torch'"),
    ],
)
def test_names_that_will_not_do_are_refused_with_one_that_will(
    tmp_path: Path, name: str, why: str, suggested: str
) -> None:
    with pytest.raises(lrb.InvalidInput, match=why) as refused:
        new_method(name, tmp_path)
    assert suggested in str(refused.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("existing", ["mine_only.py", "test_mine_only.py"])
def test_nothing_is_overwritten(tmp_path: Path, existing: str) -> None:
    (tmp_path / existing).write_text("precious")
    with pytest.raises(lrb.InvalidInput, match=f"{existing} exists"):
        new_method("mine_only", tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(existing, "precious")]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(lrb.InvalidInput, match="--dir"):
        new_method("mine_only", tmp_path / "file")
